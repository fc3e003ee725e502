"""Training of FlowNet2's kind: its records, random transformations of images and flows, against its kernels written out."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch

import pycaffe_compat
from pycaffe_compat.data import glibc
from pycaffe_compat.data.database import DatabaseWriter
from pycaffe_compat.data.datum import parse_datum
from pycaffe_compat.data.slices import Selection, decoded
from pycaffe_compat.errors import CaffeError, DataError, LayerError
from pycaffe_compat.forks.flownet2.coefficients import DEFAULTS, NAMES, Distribution
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import Solver

VECTORS = [0.51, 0.56, 0.65, 0.79, 0.01, -0.62, 0.35, -0.83, 0.44]
EIGENVECTORS = " ".join(f"chromatic_eigvec: {v}" for v in VECTORS)
DRAWS = (
    " ".join(
        f'{name} {{ rand_type: "{kind}" exp: {exp} mean: {mean} spread: {spread} }}'
        for name, kind, exp, mean, spread in [
            ("translate", "uniform_bernoulli", "false", 0, 0.2),
            ("rotate", "uniform_bernoulli", "false", 0, 0.4),
            ("zoom", "uniform_bernoulli", "true", 0.2, 0.2),
            ("squeeze", "uniform_bernoulli", "true", 0, 0.3),
            ("lmult_pow", "uniform_bernoulli", "true", -0.2, 0.4),
            ("lmult_mult", "uniform_bernoulli", "true", 0, 0.4),
            ("lmult_add", "uniform_bernoulli", "false", 0, 0.03),
            ("sat_pow", "uniform_bernoulli", "true", 0, 0.4),
            ("sat_mult", "uniform_bernoulli", "true", -0.3, 0.5),
            ("sat_add", "uniform_bernoulli", "false", 0, 0.03),
            ("col_pow", "gaussian_bernoulli", "true", 0, 0.4),
            ("col_mult", "gaussian_bernoulli", "true", 0, 0.2),
            ("col_add", "gaussian_bernoulli", "false", 0, 0.02),
            ("ladd_pow", "gaussian_bernoulli", "true", 0, 0.4),
            ("ladd_mult", "gaussian_bernoulli", "true", 0, 0.4),
            ("ladd_add", "gaussian_bernoulli", "false", 0, 0.04),
            ("col_rotate", "uniform_bernoulli", "false", 0, 1),
            ("gamma", "gaussian", "true", 0, 0.1),
            ("brightness", "gaussian", "false", 0, 0.1),
            ("contrast", "uniform", "true", 0, 0.1),
            ("color", "uniform", "true", 0, 0.1),
            ("shadow_angle", "uniform", "false", 0, 3),
            ("shadow_distance", "uniform", "false", 0, 2),
            ("shadow_strength", "uniform", "false", 0.2, 0.1),
        ]
    )
    + ' mirror { rand_type: "bernoulli" prob: 0.5 }'
)


def number(blob, name):
    """array_to_coeff and clear_defaults of one coefficient."""
    i = NAMES.index(name)
    value = math.exp(blob[i]) if DEFAULTS[i] else blob[i]
    return DEFAULTS[i] if abs(value - DEFAULTS[i]) < 1e-3 else value


def matrix(blob, crop, source):
    """tTransMat::fromCoeff, as a 3×3 matrix for (x, y, 1)."""

    def of(name):
        return number(blob, name)

    move = np.array([[-1 if of("mirror") else 1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    move[:2, 2] = (0.5 if of("mirror") else -0.5) * crop[1], -0.5 * crop[0]
    angle = of("angle")
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    shift = np.array([[1, 0, of("dx") * crop[1]], [0, 1, of("dy") * crop[0]], [0, 0, 1]])
    zoom = np.diag([1 / of("zoom_x"), 1 / of("zoom_y"), 1])
    back = np.array([[1, 0, 0.5 * source[1]], [0, 1, 0.5 * source[0]], [0, 0, 1]])
    return back @ zoom @ shift @ turn @ move


def transformed(x, blobs, crop, most):
    """data_augmentation_layer.cu, place by place, for coefficients that ask for all changes but noise."""
    n, _, height, width = x.shape
    y = np.zeros((n, 3, *crop))
    vectors = np.array(VECTORS).reshape(3, 3)
    mean = x.mean((0, 2, 3))
    longest = np.abs(np.einsum("ij,njhw->inhw", vectors, x)).max((1, 2, 3))
    middle = vectors @ mean / longest
    span = math.sqrt((longest**2).sum())
    for i, row, column in np.ndindex(n, *crop):

        def of(name, blob=blobs[i]):
            return number(blob, name)

        u, v, _ = matrix(blobs[i], crop, (height, width)) @ [column, row, 1]
        u, v = min(max(u, 0), width - 1.05), min(max(v, 0), height - 1.05)
        left, top = math.floor(u), math.floor(v)
        a, b = u - left, v - top
        corners = x[i, :, top : top + 2, left : left + 2]
        rgb = (1 - a) * (1 - b) * corners[:, 0, 0] + a * (1 - b) * corners[:, 0, 1]
        rgb = rgb + (1 - a) * b * corners[:, 1, 0] + a * b * corners[:, 1, 1]
        eig = vectors @ (rgb - mean) / longest
        for c in range(3):
            eig[c] = math.copysign(abs(eig[c]) ** of(f"pow_nomean{c}"), eig[c])
            eig[c] = (eig[c] + of(f"add_nomean{c}")) * of(f"mult_nomean{c}")
        eig = eig + middle
        eig[0] = math.copysign(abs(eig[0]) ** of("pow_withmean0"), eig[0])
        eig[0] = (eig[0] + of("add_withmean0")) * of("mult_withmean0")
        s = math.hypot(eig[1], eig[2])
        s1 = max(s ** of("pow_withmean1") + of("add_withmean1"), 0) * of("mult_withmean1") if s > 1e-2 else s
        angle = of("col_angle")
        eig[1:] = (
            math.cos(angle) * eig[1] - math.sin(angle) * eig[2],
            math.sin(angle) * eig[1] + math.cos(angle) * eig[2],
        )
        eig = eig * longest
        bright = math.sqrt((eig**2).sum()) / span
        if s > 1e-2:
            eig[1:] = eig[1:] / s * s1
        now = math.sqrt((eig**2).sum())
        wanted = max(bright ** of("lmult_pow") + of("lmult_add"), 0) * of("lmult_mult") * span
        if now > 1e-2:
            eig = np.minimum(eig / now * wanted, longest)
        rgb = (vectors.T @ eig).clip(0, most)
        shares = rgb * [of("color1"), of("color2"), of("color3")]
        rgb = (shares * (rgb.sum() / (shares.sum() + 0.01))).clip(0, 1)
        rgb = 0.5 + (rgb ** of("gamma") + of("brightness") - 0.5) * of("contrast")
        rgb = rgb.clip(0, most)
        beyond = (column - crop[1] // 2) * math.cos(of("shadow_angle"))
        beyond += (row - crop[0] // 2) * math.sin(of("shadow_angle")) - of("shadow_distance")
        if beyond > 0:
            rgb = rgb - of("shadow_strength")
        y[i, :, row, column] = rgb.clip(0, most)
    return y


def augmentation(options, shape, phase=0, bottoms=()):
    """A DataAugmentation layer with a second top."""
    text = f'name: "d" type: "DataAugmentation" top: "a" top: "b" augmentation_param {{ {options} }}'
    return gl.build(text, shape, *bottoms, phase=phase)


def test_images_are_transformed_by_coefficients_that_are_drawn() -> None:
    torch.manual_seed(3)
    layer = augmentation(f"max_multiplier: 1 crop_width: 7 crop_height: 6 {EIGENVECTORS} {DRAWS}", (4, 3, 12, 14))
    x = torch.rand(4, 3, 12, 14)
    y, coefficients = layer(x)
    assert y.shape == (4, 3, 6, 7) and coefficients.shape == (4, 42, 1, 1)
    blobs = coefficients.flatten(1).double().numpy()
    drawn = dict(zip(NAMES, (np.abs(blobs) > 0).sum(0), strict=True))
    assert all(drawn[name] == 4 for name in ("dx", "dy", "angle", "zoom_x", "col_angle", "mult_withmean1", "gamma"))
    assert not any(drawn[name] for name in ("fog_size", "noise", "pow_withmean0")) and 0 < drawn["mirror"] < 4
    np.testing.assert_allclose(y, transformed(x.double().numpy(), blobs, (6, 7), 1), atol=2e-5)
    corners = np.array([[0, 0, 1], [6, 0, 1], [0, 5, 1], [6, 5, 1]]).T
    for blob in blobs:
        u, v, _ = np.floor(matrix(blob, (6, 7), (12, 14)) @ corners + 1e-6)
        assert (u >= 0).all() and (u <= 12).all() and (v >= 0).all() and (v <= 10).all()
    given = augmentation(
        f"max_multiplier: 1 crop_width: 7 crop_height: 6 {EIGENVECTORS}", x.shape, 1, (coefficients.shape,)
    )
    again, same = given(x, coefficients)
    assert same.equal(coefficients) and again.equal(y)
    alike, zeros = augmentation(f"crop_width: 14 crop_height: 12 {DRAWS} {EIGENVECTORS}", x.shape, phase=1)(x)
    assert not zeros.any()
    torch.testing.assert_close(alike[..., :-1, :-1], x[..., :-1, :-1])


def test_noise_comes_last_and_fog_only_limits_values() -> None:
    x = 2 * torch.rand(2, 3, 20, 20)
    sized = "crop_width: 20 crop_height: 20 max_multiplier: 1"
    noisy, _ = augmentation(f"{sized} noise {{ mean: 0.5 }}", x.shape)(x)
    plain = x.clamp(max=1)[..., :-1, :-1]
    noise = noisy[..., :-1, :-1] - plain
    assert abs(noise.std() - 0.5) < 0.05 and abs(noise.mean()) < 0.05
    fog, coefficients = augmentation(f"{sized} fog_amount {{ mean: 1 }} fog_size {{ mean: 2 }}", x.shape)(x)
    torch.testing.assert_close(fog[..., :-1, :-1], plain)
    assert coefficients[0, NAMES.index("fog_size"), 0, 0] == 2


def test_a_transformation_that_never_fits_is_none() -> None:
    x = torch.rand(2, 3, 6, 6)
    layer = augmentation("crop_width: 6 crop_height: 6 rotate { mean: 0.7 }", x.shape)
    assert not layer(x)[1].any()


@pytest.mark.parametrize(
    ("options", "mean", "spread"),
    [
        ("mean: 2 spread: 3", 2, 3 / math.sqrt(3)),
        ('rand_type: "gaussian" mean: 2 spread: 3', 2, 3),
        ('rand_type: "bernoulli" prob: 0.2 multiplier: 5', 1, 2),
        ('rand_type: "uniform_bernoulli" prob: 0.5 mean: 4 multiplier: 2', 4.5, 3.5),
        (
            'rand_type: "uniform" mean: 0.4 spread: 1 discretize: true',
            0.4,
            math.sqrt(0.5 * 0.4 + 0.1 + 0.9 * 0.1 - 0.16),
        ),
        ('rand_type: "gaussian_bernoulli" prob: 0', 1, 0),
        ("mean: 1 spread: 3 exp: true prob: 0 apply_schedule: false", math.e * math.sinh(3) / 3, None),
    ],
)
def test_numbers_are_drawn_as_the_fork_draws_them(options: str, mean: float, spread: float | None) -> None:
    layer = gl.build('name: "s" type: "NegReLU"', (1, 1, 1, 1))
    drawn = Distribution.of(layer, "x", parse_text(options, caffe_pb2.RandomGeneratorParameter)).draw(
        (200000,), torch.ones(()), 1.0
    )
    deviation = drawn.std().item()
    assert abs(drawn.mean() - mean) < 6 * deviation / 447 + 1e-6
    if "discretize" in options:
        assert set(drawn.tolist()) == {-1, 0, 1}
    elif spread is not None:
        assert abs(deviation - spread) < 0.02 * spread + 1e-6


def test_the_schedule_widens_what_is_drawn() -> None:
    layer = gl.build(
        'name: "g" type: "GenerateAugmentationParameters" augmentation_param { bottomwidth: 90 bottomheight: 90 crop_width: 20 '
        "crop_height: 20 translate_x { spread: 0.1 } translate_y { spread: 0.1 apply_schedule: false } } "
        "coeff_schedule_param { half_life: 4 initial_coeff: 0.5 final_coeff: 2 }",
        (2000, 42, 1, 1),
    )
    start = torch.zeros(2000, 42, 1, 1)
    dx, dy = NAMES.index("dx"), NAMES.index("dy")
    for number in range(1, 5):
        drawn = layer(start)
        discount = 0.5 + 1.5 * (2 / (1 + math.exp(-1.0986 * number / 4)) - 1)
        assert 0.97 < drawn[:, dx].abs().max() / (0.1 * discount) <= 1 and 0.97 < drawn[:, dy].abs().max() / 0.1 <= 1
    assert layer.state() == {"passes": 4} and abs(discount - 1.25) < 1e-4


@pytest.mark.parametrize("mode", ["add", "replace", "regenerate"])
def test_further_coefficients_follow_those_that_are_given(mode: str) -> None:
    layer = gl.build(
        f'name: "g" type: "GenerateAugmentationParameters" augmentation_param {{ mode: "{mode}" rotate {{ mean: 0.25 }} '
        "zoom { mean: 1.5 } gamma { mean: 3 } sat_add { mean: 0.125 } noise { mean: 0.5 } } ",
        *[(2, 42, 1, 1), (2, 3, 40, 40), (2, 3, 8, 9)],
    )
    given = torch.zeros(2, 42)
    for name, value in (("angle", 0.5), ("zoom_x", math.log(2)), ("gamma", 0.25), ("contrast", 1.0), ("dx", 0.0625)):
        given[:, NAMES.index(name)] = value
    have = layer(given[:, :, None, None], torch.rand(2, 3, 40, 40), torch.rand(2, 3, 8, 9)).flatten(1)
    drawn = {"angle": 0.25, "zoom_x": math.log(1.5), "zoom_y": math.log(1.5), "gamma": math.log(3)}
    drawn |= {"add_withmean1": 0.125, "add_withmean2": 0.125, "noise": 0.5}
    want = given.clone() if mode == "add" else torch.zeros(2, 42)
    for name, value in drawn.items():
        want[:, NAMES.index(name)] += value
    if mode == "replace":
        want[:, NAMES.index("contrast")] = 1.0
    torch.testing.assert_close(have, want)
    images = gl.build(
        'name: "g" type: "GenerateAugmentationParameters" augmentation_param { crop_width: 9 crop_height: 8 '
        "rotate { mean: 0.25 } }",
        (2, 3, 40, 40),
    )
    assert images(torch.rand(2, 3, 40, 40))[0, :, 0, 0].tolist() == [0.25 * (name == "angle") for name in NAMES]


def test_flow_between_transformed_images_is_the_forks() -> None:
    torch.manual_seed(5)
    crop, source = (6, 7), (14, 13)
    draw = augmentation(f"crop_width: 7 crop_height: 6 {DRAWS} {EIGENVECTORS} max_multiplier: 1", (3, 3, *source))
    image = torch.rand(3, 3, *source)
    first, second = draw(image)[1], draw(image)[1]
    layer = gl.build(
        'name: "f" type: "FlowAugmentation" augmentation_param { crop_width: 7 crop_height: 6 }',
        *[(3, 2, *source), (3, 42, 1, 1), (3, 42, 1, 1)],
    )
    flow = torch.randn(3, 2, *source)
    flow[0, 0] = math.nan
    have = layer(flow, first, second)
    want = np.zeros((3, 2, *crop))
    for i, row, column in np.ndindex(3, *crop):
        one, two = (matrix(each[i].flatten().double().numpy(), crop, source) for each in (first, second))
        u, v, _ = one @ [column, row, 1]
        step = flow[i, :, int(v + 0.5), int(u + 0.5)].numpy()
        want[i, :, row, column] = (np.linalg.inv(two) @ [u + step[0], v + step[1], 1])[:2] - [column, row]
    np.testing.assert_allclose(have, want, atol=1e-3)
    assert np.isnan(want[0]).all() and np.isfinite(want[1]).all()


def test_flow_follows_what_the_images_show() -> None:
    """A picture that is shifted between two frames: the flow of the transformed frames says where to read the second one."""
    torch.manual_seed(1)
    ramp = torch.stack(torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")).flip(0)[None]
    shift = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1)
    names = "translate { spread: 0.1 } rotate { spread: 0.3 } zoom { mean: 1.2 spread: 0.1 }"
    draw = augmentation(f"crop_width: 12 crop_height: 10 {names}", ramp.shape)
    one, first = draw(ramp)
    two, second = draw(ramp - shift)  # shows at x what the first frame shows at x - shift
    flow = gl.build(
        'name: "f" type: "FlowAugmentation" augmentation_param { crop_width: 12 crop_height: 10 }',
        *[ramp.shape, first.shape, second.shape],
    )(shift.expand(ramp.shape), first, second)
    warp = gl.build('name: "w" type: "FlowWarp" flow_warp_param { fill_value: NOT_A_NUMBER }', two.shape, flow.shape)
    seen = warp(two, flow)
    x, y = flow[0, 0] + torch.arange(12), flow[0, 1] + torch.arange(10)[:, None]
    known = ((x >= 0) & (x <= 10) & (y >= 0) & (y <= 8)).expand_as(seen)
    assert known.sum() > 60
    torch.testing.assert_close(seen[known], one[known], atol=1e-2, rtol=0)


def test_black_augmentation_stops_or_frames_samples() -> None:
    one, two, flow = torch.rand(40, 3, 10, 20) + 1, torch.rand(40, 3, 10, 20) + 1, torch.ones(40, 2, 10, 20)
    shapes = [x.shape for x in (one, two, flow)]
    text = 'name: "b" type: "BlackAugmentation" top: "a" top: "b" top: "c" black_augmentation_param'
    tops = gl.build(f'{text} {{ black {{ rand_type: "bernoulli" prob: 1 }} }}', *shapes)(one, two, flow)
    assert tops[0].equal(two) and tops[1].equal(two) and not tops[2].any()
    tops = gl.build(f"{text} {{ border {{ mean: 0.25 }} }}", *shapes)(one, two, flow)
    seen = set()
    for bottom, top in zip((one, two, flow), tops, strict=True):
        for x, y in zip(bottom, top, strict=True):
            rows, columns = y[0].any(1).nonzero().flatten(), y[0].any(0).nonzero().flatten()
            inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            seen.add((inside[0].start.item(), inside[1].start.item(), len(rows), len(columns)))
            assert y[(slice(None), *inside)].equal(x[(slice(None), *inside)])
    assert seen == {(0, 5, 10, 10), (2, 0, 6, 20), (2, 5, 6, 10)}


def stored(number: int, height: int, width: int, label: int = 0) -> bytes:
    """A record of two images, a flow in parts of 1/32, and a mask; and its label."""
    draw = np.random.default_rng(number)
    images, flow, mask = pieces(draw, height, width)
    data = images.tobytes() + (flow * 32).astype("<i2").tobytes() + np.packbits(mask, bitorder="little").tobytes()
    return caffe_pb2.Datum(channels=9, height=height, width=width, data=data, label=label).SerializeToString()


def pieces(draw: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images = draw.integers(0, 256, (6, height, width), np.uint8)
    flow = draw.integers(-500, 500, (2, height, width)) / 32
    return images, flow, draw.integers(0, 2, height * width)


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LMDB of 12 records, 5×7 each."""
    path = tmp_path_factory.mktemp("flows") / "flows_lmdb"
    with DatabaseWriter(path) as written:
        for number in range(12):
            written.put(b"%08d_x" % number, stored(number, 5, 7, number))
    return path


CUT = (
    "slice_point: 3 slice_point: 6 slice_point: 8 encoding: UINT8 encoding: UINT8 encoding: UINT16FLOW encoding: BOOL1"
)


def source(flows: Path, options: str = "", tops: int = 4):
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    return gl.build(f'name: "d" type: "CustomData" {names} data_param {{ source: "{flows}" backend: LMDB {options} }}')


def test_records_are_sliced_and_decoded(flows: Path) -> None:
    layer = source(flows, f"batch_size: 4 {CUT} scale: 0.5 subtract: 10")
    first, second, flow, mask = layer()
    assert layer.top_shapes() == [(4, 3, 5, 7), (4, 3, 5, 7), (4, 2, 5, 7), (4, 1, 5, 7)]
    for number in range(4):
        images, moved, known = pieces(np.random.default_rng(number), 5, 7)
        np.testing.assert_array_equal(first[number, 0], (images[0].astype(np.float32) - 10) / 2)
        np.testing.assert_array_equal(second[number], images[3:].astype(np.float32) / 2)
        np.testing.assert_array_equal(flow[number], (moved / 2).astype(np.float32))
        np.testing.assert_array_equal(mask[number, 0].ravel(), known / 2)
    layer.close()


def test_numbers_that_are_not_known_are_nan_and_floats_are_taken() -> None:
    datum = caffe_pb2.Datum(channels=1, height=1, width=2, data=np.array([32767, -32768], "<i2").tobytes())
    record = parse_datum(datum.SerializeToString())
    np.testing.assert_array_equal(decoded(record, [], [2]), [[[math.nan, -1024]]])
    datum = caffe_pb2.Datum(channels=1, height=1, width=2, float_data=[1.5, -2])
    np.testing.assert_array_equal(decoded(parse_datum(datum.SerializeToString()), [], []), [[[1.5, -2]]])


def order(layer, batches: int) -> list[int]:
    """The labels of so many batches."""
    found = torch.cat([layer()[-1].flatten() for _ in range(batches)]).int().tolist()
    layer.close()
    return found


def test_records_are_chosen_and_ordered_as_on_linux(flows: Path, tmp_path: Path) -> None:
    plain = "batch_size: 6"
    with DatabaseWriter(tmp_path / "db") as written:
        for number in range(40):
            datum = caffe_pb2.Datum(channels=1, height=1, width=1, data=b"a", label=number)
            written.put(b"%08d" % number, datum.SerializeToString())
    db = tmp_path / "db"
    shuffled = [
        15,
        12,
        14,
        37,
        8,
        23,
        17,
        33,
        11,
        18,
        39,
        16,
        26,
        35,
        4,
        22,
        7,
        5,
        29,
        36,
        3,
        10,
        1,
        20,
        28,
        34,
        31,
        25,
        19,
        21,
    ]
    shuffled += [30, 6, 32, 24, 9, 38, 13, 0, 2, 27]  # std::random_shuffle of libstdc++ after srand(77)
    permuted = "rand_permute: true rand_permute_seed: 77"
    assert order(source(db, f"{plain}", 2), 7)[-6:] == [36, 37, 38, 39, 0, 1]
    assert order(source(db, f"batch_size: 40 {permuted}", 2), 1) == shuffled
    assert order(source(db, f"batch_size: 3 {permuted} range_start: 5 range_end: 9", 2), 2) == [
        *shuffled[5:10],
        shuffled[5],
    ]
    some = order(
        source(
            db, f"batch_size: 5 {permuted} range_start: 5 range_end: 9 rand_permute_order: FIRST_RANGE_THEN_PERMUTE", 2
        ),
        1,
    )
    assert sorted(some) == [5, 6, 7, 8, 9] and some != sorted(some)
    (tmp_path / "split").write_text("\n".join(str(1 + (i % 4 == 0)) for i in range(40)))
    chosen = f'batch_size: 10 preselection_file: "{tmp_path / "split"}" preselection_label: 2'
    assert order(source(db, chosen, 2), 1) == list(range(0, 40, 4))
    blocks = order(source(db, f"batch_size: 40 {permuted} block_size: 15", 2), 1)
    assert (
        sorted(blocks[:15]) == list(range(15))
        and blocks[14] == 14
        and blocks[39] == 39
        and blocks[0:15] != list(range(15))
    )
    again = order(source(db, f"batch_size: 20 {permuted} permute_every_iter: 2", 2), 6)
    epochs = [again[i : i + 40] for i in (0, 40, 80)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs) and epochs[0] == shuffled
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_generator_is_the_c_librarys() -> None:
    assert list(itertools.islice(glibc.numbers(1), 3)) == [1804289383, 846930886, 1681692777]


@pytest.mark.parametrize(
    ("options", "tops", "words"),
    [
        ("slice_point: 3 encoding: UINT8", 2, "holds 355 bytes; 9 channels of 5×7 take 315"),
        ("slice_point: 3 slice_point: 9 ", 3, "slice_point 3, 9 does not cut"),
        (CUT, 3, "make 4 slices"),
        (f"{CUT} crop_size: 3", 4, "data_param.crop_size: the fork does not crop"),
        (f"{CUT} range_start: 7 range_end: 3", 4, "range_end: 3 is before range_start: 7"),
        (f'{CUT} preselection_file: "nowhere"', 4, "needs preselection_label"),
        (f'{CUT} preselection_file: "nowhere" preselection_label: 1', 4, "nowhere"),
        ("slice_point: 3 slice_point: 6 encoding: UINT8 encoding: UINT8 encoding: BOOL1", 3, "bytes"),
    ],
)
def test_records_that_do_not_fit_are_errors(flows: Path, options: str, tops: int, words: str) -> None:
    with pytest.raises(CaffeError, match=words):
        source(flows, options, tops)


def test_a_list_of_labels_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "list"
    for text, words in (("1 2", "has 2 numbers, but the database 3 records"), ("1 2 x", '"x" is not an integer')):
        path.write_text(text)
        with pytest.raises(DataError, match=words):
            Selection(labels=str(path), label=1).records(3)


@pytest.mark.parametrize(
    ("text", "shapes", "words"),
    [
        (
            'type: "DataAugmentation" augmentation_param { crop_width: 1 crop_height: 3 zoom { mean: 1 } }',
            1,
            "at least 2",
        ),
        (
            'type: "DataAugmentation" augmentation_param { crop_width: 2 crop_height: 3 lmult_pow { mean: 1 } }',
            1,
            "take 9",
        ),
        (
            'type: "DataAugmentation" augmentation_param { zoom { rand_type: "normal" } }',
            1,
            'zoom.rand_type is "normal"',
        ),
        ('type: "DataAugmentation"', 2, "its coefficients have shape 2×3×4×4; for 2 images they are 2×42×1×1"),
        ('type: "FlowAugmentation"', 3, "needs augmentation_param.crop_width"),
        ('type: "FlowAugmentation" augmentation_param { crop_width: 2 crop_height: 2 }', 3, "needs a flow"),
        ('type: "GenerateAugmentationParameters"', 2, "has 2 bottoms"),
        ('type: "GenerateAugmentationParameters"', 1, "needs augmentation_param.crop_width"),
        ('type: "BlackAugmentation" top: "a"', 2, "a top for each bottom"),
    ],
)
def test_augmentations_that_do_not_fit_are_errors(text: str, shapes: int, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "x" {text}', *[(2, 3, 4, 4)] * shapes)


def test_colours_of_two_channels_are_an_error() -> None:
    layer = augmentation("crop_width: 4 crop_height: 4", (2, 2, 4, 4), 0, ((2, 42, 1, 1),))
    layer(torch.rand(2, 2, 4, 4), torch.zeros(2, 42, 1, 1))
    with pytest.raises(LayerError, match="takes 3 channels"):
        layer(torch.rand(2, 2, 4, 4), torch.ones(2, 42, 1, 1))


TRAINING = f"""name: "flow"
layer {{ name: "data" type: "CustomData" top: "img0" top: "img1" top: "flow" top: "known" data_param {{
  source: "DATABASE" batch_size: 4 backend: LMDB rand_permute: true rand_permute_seed: 77 verbose: true {CUT} }} }}
layer {{ name: "quiet" type: "Silence" bottom: "known" }}
layer {{ name: "img0s" type: "Eltwise" bottom: "img0" top: "img0s" eltwise_param {{ operation: SUM coeff: 0.00392156862745 }} }}
layer {{ name: "img1s" type: "Eltwise" bottom: "img1" top: "img1s" eltwise_param {{ operation: SUM coeff: 0.00392156862745 }} }}
layer {{ name: "aug0" type: "DataAugmentation" bottom: "img0s" top: "aug0" top: "params0" propagate_down: false
  augmentation_param {{ max_multiplier: 1 recompute_mean: 10 mean_per_pixel: false crop_width: 12 crop_height: 10
  {DRAWS} {EIGENVECTORS} noise {{ mean: 0.03 spread: 0.03 }} }} }}
layer {{ name: "params1" type: "GenerateAugmentationParameters" bottom: "params0" bottom: "img0s" bottom: "aug0" top: "params1"
  augmentation_param {{ translate {{ rand_type: "gaussian_bernoulli" spread: 0.03 }} gamma {{ exp: true spread: 0.02 }} }}
  coeff_schedule_param {{ half_life: 50 initial_coeff: 0.5 final_coeff: 1 }} }}
layer {{ name: "aug1" type: "DataAugmentation" bottom: "img1s" bottom: "params1" top: "aug1" propagate_down: false
  propagate_down: false augmentation_param {{ max_multiplier: 1 recompute_mean: 10 mean_per_pixel: false crop_width: 12
  crop_height: 10 {EIGENVECTORS} }} }}
layer {{ name: "augf" type: "FlowAugmentation" bottom: "flow" bottom: "params0" bottom: "params1" top: "augf"
  augmentation_param {{ crop_width: 12 crop_height: 10 }} }}
layer {{ name: "conv" type: "Convolution" bottom: "aug0" bottom: "aug1" top: "c0" top: "c1"
  convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "both" type: "Concat" bottom: "c0" bottom: "c1" top: "both" }}
layer {{ name: "predict" type: "Convolution" bottom: "both" top: "predict"
  convolution_param {{ num_output: 2 kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "loss" type: "L1Loss" bottom: "predict" bottom: "augf" top: "loss" loss_weight: 0.32
  l1_loss_param {{ l2_per_location: true }} }}
"""


def test_a_flow_net_trains(tmp_path: Path) -> None:
    with DatabaseWriter(tmp_path / "db") as written:
        for number in range(8):
            written.put(b"%08d" % number, stored(number, 24, 30))
    (tmp_path / "train.prototxt").write_text(TRAINING.replace("DATABASE", str(tmp_path / "db")))
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path / "train.prototxt"}" base_lr: 0.001 lr_policy: "fixed" type: "Adam" max_iter: 3 snapshot: 0 '
        "random_seed: 1 snapshot_after_train: false"
    )
    solver = Solver(tmp_path / "solver.prototxt")
    before = solver.net.layers["predict"].weight.clone()
    solver.solve()
    after = solver.net.layers["predict"].weight
    assert solver.net.layers["aug0"].passes.item() == 3 and after.isfinite().all() and not after.equal(before)
    assert pycaffe_compat.load(tmp_path / "train.prototxt", phase="TEST").blob_shapes["augf"] == (4, 2, 10, 12)
