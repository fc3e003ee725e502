"""VideoData of temporal segment networks and of C3D. What it must make is worked out by the formulas of their sources."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import data_source as ds
import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.data.mean import write_mean
from pycaffe_compat.errors import CaffeError, DataError, LayerError, MissingFileError
from pycaffe_compat.layers import layer_class
from pycaffe_compat.layers.data_layers import BatchSource
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text, write_message
from pycaffe_compat.proto.numbers import classes

HEIGHT, WIDTH, FRAMES = 12, 16, 9
RATIOS = (1.0, 0.875, 0.75, 0.66)


def picture(video: int, frame: int) -> np.ndarray:
    """An image whose pixels tell row, column, and video and frame."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 3, columns * 5, np.full_like(rows, 20 * video + frame)], -1).astype(np.uint8)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three videos as folders of frames of every name that the forks use, and a list of them."""
    for video in range(3):
        folder = tmp_path / f"v{video}"
        folder.mkdir()
        for frame in range(1, FRAMES + 1):
            image = picture(video, frame)
            ok = cv2.imwrite(str(folder / f"image_{frame:04d}.png"), image)
            ok &= cv2.imwrite(str(folder / f"flow_x_{frame:04d}.png"), image[..., 1])
            ok &= cv2.imwrite(str(folder / f"flow_y_{frame:04d}.png"), image[..., 0])
            image[:] = 20 * video + frame  # flat, so that JPEG keeps it
            ok &= cv2.imwrite(str(folder / f"{frame:06d}.jpg"), image)
            assert ok
    lines = [f"{tmp_path}/v{video} {FRAMES} {video + 5}" for video in range(3)]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def source(folder: Path, options: str, transform: str = "", phase: str = "TRAIN", fork: str = "") -> BatchSource:
    text = f"""type: "VideoData" top: "data" top: "label" transform_param {{ {transform} }}
        video_data_param {{ source: "{folder}/list.txt" {options} }}"""
    return ds.build(text, phase, fork)


RGB = 'modality: RGB name_pattern: "image_%04d.png"'
FLOW = 'name_pattern: "flow_%c_%04d.png"'


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_snippets_are_drawn_from_each_part_of_a_video(videos: Path, phase: str) -> None:
    """InternalThreadEntry of video_data_layer.cpp: offsets, and frames behind each other as channels."""
    layer = source(videos, f"{RGB} batch_size: 30 new_length: 2 num_segments: 3", phase=phase)
    data, label = ds.batch(layer, fixed=True)
    assert data.shape == (30, 3 * 2 * 3, HEIGHT, WIDTH) and label.shape == (30, 1, 1, 1)
    np.testing.assert_array_equal(label.ravel(), np.tile([5, 6, 7], 10))
    firsts = set()
    for item, clip in enumerate(data.reshape(30, 3, 2, 3, HEIGHT, WIDTH)):
        for segment, frames in enumerate(clip):
            first = int(frames[0, 2, 0, 0]) - 20 * (item % 3)
            for step, frame in enumerate(frames):
                np.testing.assert_array_equal(frame, picture(item % 3, first + step).transpose(2, 0, 1))
            firsts.add(first - 3 * segment)
    assert firsts == ({1, 2} if phase == "TRAIN" else {2})  # parts of 3 frames have 2 places for 2 frames


def test_parts_that_are_too_short_begin_at_the_first_frame(videos: Path) -> None:
    (data, _) = ds.batch(source(videos, f"{RGB} batch_size: 1 new_length: 4 num_segments: 3"), fixed=True)
    np.testing.assert_array_equal(data[0, 2::3, 0, 0], [1, 2, 3, 4] * 3)


def test_flow_turns_around_in_a_mirror(videos: Path) -> None:
    """Transform of data_transformer.cpp: 255 - x for the even channels of a mirrored flow, then mean and scale."""
    options = f"{FLOW} modality: FLOW batch_size: 24 new_length: 2"
    data, _ = ds.batch(source(videos, options, "mirror: true is_flow: true mean_value: [1, 2] scale: 0.5"), fixed=True)
    want = picture(0, 0).astype(np.float32)
    plain = np.stack([want[..., 1], want[..., 0]] * 2)
    turned = np.stack([255 - want[..., 1], want[..., 0]] * 2)[..., ::-1]
    means = np.array([1, 2, 1, 2], np.float32)[:, None, None]
    seen = [next(i for i, w in enumerate((plain, turned)) if np.array_equal(clip, (w - means) / 2)) for clip in data]
    assert set(seen) == {0, 1}


@pytest.mark.parametrize("more", [False, True])
def test_crops_of_several_scales_have_the_fork_s_sizes_and_places(videos: Path, more: bool, tmp_path: Path) -> None:
    """fillCropSize and fillFixOffset of data_transformer.cpp; a mean image is not moved with the crop."""
    crop = 10
    mean = np.random.default_rng(0).integers(0, 9, (3, HEIGHT, WIDTH)).astype(np.float32)
    write_mean(tmp_path / "mean.binaryproto", mean)
    transform = f"crop_size: {crop} multi_scale: true fix_crop: true more_fix_crop: {str(more).lower()} "
    transform += f'max_distort: 1 mean_file: "{tmp_path}/mean.binaryproto"'
    data, _ = ds.batch(source(videos, f"{RGB} batch_size: 300", transform), fixed=True)
    sides = [int(HEIGHT * ratio) for ratio in RATIOS]
    sides = [crop if abs(side - crop) < 3 else side for side in sides]
    places = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    places += [(0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3)] if more else []
    wanted = {}
    for (i, h), (j, w) in itertools.product(enumerate(sides), repeat=2):
        for y, x in places if abs(i - j) <= 1 else []:
            top, left = y * ((HEIGHT - h) // 4), x * ((WIDTH - w) // 4)
            part = picture(0, 0)[top : top + h, left : left + w, :2]
            part = cv2.resize(part, (crop, crop)).transpose(2, 0, 1).astype(np.float32)
            wanted[(part - mean[:2, :crop, :crop]).tobytes()] = (h, w, top, left)
    seen = {wanted[np.ascontiguousarray(clip[:2]).tobytes()] for clip in data}
    assert len(seen) > 0.9 * len(set(wanted.values()))


@pytest.mark.parametrize("fork", ["", "c3d"])
def test_clips_of_folders(videos: Path, fork: str) -> None:
    """load_batch and ReadImageSequenceToVolumeDatum: N×3×L×H×W, every so manieth frame."""
    lines = "".join(f"v{video} {1 + video} {video}\n" for video in range(3))
    (videos / "list.txt").write_text(lines)
    options = f'use_image: true batch_size: 4 new_length: 3 sampling_rate: 2 root_folder: "{videos}/"'
    data, label = ds.batch(source(videos, options, "crop_size: 6 mean_value: [1, 2, 3]", fork=fork), fixed=True)
    assert data.shape == (4, 3, 3, 6, 6) and label.tolist() == [0, 1, 2, 0]
    for item, video in enumerate([0, 1, 2, 0]):
        want = 20 * video + np.arange(1 + video, 7 + video, 2)[None, :] - np.array([[1], [2], [3]])
        np.testing.assert_array_equal(data[item], np.broadcast_to(want[..., None, None], data[item].shape))


def test_a_mean_clip_is_cropped_with_the_clip(videos: Path) -> None:
    mean = np.random.default_rng(0).integers(0, 9, (1, 3, 2, HEIGHT, WIDTH)).astype(np.float32)
    blob = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=mean.shape), data=mean.ravel())
    write_message(videos / "mean.binaryproto", blob)
    transform = f'crop_size: 8 mean_file: "{videos}/mean.binaryproto" scale: 2'
    (videos / "list.txt").write_text(f"{videos}/v0 4 2\n")
    data, _ = ds.batch(source(videos, "use_image: true batch_size: 1 new_length: 2", transform, "TEST"), fixed=True)
    want = (np.array([4, 5])[:, None, None] - mean[:, :, :, 2:10, 4:12]) * 2
    np.testing.assert_array_equal(data, want)


def test_rates_places_and_labels_at_random(videos: Path) -> None:
    (videos / "list.txt").write_text(f"{videos}/v0 {FRAMES} 2\n{videos}/v1 {FRAMES} 1,3\n")
    options = "use_image: true use_temporal_jitter: true new_length: 2 use_sampling_rate_jitter: true "
    options += "max_sampling_rate: 3 use_multiple_label: true num_of_labels: 5 batch_size: 120"
    data, label = ds.batch(source(videos, options), fixed=True)
    np.testing.assert_array_equal(label[:2], [[0, 0, 1, 0, 0], [0, 1, 0, 1, 0]])
    frames = data[::2, 0, :, 0, 0]
    rates = frames[:, 1] - frames[:, 0]
    assert set(rates) == {1, 2, 3}
    for rate in (1, 2, 3):  # rand() % (frames - length * rate + 1) + 1
        assert set(frames[rates == rate, 0]) <= set(range(1, FRAMES - 2 * rate + 2))
    assert frames[:, 0].min() == 1 and frames[rates == 1, 0].max() > 5


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A video file of nine grey frames, 10, 20, and so on, and a shorter one."""
    for name, count in (("film", FRAMES), ("short", 3)):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
        assert writer.isOpened()
        for frame in range(count):
            writer.write(np.full((24, 32, 3), 10 * (frame + 1), np.uint8))
        writer.release()
    return tmp_path


def test_clips_of_video_files(film: Path) -> None:
    """ReadVideoToVolumeDatum: frames are numbered from 0."""
    (film / "list.txt").write_text(f"{film}/film.avi 2 4\n")
    data, label = ds.batch(
        source(film, "batch_size: 2 new_length: 3 sampling_rate: 2 new_height: 6 new_width: 8"), fixed=True
    )
    assert data.shape == (2, 3, 3, 6, 8) and label.tolist() == [4, 4]
    np.testing.assert_allclose(data[0, :, :, 0, 0], np.tile([30, 50, 70], (3, 1)), atol=3)


def test_a_video_that_is_too_short_is_replaced_in_training_alone(film: Path, caplog: pytest.LogCaptureFixture) -> None:
    (film / "list.txt").write_text(f"{film}/short.avi 1\n{film}/film.avi 2\n")
    options = "batch_size: 2 new_length: 4 use_temporal_jitter: true"
    _, label = ds.batch(source(film, options), fixed=True)
    assert label.tolist() == [2, 2] and "short.avi is too short: it has 3 frames" in caplog.text
    with pytest.raises(
        DataError, match=r'"d" \(VideoData\): .*short.avi is too short: it has 3 frames, and the clip needs 4'
    ):
        source(film, options, phase="TEST")
    (film / "list.txt").write_text(f"{film}/short.avi 1\n")
    with pytest.raises(DataError, match="no video in the list is long enough"):
        source(film, options)


FAULTS: dict[str, tuple[str, str, str, type[CaffeError], str]] = {
    "pattern": ("", 'modality: RGB name_pattern: "image.jpg"', "", LayerError, "name_pattern is .*one number such as"),
    "pattern of flow": ("", 'modality: FLOW name_pattern: "f_%04d.jpg"', "", LayerError, "a %c for x and y"),
    "no length": ("", "modality: RGB new_length: 0", "", LayerError, "new_length is 0"),
    "no rate": ("", "new_length: 2 sampling_rate: 0", "", LayerError, "sampling_rate 0"),
    "half a size": ("", "new_length: 2 new_height: 3", "", LayerError, "set both, or neither"),
    "labels": ("", "new_length: 2 use_multiple_label: true", "", LayerError, "needs num_of_labels"),
    "list": ("a 1\n", "modality: RGB", "", DataError, 'list.txt:1: "a 1" has 2 words; expected "PATH FRAMES LABEL"'),
    "number": ("a x 1\n", "new_length: 2", "", DataError, '"x" is not an integer; expected "PATH START LABEL"'),
    "empty": ("\n", "new_length: 2", "", DataError, "the file is empty. Expected a list"),
    "no frame": ("v0 3 1\n", "modality: RGB", "", MissingFileError, "frame v0/image_0001.jpg"),
    "no video": ("v0.avi 3 1\n", "new_length: 1", "", MissingFileError, "video not found: v0.avi"),
    "crop": ("", RGB, "crop_size: 13", DataError, "crop_size 13 is larger than the frames, which are 12 × 16"),
    "means": ("", f"{RGB} new_length: 2", "mean_value: [1, 2, 3, 4]", DataError, "4 mean_values for 6 channels"),
    "scales": ("", RGB, "multi_scale: true", DataError, "multi_scale needs crop_size"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_named(videos: Path, case: str) -> None:
    lines, options, transform, kind, words = FAULTS[case]
    if lines:
        (videos / "list.txt").write_text(lines)
    with pytest.raises(kind, match=words):
        source(videos, f"batch_size: 1 {options}", transform)


def test_a_seek_continues_with_the_same_clips(videos: Path) -> None:
    options, transform = f"{RGB} batch_size: 2 num_segments: 2 shuffle: true", "crop_size: 5 mirror: true"
    layer, other = source(videos, options, transform), source(videos, options, transform)
    layer()
    other.seek(layer.state())
    assert torch.equal(layer()[0], other()[0])
    layer.close()
    other.close()


@pytest.mark.parametrize("kind", ["Gather", "Scatter"])
def test_items_stay_where_they_are_in_one_process(kind: str) -> None:
    """Reshape of gather_layer.cpp and scatter_layer.cpp: tops share the memory of their bottoms."""
    layer = gl.build(f'name: "g" type: "{kind}" bottom: "a" bottom: "b" top: "c" top: "d"', (2, 3), (2,))
    xs = torch.rand(2, 3, requires_grad=True), torch.rand(2)
    tops = layer(*xs)
    assert all(torch.equal(top, x) and top.data_ptr() == x.data_ptr() for top, x in zip(tops, xs, strict=True))
    with pytest.raises(LayerError, match="has 2 bottoms and 1 tops"):
        gl.build(f'name: "g" type: "{kind}" bottom: "a" bottom: "b" top: "c"', (2, 3), (2,))


def frames(path: Path | str, options: str = "", transform: str = "") -> BatchSource:
    text = f"""name: "d" type: "VideoData" top: "data" top: "label" transform_param {{ {transform} }}
        data_param {{ batch_size: 2 }} video_data_param {{ {options or f'video_type: VIDEO video_file: "{path}"'} }}"""
    param = parse_text(text, caffe_pb2.LayerParameter)
    layer = layer_class(param)(param, [])
    assert isinstance(layer, BatchSource)
    return layer


def test_frames_of_a_video_come_in_order_until_it_ends(film: Path) -> None:
    """load_batch of SSD's video_data_layer.cpp."""
    layer = frames(film / "film.avi", transform="crop_size: 8 mean_value: 5")
    seen = []
    for _ in range(4):
        data, label = layer()
        assert data.shape == (2, 3, 8, 8) and label.tolist() == [0, 0]
        seen += data[:, 0, 0, 0].tolist()
    np.testing.assert_allclose(seen, 10 * np.arange(1, 9) - 5, atol=3)
    with pytest.raises(
        DataError, match=r'"d" \(VideoData\): video .*film.avi has ended before frame 9: it has 9 frames'
    ):
        layer()
    layer.seek({"position": 2, "seed": 0})
    np.testing.assert_allclose(layer()[0][:, 0, 0, 0], [25, 35], atol=3)
    layer.close()


def test_frames_may_be_left_out(film: Path) -> None:
    layer = frames("", f'video_type: VIDEO video_file: "{film}/film.avi" skip_frames: 2')
    np.testing.assert_allclose(layer()[0][:, 0, 0, 0], [30, 60], atol=3)
    layer.close()


def test_a_video_or_camera_that_is_not_there_is_named(film: Path) -> None:
    (film / "text.avi").write_text("text")
    with pytest.raises(MissingFileError, match=r"video not found: none.avi"):
        frames("none.avi")
    with pytest.raises(DataError, match=r"text.avi cannot be opened by OpenCV"):
        frames(film / "text.avi")
    with pytest.raises(LayerError, match="there is no video_file"):
        frames("", "video_type: VIDEO")
    with pytest.raises(DataError, match="camera 93 cannot be opened"):
        frames("", "device_id: 93")


@pytest.mark.parametrize("color", [True, False])
def test_clips_of_video_caffe_count_frames_from_1(videos: Path, film: Path, color: bool) -> None:
    """ReadVideoToCVMat of io.cpp, chuckcho/video-caffe."""
    for frame in (3, 4):
        flat = np.full((24, 32, 3), 10 * frame, np.uint8)
        assert cv2.imwrite(str(videos / "v0" / f"image_{frame:04d}.jpg"), flat)
    (videos / "list.txt").write_text("film.avi 3 1\nv0 3 2\n")
    options = f'batch_size: 2 new_length: 2 root_folder: "{videos}/" is_color: {str(color).lower()}'
    data, label = ds.batch(source(videos, options, fork="video_caffe"), fixed=True)
    assert data.shape == (2, 3 if color else 1, 2, 24, 32) and label.tolist() == [1, 2]
    np.testing.assert_allclose(data[:, 0, :, 0, 0], [[30, 40], [30, 40]], atol=3)
    for line, words in (("v0 0 1", "begins at frame 0; frames are counted from 1"), ("film.avi 9 1", "needs 10")):
        (videos / "list.txt").write_text(line)
        with pytest.raises(DataError, match=words):
            source(videos, options, fork="video_caffe")


def old(folder: Path, options: str, phase: str = "TRAIN") -> BatchSource:
    """The layer of a net in C3D 1.0's form."""
    text = f"""layers {{ name: "d" type: VIDEO_DATA top: "data" top: "label" image_data_param {{ source: "{folder}/list.txt"
        {options} }} }} layers {{ name: "c" type: CONVOLUTION3D bottom: "data" top: "c" convolution_param {{ num_output: 1
        kernel_size: 1 kernel_depth: 1 }} }}"""
    layer = Net(parse_text(text, caffe_pb2.NetParameter), phase, device="meta").layers["d"]
    assert isinstance(layer, BatchSource)
    layer.seed = 3
    return layer


def test_clips_of_the_first_c3d(videos: Path) -> None:
    """VideoDataLayerPrefetch of C3D-v1.0: its mean file has other field numbers, and no crop begins at the last place."""
    (videos / "list.txt").write_text(f"{videos}/v0 4 2\n")
    mean = np.random.default_rng(0).integers(0, 9, (3, 2, HEIGHT, WIDTH)).astype(np.float32)
    blob = classes("c3d_v10")["BlobProto"](num=1, channels=3, length=2, height=HEIGHT, width=WIDTH, data=mean.ravel())
    write_message(videos / "mean.binaryproto", blob)
    options = (
        f'use_image: true batch_size: 40 new_length: 2 crop_size: 10 mean_file: "{videos}/mean.binaryproto" scale: 2'
    )
    data, label = ds.batch(old(videos, options), fixed=True)
    assert label.shape == (40, 1, 1, 1, 1) and (label == 2).all()
    frames = np.array([4, 5])[:, None, None]
    wanted = {
        ((frames - mean[:, :, y : y + 10, x : x + 10]) * 2).astype(np.float32).tobytes(): (y, x)
        for y in range(HEIGHT - 9)
        for x in range(WIDTH - 9)
    }
    assert {wanted[clip.tobytes()] for clip in data} == set(itertools.product(range(HEIGHT - 10), range(WIDTH - 10)))
    plain, _ = ds.batch(old(videos, "use_image: true batch_size: 1 new_length: 2 mean_value: 3", "TEST"), fixed=True)
    np.testing.assert_array_equal(plain[0], np.broadcast_to(frames - 3, plain[0].shape))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("mirror: true", "image_data_param.mirror needs crop_size"),
        ("sampling_rate: -1", "sampling_rate is -1"),
        (f"crop_size: {HEIGHT}", "crop_size 12 is not smaller than the frames, which are 12 × 16"),
    ],
)
def test_faults_of_the_first_c3d_are_named(videos: Path, options: str, words: str) -> None:
    (videos / "list.txt").write_text(f"{videos}/v0 4 2\n")
    with pytest.raises((LayerError, DataError), match=words):
        old(videos, f"use_image: true batch_size: 1 new_length: 2 {options}")
