import logging
import shutil

import cv2
import numpy as np
import pytest
from samples import GOLDENS

from pycaffe_compat.commands import create_annoset, get_image_size
from pycaffe_compat.data.annoset import AnnosetOptions, convert_annoset, write_image_sizes
from pycaffe_compat.data.database import Database
from pycaffe_compat.data.datum import datum_to_array, parse_datum
from pycaffe_compat.data.imageset import ConvertOptions, convert_imageset
from pycaffe_compat.errors import DataError, MissingFileError
from pycaffe_compat.forks.ssd.label_map import read_name_sizes
from pycaffe_compat.proto import caffe_pb2

PICTURES = ["im00.jpg", "im04.png", "im01.jpg"]


@pytest.fixture
def pictures(tmp_path):
    """A folder of real pictures, an annotation for each, a list, and a label map."""
    (tmp_path / "root").mkdir()
    for number, name in enumerate(PICTURES):
        shutil.copy(GOLDENS / "images" / name, tmp_path / "root" / name)
        (tmp_path / "root" / f"{number}.xml").write_text(
            f"<annotation><size><width>{96 if number == 1 else 32}</width><height>{80 if number == 1 else 32}</height></size>"
            + "<object><name>dog</name><bndbox><xmin>4</xmin><ymin>8</ymin><xmax>16</xmax><ymax>24</ymax></bndbox></object>"
            * number
            + "</annotation>"
        )
    (tmp_path / "list.txt").write_text("".join(f"{name} {number}.xml\n" for number, name in enumerate(PICTURES)))
    (tmp_path / "map.prototxt").write_text('item { name: "dog" label: 4 }')
    return tmp_path


def make(folder, **options) -> dict:
    options = {"anno_type": "detection", "label_map_file": str(folder / "map.prototxt"), **options}
    convert_annoset(str(folder / "root"), str(folder / "list.txt"), str(folder / "db"), AnnosetOptions(**options))
    return records(folder / "db")


def records(path) -> dict:
    return {key.decode(): caffe_pb2.AnnotatedDatum.FromString(value) for key, value in Database(path)}


def test_records_hold_pictures_and_boxes(pictures) -> None:
    made = make(pictures)
    assert list(made) == [f"{number:08d}_{name}" for number, name in enumerate(PICTURES)]
    for number, record in enumerate(made.values()):
        datum = record.datum
        assert record.HasField("type") and datum.label == -1 and not datum.encoded
        picture = cv2.imread(str(GOLDENS / "images" / PICTURES[number]))
        assert (datum.height, datum.width, datum.channels) == picture.shape
        np.testing.assert_array_equal(
            datum_to_array(parse_datum(datum.SerializeToString())), picture.transpose(2, 0, 1)
        )
        assert [len(group.annotation) for group in record.annotation_group] == [number] * (number > 0)
    [group] = made["00000002_im01.jpg"].annotation_group
    assert group.group_label == 4 and [each.instance_id for each in group.annotation] == [0, 1]
    box = group.annotation[1].bbox
    assert (box.xmin, box.ymin, box.xmax, box.ymax) == (0.125, 0.25, 0.5, 0.75)


def test_encoded_pictures_are_stored_as_they_are_with_their_sizes(pictures) -> None:
    made = make(pictures, encoded=True, encode_type="jpg")
    for name, record in zip(PICTURES, made.values(), strict=True):
        same = record.datum.data == (GOLDENS / "images" / name).read_bytes()
        assert record.datum.encoded and same == name.endswith("jpg")
    assert [(record.datum.height, record.datum.width) for record in made.values()] == [(32, 32), (80, 96), (32, 32)]


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"min_dim": 40}, [(40, 40), (80, 96), (40, 40)]),
        ({"max_dim": 48}, [(32, 32), (40, 48), (32, 32)]),
        ({"min_dim": 90, "max_dim": 100}, [(90, 90), (83, 100), (90, 90)]),
        ({"resize_height": 20, "resize_width": 30}, [(20, 30)] * 3),
    ],
)
def test_pictures_are_resized_and_boxes_stay(pictures, options, sizes) -> None:
    made = make(pictures, gray=True, **options).values()
    assert [(record.datum.height, record.datum.width) for record in made] == sizes
    assert {record.datum.channels for record in made} == {1}
    assert [*made][1].annotation_group[0].annotation[0].bbox.xmax == np.float32(16 / 96)


def test_classification_has_labels(pictures) -> None:
    (pictures / "list.txt").write_text("im00.jpg 7\nim04.png -2\n")
    made = make(pictures, anno_type="classification", label_map_file="")
    assert [record.datum.label for record in made.values()] == [7, -2]
    assert not any(record.HasField("type") for record in made.values())
    convert_imageset(str(pictures / "root"), str(pictures / "list.txt"), str(pictures / "plain"), ConvertOptions())
    for (key, value), (name, record) in zip(Database(pictures / "plain"), made.items(), strict=True):
        assert key.decode() == name and value == record.datum.SerializeToString()


def test_pictures_without_annotation_have_no_boxes_and_the_log_says_so(pictures, caplog) -> None:
    (pictures / "root" / "1.xml").unlink()
    with caplog.at_level(logging.WARNING):
        made = make(pictures)
    assert not made["00000001_im04.png"].annotation_group and made["00000001_im04.png"].HasField("type")
    assert "1 of the 3 annotations of" in caplog.text and "1.xml; their images have no boxes" in caplog.text


@pytest.mark.parametrize(
    ("break_it", "options", "error", "message"),
    [
        (lambda at: (at / "root" / "im04.png").unlink(), {}, MissingFileError, "1 of the 3 images of .*im04.png"),
        (
            lambda at: [path.unlink() for path in (at / "root").glob("*.xml")],
            {},
            MissingFileError,
            "3 of the 3 annotations of .*is the root folder right",
        ),
        (lambda at: (at / "root" / "2.xml").write_text("<annotation>"), {}, DataError, r"2\.xml is not XML"),
        (
            lambda at: (at / "list.txt").write_text("im00.jpg\n"),
            {},
            DataError,
            r'list\.txt:1: .* expected "IMAGE ANNOTATION"',
        ),
        (lambda at: (at / "map.prototxt").unlink(), {}, MissingFileError, "label map not found"),
        (lambda at: None, {"label_map_file": ""}, DataError, "label_map_file is not given"),
        (lambda at: None, {"label_type": "yaml"}, DataError, "expected xml, json, txt"),
        (lambda at: None, {"anno_type": "boxes"}, DataError, "expected classification or detection"),
        (lambda at: None, {"backend": "leveldb"}, DataError, "LevelDB is not supported"),
        (lambda at: None, {"check_size": True}, DataError, r"has size \(3, 80, 96\)"),
        (lambda at: None, {"min_dim": 3, "resize_width": 3, "resize_height": 3}, DataError, "not both"),
    ],
)
def test_what_cannot_be_made_is_one_error(pictures, break_it, options, error, message) -> None:
    break_it(pictures)
    with pytest.raises(error, match=message):
        make(pictures, **options)
    assert not (pictures / "db").exists()


def test_the_sizes_of_pictures(pictures) -> None:
    out = pictures / "sizes.txt"
    root, list_file = str(pictures / "root"), str(pictures / "list.txt")
    assert write_image_sizes(root, list_file, str(out)) == 3
    assert out.read_text() == "im00 32 32\nim04 80 96\nim01 32 32\n"
    assert read_name_sizes(out) == [("im00", 32, 32), ("im04", 80, 96), ("im01", 32, 32)]
    (pictures / "ids").write_text("im00 5\nim04 6\nim01 7\n")
    write_image_sizes(root, list_file, str(out), str(pictures / "ids"))
    assert out.read_text() == "5 32 32\n6 80 96\n7 32 32\n"
    (pictures / "ids").write_text("im00 5\n")
    with pytest.raises(DataError, match='has no "im04"'):
        write_image_sizes(root, list_file, str(out), str(pictures / "ids"))


def test_the_commands_take_the_arguments_of_ssds_scripts(pictures, monkeypatch, capsys) -> None:
    monkeypatch.chdir(pictures)
    flags = ["--anno-type=detection", "--label-type=xml", "--label-map-file=map.prototxt", "--min-dim=0", "--max-dim=0"]
    flags += ["--resize-width=0", "--resize-height=0", "--check-label", "--encode-type=jpg", "--encoded"]
    arguments = [*flags, "root", "list.txt", "deep/down/db", "links/here"]
    assert create_annoset.main(arguments) == 0
    assert len(records("links/here/db")) == 3
    assert create_annoset.main(arguments) == 1 and "exists already" in capsys.readouterr().err
    (pictures / "list.txt").write_text("im00.jpg 0.xml\n")
    assert create_annoset.main(["--redo", *arguments]) == 0
    assert len(records("links/here/db")) == 1 and [path.name for path in (pictures / "deep/down").iterdir()] == ["db"]
    assert create_annoset.main(["--redo", *flags, "root", "list.txt", "root"]) == 1
    assert "root is not an LMDB, so it is not replaced" in capsys.readouterr().err and (pictures / "root").is_dir()
    other = ["--anno_type=detection", "--label_map_file=map.prototxt", "--shuffle=false", "root/", "list.txt", "db2"]
    assert create_annoset.main(other) == 0 and len(records("db2")) == 1
    assert get_image_size.main(["root", "list.txt", "sizes"]) == 0
    assert (pictures / "sizes").read_text() == "im00 32 32\n"
