"""Caffe's pooling written as it is defined: in numpy, a loop over every window and every place in it.

Sums are accumulated in ``wide`` (float32, or float64 for float64) in row-major order, as docs/ops.md says.
"""

import itertools

import numpy as np

FLT_MAX = float(np.finfo(np.float32).max)


def places(window, plane, ph, pw):
    """The places of one window that lie on the plane: ``(position in the window, h, w)``, row-major."""
    (kh, kw), (sh, sw), (p, q) = window
    for i, j in itertools.product(range(kh), range(kw)):
        h, w = ph * sh - p + i, pw * sw - q + j
        if 0 <= h < plane[0] and 0 <= w < plane[1]:
            yield i * kw + j, h, w


def every_window(y):
    return itertools.product(*(range(n) for n in y.shape))


def max_pool(x, window, size, lowest=-FLT_MAX):
    y = np.full((*x.shape[:2], *size), lowest, x.dtype)
    switch = np.full(y.shape, 255, np.uint8)
    for n, c, ph, pw in every_window(y):
        for position, h, w in places(window, x.shape[2:], ph, pw):
            if x[n, c, h, w] > y[n, c, ph, pw]:
                y[n, c, ph, pw], switch[n, c, ph, pw] = x[n, c, h, w], position
    return y, switch


def unpool_switch(y, switch, window, plane):
    x, weights = np.zeros((2, *y.shape[:2], *plane), wide(y))
    for n, c, ph, pw in every_window(y):
        for position, h, w in places(window, plane, ph, pw):
            if switch[n, c, ph, pw] == position:
                x[n, c, h, w] += y[n, c, ph, pw]
                weights[n, c, h, w] += 1
    return x.astype(y.dtype), weights.astype(y.dtype)


def pool_switch(x, switch, window):
    y = np.zeros(switch.shape, x.dtype)
    for n, c, ph, pw in every_window(y):
        for position, h, w in places(window, x.shape[2:], ph, pw):
            if switch[n, c, ph, pw] == position:
                y[n, c, ph, pw] = x[n, c, h, w]
    return y


def window_size(window, plane, ph, pw):
    (kh, kw), (sh, sw), (p, q) = window
    top, left = ph * sh - p, pw * sw - q
    return (min(top + kh, plane[0] + p) - top) * (min(left + kw, plane[1] + q) - left)


def pool_sum(x, window, size, average):
    y = np.zeros((*x.shape[:2], *size), wide(x))
    for n, c, ph, pw in every_window(y):
        for _, h, w in places(window, x.shape[2:], ph, pw):
            y[n, c, ph, pw] += x[n, c, h, w]
        if average:
            y[n, c, ph, pw] /= window_size(window, x.shape[2:], ph, pw)
    return y.astype(x.dtype)


def unpool_sum(y, window, plane, average):
    x = np.zeros((*y.shape[:2], *plane), wide(y))
    for n, c, ph, pw in every_window(y):
        value = wide(y)(y[n, c, ph, pw])
        if average:
            value /= wide(y)(window_size(window, plane, ph, pw))
        for _, h, w in places(window, plane, ph, pw):
            x[n, c, h, w] += value
    return x.astype(y.dtype)


def pool_fixed(x, window, size, position):
    y = np.zeros((*x.shape[:2], *size), x.dtype)
    for n, c, ph, pw in every_window(y):
        for place, h, w in places(window, x.shape[2:], ph, pw):
            if place == position[0] * window[0][1] + position[1]:
                y[n, c, ph, pw] = x[n, c, h, w]
    return y


def unpool_fixed(y, window, plane, position):
    switch = np.full(y.shape, position[0] * window[0][1] + position[1])
    return unpool_switch(y, switch, window, plane)[0]


def safe_inverse(w):
    return np.divide(1, w, out=np.zeros_like(w), where=w != 0)


def wide(x):
    return np.float64 if x.dtype == np.float64 else np.float32
