"""The errors that every reader of files shares."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pycaffe_compat
from pycaffe_compat.errors import MissingFileError, nearest, require_file
from pycaffe_compat.layers import REGISTRY
from pycaffe_compat.proto import caffe_pb2


def test_a_missing_file_says_what_is_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    (work / "full").mkdir(parents=True)
    (work / "empty").mkdir()
    (work / "full" / "deploy.prototxt").write_text("")
    (work / "link").symlink_to("gone.prototxt")
    monkeypatch.chdir(work / "empty")
    cases = {
        "n.prototxt": f"; its folder {work}/empty is empty",
        "./n.prototxt": f"; its folder {work}/empty is empty",
        "../empty/n.prototxt": f"; its folder {work}/empty is empty",
        f"{work}/empty/n.prototxt": f"; its folder {work}/empty is empty",
        "nets/n.prototxt": f"; its folder {work}/empty/nets does not exist",
        "../full/depoly.prototxt": " (did you mean deploy.prototxt?)",
        "../full/zzz": f"; looked in {work}/full",
        "../full/deploy.prototxt/n": f"; its folder {work}/full/deploy.prototxt is a file",
        "../link": "; it is a link to gone.prototxt, which does not exist",
        f"{work}/full/zzz": "",
    }
    for path, words in cases.items():
        with pytest.raises(MissingFileError, match=f"^{re.escape(f'net not found: {path}{words}')}$"):
            require_file(path, "net")
        with pytest.raises(MissingFileError, match=f"^{re.escape(f'net not found: {path}{words}')}$"):
            pycaffe_compat.load(path)


def test_an_empty_path_is_named() -> None:
    with pytest.raises(MissingFileError, match="weights not found: its path is empty"):
        require_file("", "weights")


MESSAGES = caffe_pb2.NetParameter.DESCRIPTOR.file.message_types_by_name
ADDED = caffe_pb2.ADDITIONS  # what forks have besides
FIELDS = {
    name: [field.name for field in message.fields if (name, field.name) not in ADDED.fields]
    for name, message in MESSAGES.items()
}
V1_TYPES = [
    name
    for name, _ in caffe_pb2.V1LayerParameter.LayerType.items()
    if ("V1LayerParameter.LayerType", name) not in ADDED.values
]
TYPES = sorted(name for name, cls in REGISTRY.items() if not cls.forks)


@pytest.mark.parametrize(
    ("name", "choices", "near"),
    [
        ("num_ouput", FIELDS["ConvolutionParameter"], "num_output"),
        ("kernal_sise", FIELDS["ConvolutionParameter"], "kernel_size"),
        ("kernelsize", FIELDS["ConvolutionParameter"], "kernel_size"),
        ("kernel", FIELDS["ConvolutionParameter"], "kernel_h, kernel_size, kernel_w"),
        ("weight_fillers", FIELDS["ConvolutionParameter"], "weight_filler"),
        ("pooling_parma", FIELDS["LayerParameter"], "pooling_param"),
        ("poling_param", FIELDS["LayerParameter"], "pooling_param"),
        ("elus_param", FIELDS["LayerParameter"], "elu_param"),
        ("botom", FIELDS["LayerParameter"], "bottom"),
        ("tpye", FIELDS["LayerParameter"], "type"),
        ("tpo", FIELDS["LayerParameter"], "top"),
        ("gama", FIELDS["SolverParameter"], "gamma"),
        ("max_iters", FIELDS["SolverParameter"], "max_iter"),
        ("lr_polcy", FIELDS["SolverParameter"], "lr_policy"),
        ("Convolutoin", REGISTRY, "Convolution"),
        ("innerproduct", REGISTRY, "InnerProduct"),
        ("INNER_PRODUCT", REGISTRY, "InnerProduct"),
        ("SoftMaxWithLos", REGISTRY, "SoftmaxWithLoss"),
        ("BatchNrom", REGISTRY, "BatchNorm"),
        ("CONVOLUTON", V1_TYPES, "CONVOLUTION"),
        ("conv4", ["conv4_1", "conv4_3", "conv5_1"], "conv4_1, conv4_3"),
        ("date", ["data", "label"], "data"),
    ],
)
def test_slips_are_answered_with_what_was_meant(name: str, choices: Iterable[str], near: str) -> None:
    assert nearest(name, choices) == f" (did you mean {near}?)"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_single_slip_after_the_first_letters_is_found(data: st.DataObject) -> None:
    pool = data.draw(st.sampled_from([*filter(None, FIELDS.values()), TYPES, V1_TYPES]))
    name = data.draw(st.sampled_from([name for name in pool if len(name) > 4] or ["kernel_size"]))
    at = data.draw(st.integers(2, len(name) - 2))
    letter = data.draw(st.sampled_from("aeioustrn"))
    slips = [name[:at] + letter + name[at:], name[:at] + name[at + 1] + name[at] + name[at + 2 :]]
    if not name[at].isdigit():
        slips.append(name[:at] + name[at + 1 :])
    for slip in slips:
        assert name in nearest(slip, [*pool, name], most=len(pool)), slip


@pytest.mark.parametrize(
    ("names", "choices"),
    [
        (
            """BN ReLU6 Permute PriorBox DetectionOutput MultiBoxLoss Normalize ROIPooling PSROIPooling Interp Axpy Upsample
            Reorg ConvolutionDepthwise DepthwiseConvolution ShuffleChannel SmoothL1Loss SmoothL1LossOHEM
            SoftmaxWithLossOHEM BoxAnnotatorOHEM L1Loss CenterLoss TripletLoss FocalLoss DiceCoefLoss Reverse AnnotatedData
            VideoData DenseImageData ImageSegData SegAccuracy RegionLoss Convolution3D Pooling3D CReLU RReLU SELU HSwish
            GELU MarginInnerProduct Proposal Resize Convolution1""",
            TYPES,
        ),
        ("BN CROP IMAGE_SEG_DATA WINDOW_SEG_DATA UNPOOLING ELTWISE_ACCURACY CONVOLUTION3D RELU6 NORMALIZE", V1_TYPES),
        (
            """permute_param norm_param normalize_param bn_param prior_box_param detection_output_param multibox_loss_param
            roi_pooling_param psroi_pooling_param interp_param reorg_param upsample_param smooth_l1_loss_param
            dense_image_data_param video_data_param annotated_data_param quantization_param relu6_param center_loss_param
            shuffle_channel_param reverse_param unpooling_param insanity_param""",
            FIELDS["LayerParameter"],
        ),
        (
            "larc warmup_iter local_lr_auto eval_type ap_version plateau_winsize global_grad_scale",
            FIELDS["SolverParameter"],
        ),
        ("ceil_mode pad_l pad_t pad_r pad_b bn_mode engine2 dilation", FIELDS["PoolingParameter"]),
        ("cache shuffle threads parser_threads", FIELDS["DataParameter"]),
        ("resize_param distort_param expand_param emit_constraint crop_h", FIELDS["TransformationParameter"]),
        ("scale_bias filler bias_filler update_global_stats momentum", FIELDS["BatchNormParameter"]),
        ("default_forward_type", FIELDS["NetParameter"]),
    ],
)
def test_names_of_forks_are_near_to_none_of_ours(names: str, choices: Iterable[str]) -> None:
    assert {name: near for name in names.split() if (near := nearest(name, choices))} == {}


def test_backslashes_of_windows_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "train.prototxt").touch()
    with pytest.raises(MissingFileError, match=r"\(did you mean nets/train\.prototxt\?\)"):
        require_file("nets\\train.prototxt", "net")
    with pytest.raises(MissingFileError, match="a backslash in a prototxt begins an escape"):
        require_file("nets\train.prototxt", "net")


def test_a_root_folder_without_its_slash_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").touch()
    with pytest.raises(MissingFileError, match=r"pictures/a\.jpg\? A root folder ends in /"):
        require_file(f"{tmp_path / 'pictures'}a.jpg", "image")
