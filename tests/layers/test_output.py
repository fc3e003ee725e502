"""HDF5Output and ImageOutput: what is in the files, how they are called, what cannot be written."""

import os

import cv2
import golden_layer as gl
import h5py
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import CaffeError, LayerError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text


def images(folder):
    """All PNG files under a folder, by path relative to it, as stored."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in paths}


def image_output(folder, shape, options=""):
    return gl.build(f'type: "ImageOutput" image_output_param {{ output_prefix: "{folder}/" {options} }}', shape)


def test_hdf5_holds_what_reached_it(tmp_path):
    path = tmp_path / "out.h5"
    path.write_text("something else")
    layer = gl.build(f'type: "HDF5Output" hdf5_output_param {{ file_name: "{path}" }}', (4, 3, 2), (4,))
    assert gl.meta_shapes(layer, [(4, 3, 2), (4,)]) == [] and path.read_text() == "something else"
    batches = [(torch.randn(n, 3, 2), torch.arange(n).float()) for n in (4, 4, 1)]
    for i, batch in enumerate(batches, 1):
        assert layer(*batch) == ()
        with h5py.File(path, "r") as file:
            assert sorted(file) == ["data", "label"]
            for name, parts in zip(("data", "label"), zip(*batches[:i], strict=True), strict=True):
                assert file[name].dtype == np.float32
                whole = torch.cat(parts).numpy()
                np.testing.assert_array_equal(file[name][...], whole.reshape(*whole.shape, *[1] * (4 - whole.ndim)))


def test_hdf5_of_a_net_is_read_back_by_hdf5_data(tmp_path):
    path, listing = tmp_path / "out.h5", tmp_path / "list.txt"
    listing.write_text(f"{path}\n")
    write = Net(
        parse_text(
            'layer { name: "i" type: "Input" top: "x" top: "t" '
            "input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } } "
            'layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "t" '
            f'hdf5_output_param {{ file_name: "{path}" }} }}',
            caffe_pb2.NetParameter,
        ),
        "TEST",
    )
    x, t = torch.randn(2, 3), torch.tensor([1.0, 2.0])
    assert write(x=x, t=t) == {}
    read = Net(
        parse_text(
            'layer { name: "h" type: "HDF5Data" top: "data" top: "label" '
            f'hdf5_data_param {{ source: "{listing}" batch_size: 2 }} }}',
            caffe_pb2.NetParameter,
        ),
        "TEST",
    )
    batch = read()
    read.close()
    assert torch.equal(batch["data"], x[..., None, None]) and torch.equal(batch["label"], t[:, None, None, None])


@pytest.mark.parametrize(
    "shapes, message",
    [(((2, 3), (3,)), "same first axis"), (((), ()), "same first axis"), (((2, 3),), "takes exactly 2")],
)
def test_hdf5_bottoms(shapes, message, tmp_path):
    with pytest.raises(LayerError, match=message):
        gl.build(f'type: "HDF5Output" hdf5_output_param {{ file_name: "{tmp_path}/o.h5" }}', *shapes)(
            *(torch.zeros(s) for s in shapes)
        )


def test_hdf5_cannot_be_written(tmp_path):
    with pytest.raises(LayerError, match=r"needs hdf5_output_param \{ file_name \}"):
        gl.build('type: "HDF5Output"', (2, 3), (2,))
    with pytest.raises(LayerError, match="there is no folder /no/such"):
        gl.build('type: "HDF5Output" hdf5_output_param { file_name: "/no/such/o.h5" }', (2, 3), (2,))
    path = tmp_path / "o.h5"
    layer = gl.build(f'type: "HDF5Output" hdf5_output_param {{ file_name: "{path}" }}', (2, 3), (2,))
    layer(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(LayerError, match=r"/data holds items of shape 3×1×1, but this batch .* 4×1×1"):
        layer(torch.zeros(2, 4), torch.zeros(2))
    with h5py.File(path) as file:
        assert file["data"].shape == (2, 3, 1, 1) and file["label"].shape == (2, 1, 1, 1)
    path.unlink()
    with pytest.raises(LayerError, match="cannot append to"):
        layer(torch.zeros(2, 3), torch.zeros(2))


def test_hdf5_on_a_full_disk_keeps_the_batches_before(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "o.h5"
    layer = gl.build(f'type: "HDF5Output" hdf5_output_param {{ file_name: "{path}" }}', (2, 3), (2,))
    layer(torch.ones(2, 3), torch.ones(2))
    had, most = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(had) + 10, most[1]))
    try:
        with pytest.raises(LayerError, match=r"cannot append to .*; the batches before this one are in it"):
            layer(torch.ones(2, 3), torch.ones(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert path.read_bytes() == had
    layer(torch.ones(2, 3), torch.ones(2))
    with h5py.File(path) as file:
        assert file["data"].shape == (4, 3, 1, 1) and (file["data"][:] == 1).all()


def test_three_channels_are_a_bgr_picture_and_the_numbering_goes_on(tmp_path):
    layer = image_output(tmp_path / "a" / "b", (2, 3, 4, 5))
    assert gl.meta_shapes(layer, [(2, 3, 4, 5)]) == [] and not images(tmp_path)
    x = torch.rand(4, 3, 4, 5) * 1.2 - 0.1
    assert layer(x[:2]) == () == layer(x[2:])
    found = images(tmp_path / "a" / "b")
    assert list(found) == [f"{i:010d}.png" for i in range(4)]
    for image, item in zip(found.values(), x.numpy(), strict=True):
        np.testing.assert_array_equal(image, np.clip(np.floor(item.transpose(1, 2, 0) * 256), 0, 255))


def test_levels(tmp_path):
    """Floor after times 256, clamped: 1 is 255 and 0.5 is 128."""
    values = torch.tensor([-1.0, 0, 1 / 256, 0.9999 / 256, 0.5, 0.999, 1, 2, float("nan")])
    image_output(tmp_path, (1, 1, 1, 9))(values.reshape(1, 1, 1, 9))
    assert images(tmp_path)["0000000000.png"].ravel().tolist() == [0, 0, 1, 0, 128, 255, 255, 255, 0]


@pytest.mark.parametrize(
    "channels, options, names",
    [
        (1, "", ["0000000007.png"]),
        (2, "filename_padding: 3", ["007-00.png", "007-01.png"]),
        (3, "filename_padding: 0 force_slice_channels: true", ["7-00.png", "7-01.png", "7-02.png"]),
        (4, "filename_padding: 1", ["7-00.png", "7-01.png", "7-02.png", "7-03.png"]),
        (1, "print_iter: 3 filename_padding: 2", ["001-07.png"]),
        (30, "filename_padding: 1", [f"7-{i:04d}.png" for i in range(30)]),
    ],
)
def test_names(channels, options, names, tmp_path):
    """Slices are numbered with ceil(ln(channels + 1)) digits, as the fork does."""
    x = torch.rand(1, channels, 2, 3)
    image_output(tmp_path, x.shape, f"base_idx: 7 {options}")(x)
    found = images(tmp_path)
    assert list(found) == names
    for image, channel in zip(found.values(), x[0].numpy(), strict=True):
        np.testing.assert_array_equal(image, np.floor(channel * 256))


def test_print_iter_counts_batches(tmp_path):
    layer = image_output(tmp_path, (2, 1, 1, 1), "print_iter: 2 filename_padding: 1")
    for _ in range(2):
        layer(torch.zeros(2, 1, 1, 1))
    assert list(images(tmp_path)) == ["01-0.png", "01-1.png", "02-2.png", "02-3.png"]


def test_scale_and_offset(tmp_path):
    x = torch.rand(1, 1, 4, 4) * 200 - 100
    image_output(tmp_path, x.shape, "scale: 0.005 offset: 0.5")(x)
    np.testing.assert_array_equal(
        images(tmp_path)["0000000000.png"], np.floor((x[0, 0].numpy() * np.float32(0.005) + np.float32(0.5)) * 256)
    )


def test_auto_scale_is_of_each_item(tmp_path):
    x = torch.tensor([[-2.0, 0, 2], [5, 5, 5], [0, 1, 10]]).reshape(3, 1, 1, 3)
    image_output(tmp_path, x.shape, "normalization: AutoSCALE scale: 99")(x)
    assert [i.ravel().tolist() for i in images(tmp_path).values()] == [[0, 128, 255], [0, 0, 0], [0, 25, 255]]


@pytest.mark.parametrize(
    "values, ratio, want",
    [
        ([0, 1, 2, 3, 100], 0.8, [0, 85, 170, 255, 255]),  # the wider gap is above
        ([-100, 0, 1, 2, 3], 0.8, [0, 0, 85, 170, 255]),  # or below
        ([0, 1, 2, 3, 4], 0.8, [0, 85, 170, 255, 255]),  # of equal ones, the one above
        ([-50, 0, 2, 4, 100], 0.6, [0, 0, 128, 255, 255]),
        ([7, 1, 4], 0.1, [255, 0, 255]),  # one value is left: the width is taken for 1
    ],
)
def test_auto_ratio_leaves_extremes_out(values, ratio, want, tmp_path):
    x = torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)
    image_output(tmp_path, x.shape, f"normalization: AutoSCALE auto_ratio: {ratio}")(x)
    assert images(tmp_path)["0000000000.png"].ravel().tolist() == want


def test_fewer_axes_are_as_in_caffe(tmp_path):
    image_output(tmp_path, (2, 3))(torch.full((2, 3), 0.5))
    assert [i.shape for i in images(tmp_path).values()] == [(1, 1, 3)] * 2


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (0, 3, 2, 2)])
def test_shapes_that_are_no_images(shape, tmp_path):
    with pytest.raises(LayerError, match="takes images of shape N×C×H×W"):
        gl.meta_shapes(image_output(tmp_path, shape), [shape])


def test_options_and_folders_that_do_not_work(tmp_path):
    for ratio in (0, 1.5):
        with pytest.raises(LayerError, match=f"auto_ratio: {ratio} must be above 0 and at most 1"):
            image_output(tmp_path, (1, 1, 1, 1), f"normalization: AutoSCALE auto_ratio: {ratio}")
    with pytest.raises(LayerError, match="1 top blob, but takes exactly 0"):
        gl.build('type: "ImageOutput" top: "y"', (1, 1, 1, 1))
    (tmp_path / "file").write_text("")
    with pytest.raises(CaffeError, match=r"cannot make the folder of .*file/0000000000\.png"):
        image_output(tmp_path / "file", (1, 1, 1, 1))(torch.zeros(1, 1, 1, 1))


def test_default_prefix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gl.build('type: "ImageOutput"', (1, 1, 1, 1))(torch.zeros(1, 1, 1, 1))
    assert os.listdir(tmp_path / "image_output") == ["0000000000.png"]
