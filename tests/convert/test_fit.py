"""Weights against a net: names, shapes, and what only one of them has."""

import h5py
import numpy as np
import pytest
import torch
from weight_formats import FORMATS

from pycaffe_compat.convert import Model, fit_to_net, read_model, remarks, write_model
from pycaffe_compat.errors import WeightsError
from pycaffe_compat.loading import FileReport, Reshaped
from pycaffe_compat.net import Net


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_net_speaks_the_same_names(prototxt, tmp_path, suffix):
    net = Net(prototxt)
    with torch.no_grad():
        for blob in net.state_dict().values():
            blob.normal_()
    net.save(tmp_path / "a.caffemodel")
    write_model(tmp_path / f"b{suffix}", read_model(tmp_path / "a.caffemodel"))
    read = read_model(tmp_path / f"b{suffix}")
    back, report = fit_to_net(read, prototxt)
    assert report == FileReport(str(tmp_path / f"b{suffix}"), list(read.blobs), ignored=report.ignored)
    assert not remarks(read, report, prototxt)
    state = {name: torch.from_numpy(array.copy()) for name, array in back.state_dict().items()}
    fresh = Net(prototxt)
    fresh.load_state_dict(state)
    for name, value in net.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name])


def test_fitting_reshapes_and_reports_layers_of_one_side_only(prototxt, model, tmp_path):
    model.blobs["ip"] = [model.blobs["ip"][0].reshape(1, 1, 5, 64)]
    model.blobs["other"] = model.blobs.pop("prelu")
    model.names["other"] = model.names.pop("prelu")
    write_model(tmp_path / "a.npz", model)
    read = read_model(tmp_path / "a.npz")
    fitted, report = fit_to_net(read, prototxt)
    assert fitted.blobs["ip"][0].shape == (5, 64)
    assert report.reshaped == [Reshaped("ip", 0, (1, 1, 5, 64), (5, 64))]
    assert report.missing == ["prelu"] and report.ignored == ["other"]
    said = remarks(read, report, prototxt)
    assert len(said) == 2
    assert 'a.npz has no weights for "prelu" of' in said[0]
    assert 'has no layers for the weights of "other"' in said[1]


def test_a_shape_that_differs_names_both_shapes_and_both_files(prototxt, model, tmp_path):
    model.blobs["ip"] = [np.zeros((5, 63), "f4")]
    write_model(tmp_path / "a.npz", model)
    with pytest.raises(WeightsError) as caught:
        fit_to_net(read_model(tmp_path / "a.npz"), prototxt)
    for part in ('layer "ip", blob 0 (weight)', "5×64", "5×63", "net.prototxt", "a.npz"):
        assert part in str(caught.value)


SHARED = 'param { name: "w" } param { name: "b" }'
PERMISSIVE = 'param { name: "w" share_mode: PERMISSIVE } param { name: "b2" }'


@pytest.fixture
def sharing(tmp_path):
    """A net whose layers b and c share blobs of a, and weights for it as Caffe's HDF5 files store them: each blob once."""
    prototxt = tmp_path / "shared.prototxt"
    layers = [("a", 6, SHARED), ("b", 4, PERMISSIVE), ("c", 6, SHARED)]
    prototxt.write_text(
        """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 } } }
        layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 1 dim: 6 } } }"""
        + "".join(
            f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "{"y" if number == 4 else "x"}" top: "{name}"
            {share} inner_product_param {{ num_output: {number} weight_filler {{ type: "xavier" }} }} }}"""
            for name, number, share in layers
        )
    )
    path = tmp_path / "shared.caffemodel.h5"
    net = Net(prototxt)
    net.save(path)
    with h5py.File(path, "a") as file:
        for blob in ("b/0", "c/0", "c/1"):
            del file["data"][blob]
    return net, prototxt, path


def test_shared_blobs_that_a_file_leaves_out_come_from_their_owners(sharing, tmp_path):
    net, prototxt, path = sharing
    fitted, report = fit_to_net(read_model(path, prototxt=prototxt), prototxt)
    assert report.missing == []
    write_model(tmp_path / "a.pt", fitted)
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    assert set(state) == {*net.state_dict(), "b.weight"}
    assert torch.equal(state["b.weight"], net.layers["b"].blob(0))
    for name, value in net.state_dict().items():
        assert torch.equal(state[name], value)


def test_left_out_blobs_need_a_net_that_shares_them(sharing, prototxt):
    _, own, path = sharing
    with pytest.raises(WeightsError, match=r'layer "b" has no blob 0, which it must share .* \(--prototxt\)'):
        read_model(path)
    own.write_text(own.read_text().replace('name: "w" share_mode: PERMISSIVE', 'name: "v"'))
    with pytest.raises(
        WeightsError, match=r'layer "b" has no blob 0, and shares it with no layer of .*shared\.prototxt'
    ):
        read_model(path, prototxt=own)


def test_a_layer_that_shares_all_its_blobs_need_not_be_stored(sharing, tmp_path):
    net, prototxt, path = sharing
    write_model(tmp_path / "a.npz", read_model(path, prototxt=prototxt))
    with np.load(tmp_path / "a.npz") as stored:
        np.savez(tmp_path / "b.npz", **{name: stored[name] for name in stored if not name.startswith("c.")})
    fitted, report = fit_to_net(read_model(tmp_path / "b.npz"), prototxt)
    assert report.missing == [] and report.loaded == ["a", "b"]
    assert np.array_equal(fitted.blobs["c"][0], net.layers["a"].blob(0).detach().numpy())
    assert fitted.skeleton.layer[-1].name == "c" and fitted.skeleton.layer[-1].type == "InnerProduct"


@pytest.mark.parametrize("channels, group", [(1, 1), (3, 1), (4, 2)])
def test_the_weights_say_the_channels_of_a_missing_database(channels, group, tmp_path, caplog):
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(
        'layer { name: "d" type: "Data" top: "data" top: "label" transform_param { crop_size: 8 } '
        'data_param { source: "/nowhere" batch_size: 4 backend: LMDB } }'
        'layer { name: "c" type: "Convolution" bottom: "data" top: "c" '
        f"convolution_param {{ num_output: 2 kernel_size: 3 group: {group} bias_term: false }} }}"
    )
    model = Model("m.npz", {"c": [np.zeros((2, channels // group, 3, 3), "f4")]})
    fitted, report = fit_to_net(model, prototxt)
    assert report.loaded == ["c"] and fitted.blobs["c"][0].shape == (2, channels // group, 3, 3)
    assert f"{channels} channels are assumed" in caplog.text
