"""How near a reconstruction is to its picture: PSNR and SSIM, as scikit-image computes them, a number a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError, DivergedError
from ..packages import require_package

WINDOW = 11  # pixels: SSIM's Gaussian window, of standard deviation 1.5, is cut off after 3.5 of them


def psnr(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each picture in dB: 10 log10(1 / mean squared difference).

    The mean is over all pixels and channels of the picture, nothing is cropped. Values outside 0 to 1 cannot be shown: they
    count as 0 and 1. A perfect reconstruction has the PSNR infinity.

    Args:
        originals: (n, channels, height, width), from 0 to 1; any number and order of channels.
        reconstructions: the same shape.

    Returns:
        (n,) float64.

    Raises:
        DataError: the shapes differ, or are not those of batches.
        DivergedError: a value is not finite. CaffeError: scikit-image is not installed.
    """
    metrics = require_scikit_image().metrics
    with np.errstate(divide="ignore"):
        return _each(originals, reconstructions, lambda a, b: metrics.peak_signal_noise_ratio(a, b, data_range=1))


def ssim(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Return the structural similarity of each picture, at most 1.

    As in Wang, Bovik, Sheikh and Simoncelli (IEEE Transactions on Image Processing 13, 2004): a Gaussian window of 11×11
    pixels with standard deviation 1.5, population covariances, K1 0.01 and K2 0.03. It is computed for each channel and
    averaged over the channels (they published it for grey pictures). The outermost 5 pixels do not count as centres of
    windows. Values outside 0 to 1 count as 0 and 1.

    Arguments, returned value and errors are those of :func:`psnr`.

    Raises:
        DataError: a picture is smaller than the window.
    """
    metrics = require_scikit_image().metrics
    if min(originals.shape[2:], default=0) < WINDOW:
        raise DataError(
            f"SSIM needs a window of {WINDOW}x{WINDOW} pixels; pictures of "
            f"{'x'.join(map(str, originals.shape[2:]))} are smaller"
        )
    options: dict[str, Any] = {
        "data_range": 1,
        "channel_axis": 0,
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
    }
    return _each(originals, reconstructions, lambda a, b: metrics.structural_similarity(a, b, **options))


def _each(originals: np.ndarray, reconstructions: np.ndarray, measure: Any) -> np.ndarray:
    """``measure`` of each pair, as double-precision pictures between 0 and 1."""
    if originals.ndim != 4 or originals.shape != reconstructions.shape:
        raise DataError(
            f"pictures of shape {originals.shape} and reconstructions of shape {reconstructions.shape}: "
            "wanted two batches (n, channels, height, width) of the same shape"
        )
    pairs = [np.asarray(each, np.float64) for each in (originals, reconstructions)]
    if not all(np.isfinite(each).all() for each in pairs):
        raise DivergedError("a reconstruction has values that are not finite numbers: the net's weights are damaged")
    first, second = (np.clip(each, 0, 1) for each in pairs)
    return np.array([measure(a, b) for a, b in zip(first, second, strict=True)], np.float64)


def require_scikit_image() -> Any:
    """Return the package, ``skimage``.

    Raises:
        CaffeError: it is not installed.
    """
    need = "PSNR and SSIM need scikit-image"
    require_package("skimage.metrics", need, "scikit-image")
    return require_package("skimage", need, "scikit-image")
