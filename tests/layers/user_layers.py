"""Layers as users of pycaffe write them, for the tests of Python layers."""

import json

import numpy as np

from pycaffe_compat import Layer


class Times(Layer):
    """Multiplies by a number from ``param_str``."""

    def setup(self, bottom, top):
        self.factor = float(self.param_str)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.factor * top[0].diff


class Euclidean(Layer):
    """The Euclidean loss of Caffe's Python layer example, scaled by the top's gradient."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise ValueError("needs two bottoms")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise ValueError("the bottoms differ in size")
        self.diff = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2

    def backward(self, top, propagate_down, bottom):
        for i, sign in enumerate((1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * self.diff * top[0].diff / bottom[i].num


class Affine(Layer):
    """A weight and a bias of one number each; from the values of the bottom and the blobs at the time of backward."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 3

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data + self.blobs[1].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()
        self.blobs[1].diff[...] += top[0].diff.sum()
        bottom[0].diff[...] = self.blobs[0].data * top[0].diff


class Halve(Layer):
    """Works in place."""

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data / 2

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff / 2


class Counter(Layer):
    """A data layer: the number of the pass, in a shape that grows with it."""

    def setup(self, bottom, top):
        self.options = json.loads(self.param_str or "{}")
        self.passes = 0

    def reshape(self, bottom, top):
        top[0].reshape(1 + self.passes, 2)
        top[1].reshape()

    def forward(self, bottom, top):
        top[0].data[...] = self.passes
        top[1].data[...] = self.phase
        self.passes += 1


class Keeper(Layer):
    """Has no top; keeps what it saw."""

    def setup(self, bottom, top):
        self.blobs.add_blob(2, 3)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        self.blobs[0].data[...] = bottom[0].data


class OfPython2(Layer):
    """Calls in ``setup`` what no longer is: ``xrange``, or ``yaml.load`` without a ``Loader``."""

    def setup(self, bottom, top):
        def load(stream, Loader):
            return Loader(stream)

        load("a: 1") if self.param_str == "yaml" else xrange(3)  # noqa: F821


class Raises(Layer):
    """Raises in the method that ``param_str`` names, an exception that it names."""

    def _maybe(self, method):
        which, kind = self.param_str.split()
        if which == method:
            raise {"RuntimeError": RuntimeError, "KeyError": KeyError, "Unicode": self._unicode}[kind](
                "broken " + method
            )

    @staticmethod
    def _unicode(message):
        return UnicodeDecodeError("utf-8", b"\xff", 0, 1, message)

    def setup(self, bottom, top):
        self._maybe("setup")

    def reshape(self, bottom, top):
        self._maybe("reshape")
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        self._maybe("forward")

    def backward(self, top, propagate_down, bottom):
        self._maybe("backward")


class GradientInForward(Layer):
    """Half the squared distance to a parameter; the gradients are written in forward, and backward has nothing to do."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 2

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        away = bottom[0].data - self.blobs[0].data
        top[0].data[...] = (away**2).sum() / 2
        bottom[0].diff[...] = away
        self.blobs[0].diff[...] = -away.sum()

    def backward(self, top, propagate_down, bottom):
        pass


class ForwardOnly(Layer):
    """Has no backward."""

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data


class NoLayer:
    """Is not derived from Layer."""


class Assigns(Times):
    """Replaces its top instead of writing to it."""

    def forward(self, bottom, top):
        top[0] = self.factor * bottom[0].data


class NoReshape(Layer):
    """Lacks ``reshape``."""

    def forward(self, bottom, top):
        top[0].data[...] = 0


class Empty(Layer):
    """Lacks both."""
