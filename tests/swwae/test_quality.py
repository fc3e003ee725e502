"""PSNR and SSIM against numbers that are known without the library."""

import numpy as np
import pytest

from pycaffe_compat.errors import DataError, DivergedError
from pycaffe_compat.swwae.quality import psnr, ssim


def pictures(count: int = 2, channels: int = 3, size: int = 24) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    waves = [0.5 + 0.3 * np.sin(7 * x + i) * np.cos(5 * y - i) for i in range(count * channels)]
    return np.stack(waves).reshape(count, channels, size, size).astype(np.float32)


def test_psnr_is_ten_decibels_for_each_factor_of_ten_in_the_squared_error():
    originals = pictures()
    shifted = originals + np.array([0.1, 0.01], np.float32).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(psnr(originals, shifted), [20, 40], rtol=1e-4)


def test_psnr_counts_all_channels_at_once():
    originals = np.full((1, 4, 12, 12), 0.5)
    changed = originals.copy()
    changed[:, 0] += 0.2  # the mean over the channels: 0.2² / 4
    np.testing.assert_allclose(psnr(originals, changed), 20)


def test_a_perfect_reconstruction():
    originals = pictures()
    assert np.isinf(psnr(originals, originals)).all()
    np.testing.assert_allclose(ssim(originals, originals), 1)


def test_ssim_of_constant_pictures_is_its_luminance_term():
    a, b, c1 = 0.2, 0.6, 0.01**2
    wanted = (2 * a * b + c1) / (a * a + b * b + c1)
    np.testing.assert_allclose(ssim(np.full((1, 1, 16, 16), a), np.full((1, 1, 16, 16), b)), wanted, rtol=1e-9)


def test_ssim_is_the_mean_over_channels():
    originals, noise = pictures(1), np.random.RandomState(0).normal(0, 0.1, (1, 3, 24, 24))
    each = [ssim(originals[:, [c]], (originals + noise)[:, [c]])[0] for c in range(3)]
    np.testing.assert_allclose(ssim(originals, originals + noise), np.mean(each))
    assert 0.1 < each[0] < 0.95


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_what_cannot_be_shown_is_clipped(measure):
    originals = np.zeros((1, 3, 16, 16))
    originals[..., 8:] = 1
    np.testing.assert_array_equal(measure(originals, originals * 5 - 2), measure(originals, originals))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_bad_input(measure):
    with pytest.raises(DataError, match="of the same shape"):
        measure(pictures(2), pictures(3))
    spoilt = pictures()
    spoilt[0, 0, 3, 3] = np.nan
    with pytest.raises(DivergedError, match="not finite"):
        measure(pictures(), spoilt)


def test_pictures_smaller_than_the_window_of_ssim():
    with pytest.raises(DataError, match="11x11 pixels; pictures of 8x8 are smaller"):
        ssim(pictures(size=8), pictures(size=8))
