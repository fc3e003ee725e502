"""Evaluation: net surgery gives the same scores, crops are Caffe's, errors are counted right."""

import numpy as np
import pytest
import torch

from pycaffe_compat.data.database import DatabaseWriter
from pycaffe_compat.data.datum import array_to_datum
from pycaffe_compat.data.mean import write_mean
from pycaffe_compat.errors import DataError, DivergedError, WeightsError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.swwae import Decoder, augment, reconstruction_net, vgg
from pycaffe_compat.swwae.blocks import layer
from pycaffe_compat.swwae.decoder import strip_decoder
from pycaffe_compat.swwae.evaluate import Errors, evaluate, load_surgically, scoring_net
from pycaffe_compat.swwae.generate import VARIANTS
from pycaffe_compat.swwae.nets import deploy_inputs, imagenet_inputs
from pycaffe_compat.swwae.pictures import centre, resize_shorter

SIZE = 16


def small(inputs=None):
    inputs = deploy_inputs((1, 3, SIZE, SIZE)) if inputs is None else inputs
    filler = {"type": "msra"}
    return vgg(inputs=inputs, stages=[(1, 4), (2, 6)], hidden=(64,), classes=7, filler=filler, name="small")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    net = Net(augment(small()))
    path = tmp_path / "small.caffemodel"
    net.save(path)
    return net, path


@pytest.mark.parametrize("decoder", VARIANTS, ids=lambda each: each.name)
def test_stripping_undoes_induction(decoder):
    for net in (vgg(), vgg(inputs=imagenet_inputs((2, 2))), small()):
        assert strip_decoder(augment(net, decoder)) == net
        assert strip_decoder(augment(net, decoder, dump="dump/")) == net
    kept = strip_decoder(reconstruction_net(vgg(), Decoder(), "conv2_2"))
    assert [each.name for each in kept.layer][-1] == "conv2_2/pool"


def test_convolutions_score_as_the_fully_connected_layers_do(weights):
    net, path = weights
    images = torch.randn(1, 3, SIZE, SIZE)
    expected = net.run(data=images, label=torch.zeros(1, 1, 1, 1))[0]["fc4"]
    for convolutional in (False, True):
        scorer, blob = scoring_net(augment(small()), convolutional)
        built = Net(scorer)
        load_surgically(built, path)
        torch.testing.assert_close(built.run(data=images)[0][blob].flatten(1), expected)


def test_a_larger_image_is_scored_at_each_position(weights):
    _, path = weights
    scorer, blob = scoring_net(small(), True)
    assert [layer.name for layer in scorer.layer if layer.type == "Convolution"][-2:] == ["fc3-conv", "fc4-conv"]
    built = Net(scorer)
    load_surgically(built, path)
    image = torch.randn(1, 3, SIZE, SIZE + 8)
    scores = built.run(data=image)[0][blob]
    assert scores.shape == (1, 7, 1, 3)
    assert not {"loss", "accuracy", "label"} & {top for layer in scorer.layer for top in layer.top}


def test_errors_of_single_crops_and_of_whole_images(weights, tmp_path):
    net, path = weights
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (3, SIZE + 4, SIZE + 4 + 4 * (i % 2)), dtype=np.uint8) for i in range(9)]
    mean = np.array([103.939, 116.779, 123.68], "f4").reshape(3, 1, 1)
    labels, whole = [], []
    scorer, blob = scoring_net(small(), True)
    convolutional = Net(scorer)
    load_surgically(convolutional, path)
    for image in images:
        left = (image.shape[2] - SIZE) // 2
        crop = image[:, 2 : 2 + SIZE, left : left + SIZE] - mean
        scores = net.run(data=torch.from_numpy(crop)[None], label=torch.zeros(1, 1, 1, 1))[0]["fc4"]
        labels.append(int(scores.argmax()))
        scores = convolutional.run(data=torch.from_numpy(image - mean)[None])[0][blob].mean((2, 3))
        whole.append(int(scores.argsort()[0, 3]))  # the fourth best
    database = tmp_path / "lmdb"
    with DatabaseWriter(database) as writer:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            writer.put(b"%08d" % i, array_to_datum(image, label if i else (label + 1) % 7).SerializeToString())
    model = tmp_path / "net.prototxt"
    model.write_text(str(augment(small())))
    found = evaluate(model, path, database, edge=SIZE + 4, batch=4, progress=False)
    assert (found.images, found.wrong1) == (9, 1)
    assert found.top1 == pytest.approx(100 / 9)
    assert evaluate(model, path, database, edge=SIZE + 4, limit=5, progress=False).images == 5
    pairs = list(zip(images, whole, strict=True))
    found = evaluate(small(), path, pairs, "convolution", edge=SIZE + 4, progress=False)
    assert (found.images, found.wrong1, found.wrong5) == (9, 9, 0)


def test_ranks():
    scores = torch.tensor([[9.0, 8, 7, 6, 5, 4], [0, 1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4]])
    errors = Errors()
    errors.add(scores, torch.tensor([0, 1, 5]))
    assert (errors.images, errors.wrong1, errors.wrong5) == (3, 2, 1)


def test_ties_and_what_is_no_score_count_against_the_net():
    errors = Errors()
    errors.add(torch.zeros(1, 6), torch.tensor([0]))
    assert (errors.images, errors.wrong1, errors.wrong5) == (1, 1, 1)
    for spoilt in (float("nan"), float("inf")):
        with pytest.raises(DivergedError, match="scores are not finite"):
            errors.add(torch.tensor([[0, spoilt]]), torch.tensor([0]))
    for label in (-1, 6):
        with pytest.raises(DataError, match=f"the label {label} is not one of the net's 6 classes, 0 to 5"):
            errors.add(torch.zeros(1, 6), torch.tensor([label]))


def test_the_mean_is_that_of_the_data_layer(weights, tmp_path):
    net, path = weights
    rng = np.random.default_rng(0)
    images = [rng.integers(80, 121, (3, SIZE, SIZE), dtype=np.uint8) for _ in range(9)]
    inputs = {"data": (torch.from_numpy(np.stack(images)) - 100.0) * 0.5, "label": torch.zeros(9, 1, 1, 1)}
    pairs = list(zip(images, net.run(**inputs)[0]["fc4"].argmax(1).tolist(), strict=True))
    write_mean(tmp_path / "mean", np.full((3, 20, 20), 100, np.float32))
    found = []
    for mean in (
        "",
        "mean_value: 100",
        "mean_value: 100 " * 3,
        f'mean_file: "{tmp_path}/mean"',
        "mean_value: 100 " * 2,
    ):
        model = small([layer("data", "Data", tops=["data", "label"])])
        parse_text(f"crop_size: {SIZE} scale: 0.5 {mean}", model.layer[0].transform_param)
        try:
            errors = evaluate(model, path, pairs, edge=SIZE, shape=(3, SIZE, SIZE), progress=False)
            found.append(errors.wrong1)
        except DataError as error:
            assert "a mean of 2 numbers for images of 3 channels" in str(error)
    assert found[0] > 0 and found[1:] == [0, 0, 0]


def test_the_shorter_edge_keeps_proportions():
    assert resize_shorter(np.zeros((3, 100, 200), np.uint8), 50).shape == (3, 50, 100)
    assert resize_shorter(np.zeros((1, 200, 100), np.uint8), 256).shape == (1, 512, 256)
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    assert resize_shorter(image, 4) is image
    np.testing.assert_array_equal(centre(image, 2, 2)[0], [[5, 6], [9, 10]])


def test_bad_input(weights, tmp_path):
    _, path = weights
    with pytest.raises(DataError, match="smaller than the crop"):
        evaluate(small(), path, [(np.zeros((3, 8, 8), np.uint8), 0)], edge=8, progress=False)
    with pytest.raises(DataError, match='mode "crops" is neither of crop, convolution'):
        evaluate(small(), path, [], "crops", progress=False)
    for option in ("edge", "batch", "limit"):
        with pytest.raises(DataError, match=f"{option}: 0 must be at least 1"):
            evaluate(small(), path, [], progress=False, **{option: 0})
    database = tmp_path / "bad"
    with DatabaseWriter(database) as writer:
        writer.put(b"the key", caffe_pb2.Datum(encoded=True, data=b"no picture").SerializeToString())
    with pytest.raises(DataError, match="record the key"):
        evaluate(small(), path, database, progress=False)
    other = tmp_path / "other.caffemodel"
    Net(reconstruction_net(small(), Decoder(), "conv1_1")).save(other)
    with pytest.raises(WeightsError, match='no weights for the layer "conv2_1"'):
        evaluate(small(), other, [], progress=False)
