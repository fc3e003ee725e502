"""Byte images into float batches: the kernels and the implementation in PyTorch against the definition, value by value."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_compat import ops
from pycaffe_compat.ops import images as module
from pycaffe_compat.ops.windows import OperatorError


def by_kernel(out, images, windows, mean, scale):
    assert ops.transforms_images("cpu"), "the extension is to be built before its kernels are tested"
    torch.ops.pycaffe_compat.transform_images_(out, images, windows, mean, scale)


def by_kernel_at(out, image, offsets, windows, mean, scale):
    assert ops.transforms_images("cpu"), "the extension is to be built before its kernels are tested"
    torch.ops.pycaffe_compat.transform_images_at_(out, image, offsets, windows, mean, scale)


def value_by_value(images, windows, mean, scale, size):
    """The definition, in numpy's float32."""
    images, mean, scale = images.numpy(), mean.numpy(), np.float32(scale)
    out = np.empty((*images.shape[:2], *size), np.float32)
    for n, c, y, x in np.ndindex(*out.shape):
        top, left, mirrored = windows[n].tolist()
        row, column = top + y, left + (size[1] - 1 - x if mirrored else x)
        m = mean[c if len(mean) > 1 else 0]
        out[n, c, y, x] = (np.float32(images[n, c, row, column]) - (m[0, 0] if m.size == 1 else m[row, column])) * scale
    return out


@st.composite
def cases(draw):
    """Images in either layout, a window for each, one mean for all, for each channel or for each pixel, a scale."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, channels = draw(st.integers(1, 3)), draw(st.sampled_from((1, 2, 3, 4)))
    side = st.sampled_from((1, 2, 7, 8, 16, 17, 33, 50))
    plane = draw(side), draw(side)
    size = tuple(draw(st.integers(1, length)) for length in plane)
    images = torch.from_numpy(rng.integers(0, 256, (n, channels, *plane), dtype=np.uint8))
    if draw(st.booleans()):
        images = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    corners = [rng.integers(0, p - s + 1, n) for p, s in zip(plane, size, strict=True)]
    windows = torch.from_numpy(np.stack([*corners, rng.integers(0, 2, n)], 1).astype(np.int32))
    shape = draw(st.sampled_from(((1, 1, 1), (channels, 1, 1), (channels, *plane), (1, *plane))))
    mean = torch.from_numpy((rng.standard_normal(shape) * 100).astype(np.float32))
    return images, windows, mean, draw(st.sampled_from((1.0, 0.00390625, 0.017))), size


@pytest.mark.parametrize("run", (by_kernel, module._run))
@settings(deadline=None, max_examples=80)
@given(case=cases())
def test_every_value(run, case):
    images, windows, mean, scale, size = case
    out = torch.full((*images.shape[:2], *size), torch.nan)
    run(out, [images], windows, mean, scale)
    np.testing.assert_array_equal(out.numpy(), value_by_value(images, windows, mean, scale, size))


@pytest.mark.parametrize("run", (by_kernel, module._run))
def test_images_of_different_sizes_are_one_batch(run):
    rng = np.random.default_rng(1)
    some = [torch.from_numpy(rng.integers(0, 256, (n, 3, h, 20), np.uint8)) for n, h in ((2, 20), (1, 31), (3, 17))]
    windows = torch.tensor([[0, 1, 0], [3, 3, 1], [14, 0, 1], [0, 3, 0], [0, 2, 1], [0, 0, 1]], dtype=torch.int32)
    mean, out = torch.tensor([1.5, 2.5, 3.5])[:, None, None], torch.empty(6, 3, 17, 17)
    run(out, some, windows, mean, 0.5)
    want = [
        value_by_value(images, part, mean, 0.5, (17, 17))
        for images, part in zip(some, windows.split([2, 1, 3]), strict=True)
    ]
    np.testing.assert_array_equal(out.numpy(), np.concatenate(want))


def test_planes_of_the_results_size_are_taken_whole():
    """What is cropped already still says where, for the mean."""
    images = torch.arange(24, dtype=torch.uint8).reshape(1, 1, 4, 6)
    mean = torch.rand(1, 9, 9)
    windows = torch.tensor([[5, 2, 0]], dtype=torch.int32)
    made = ops.transform_images([images], windows, mean)
    assert torch.equal(made[0, 0], images[0, 0].float() - mean[0, 5:9, 2:8])


@pytest.mark.parametrize("run", (by_kernel, module._run))
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windows": [[0, 3, 0]]}, r"the window of 4 × 4 at \(0, 3\) extends beyond the images of 6 × 6"),
        ({"windows": [[-1, 0, 0]]}, "extends beyond the images"),
        ({"windows": [[0, 0]]}, "windows of shape"),
        ({"images": torch.zeros(1, 3, 6, 6)}, "images is torch.float32"),
        ({"images": torch.zeros(1, 3, 3, 6, dtype=torch.uint8)}, "does not hold"),
        ({"images": torch.zeros(2, 3, 6, 6, dtype=torch.uint8)}, "out has 1 images, but there are 2"),
        ({"mean": torch.zeros(2, 1, 1)}, "mean has shape"),
        ({"mean": torch.zeros(3, 3, 6)}, "mean has shape"),
        ({"mean": torch.zeros(3)}, "mean is torch.float32 of shape"),
    ],
)
def test_arguments_that_do_not_fit_are_an_error(run, change, message):
    given = {"images": torch.zeros(1, 3, 6, 6, dtype=torch.uint8), "windows": [[1, 2, 0]], "mean": torch.zeros(3, 6, 6)}
    given |= change
    windows = torch.tensor(given["windows"], dtype=torch.int32)
    with pytest.raises(OperatorError, match=message):
        run(torch.empty(1, 3, 4, 4), [given["images"]], windows, given["mean"], 1.0)


def test_an_empty_batch():
    made = ops.transform_images(
        [torch.zeros(0, 3, 4, 4, dtype=torch.uint8)], torch.zeros(0, 3, dtype=torch.int32), torch.zeros(1, 1, 1)
    )
    assert made.shape == (0, 3, 4, 4)


@pytest.mark.parametrize("run", (by_kernel_at, module._run_at))
@pytest.mark.parametrize("interleaved", (False, True))
def test_one_image_stands_for_those_at_offsets(run, interleaved):
    rng = np.random.default_rng(2)
    memory = torch.from_numpy(rng.integers(0, 256, 5000, np.uint8))
    steps = (0, 1, 60, 3) if interleaved else (0, 400, 20, 1)
    offsets = torch.tensor([1300, 0, -77, 5000 - 77 - 1200])
    image = memory.as_strided((1, 3, 20, 20), steps, 77)
    windows = torch.tensor([[0, 1, 0], [3, 3, 1], [2, 0, 1], [0, 3, 0]], dtype=torch.int32)
    mean, out = torch.tensor([1.5, 2.5, 3.5])[:, None, None], torch.empty(4, 3, 17, 17)
    run(out, image, offsets, windows, mean, 0.5)
    each = torch.cat([memory.as_strided((1, 3, 20, 20), steps, 77 + at) for at in offsets.tolist()])
    np.testing.assert_array_equal(out.numpy(), value_by_value(each, windows, mean, 0.5, (17, 17)))


@pytest.mark.parametrize("run", (by_kernel_at, module._run_at))
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": [0, 3]}, "an offset is outside the image's storage, which has 110 bytes"),
        ({"offsets": [-1, 0]}, "an offset is outside the image"),
        ({"offsets": [2**62, 0]}, "an offset is outside the image"),
        ({"offsets": [0.0, 1.0]}, "offsets is torch.float32"),
        ({"offsets": [0]}, "out has 2 images, but there are 1"),
        ({"images": 2}, r"image is torch.uint8 of shape \(2, 3, 3, 6\)"),
    ],
)
def test_offsets_that_do_not_fit_are_an_error(run, change, message):
    memory = torch.zeros(110, dtype=torch.uint8)
    image = memory[:108].view(change.get("images", 1), 3, -1, 6)
    offsets = torch.tensor(change.get("offsets", [0, 2]))
    with pytest.raises(OperatorError, match=message):
        run(torch.empty(2, 3, 4, 4), image, offsets, torch.zeros(2, 3, dtype=torch.int32), torch.zeros(1, 1, 1), 1.0)


@pytest.mark.parametrize("mean", ((3, 1, 1), (3, 120, 120)))
@pytest.mark.parametrize("width", (100, 107))
def test_large_batches_are_the_same_bits(width, mean):
    """They are written past the cache, in pieces of 32 bytes wherever a row begins."""
    torch.manual_seed(0)
    images, mean = torch.randint(0, 256, (40, 3, 120, 120), dtype=torch.uint8), torch.randn(mean) * 100
    windows = torch.randint(0, 13, (40, 3), dtype=torch.int32)
    out, want = torch.empty(2, 40 * 3 * 100 * width)
    out, want = (x.view(40, 3, 100, width) for x in (out, want))
    assert out.untyped_storage().nbytes() > 4 << 20
    by_kernel(out, [images], windows, mean, 0.017)
    module._run(want, [images], windows, mean, 0.017)
    assert torch.equal(out, want)
