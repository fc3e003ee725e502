"""The packaged descriptor: compiled from caffe.proto, in a pool of its own."""

from pathlib import Path

import pytest
import warm_start
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

import pycaffe_compat.proto
from pycaffe_compat.proto import caffe_pb2
from pycaffe_compat.proto.schema import bvlc, known_forks

FOLDER = Path(pycaffe_compat.proto.__file__).parent


def test_descriptor_is_caffe_proto_compiled(tmp_path):
    out = tmp_path / "caffe.binpb"
    # To rebuild the packaged file, run this with --descriptor_set_out=pycaffe_compat/proto/caffe_descriptor.binpb.
    code = protoc.main(["protoc", f"-I{FOLDER}", f"--descriptor_set_out={out}", str(FOLDER / "caffe.proto")])
    assert code == 0
    built = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    packaged = descriptor_pb2.FileDescriptorSet.FromString((FOLDER / "caffe_descriptor.binpb").read_bytes())
    assert built == packaged


@pytest.mark.parametrize("name", [name for name, _ in known_forks()])
def test_a_forks_descriptor_is_its_proto_compiled(name, tmp_path):
    out, folder = tmp_path / "fork.binpb", FOLDER.parent / "forks"
    # To rebuild it: --descriptor_set_out=pycaffe_compat/forks/NAME/fork.binpb
    code = protoc.main(["protoc", f"-I{folder}", f"-I{FOLDER}", f"--descriptor_set_out={out}", f"{name}/fork.proto"])
    assert code == 0
    assert out.read_bytes() == (folder / name / "fork.binpb").read_bytes()


def test_every_message_and_enum_is_an_attribute():
    for name in caffe_pb2.DESCRIPTOR.message_types_by_name:
        assert getattr(caffe_pb2, name)().DESCRIPTOR.full_name == f"caffe.{name}"
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST) == (0, 1)
    assert caffe_pb2.Phase.Name(1) == "TEST"


def test_forks_leave_bvlcs_fields_as_they_are():
    for message in bvlc().message_type:
        merged = getattr(caffe_pb2, message.name).DESCRIPTOR
        for field in message.field:
            assert merged.fields_by_name[field.name].number == field.number
        own = {field.name for field in message.field}
        assert all(field.number >= 1 << 28 for field in merged.fields if field.name not in own), message.name


def test_two_forks_options_of_one_name_are_one_message():
    names = set(caffe_pb2.BNParameter.DESCRIPTOR.fields_by_name)
    assert {"scale_filler", "bn_mode", "slope_filler", "frozen", "var_eps"} <= names  # SegNet, PSPNet, CTPN
    assert caffe_pb2.AnnotatedDatum.DESCRIPTOR.fields_by_name["annotation_group"].number == 3  # as LMDBs of SSD have it
    assert caffe_pb2.PriorBoxParameter.CORNER == 1
    assert caffe_pb2.ADDITIONS.fields["BNParameter", "bn_mode"][:3] == ("segnet", "enet", "deconvnet")


COEXIST = """
import importlib
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from pycaffe_compat.proto import caffe_pb2

# Another module's caffe.proto in the default pool: the same file, package and message names, other fields.
file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
other = file.message_type.add(name="NetParameter")
other.field.add(name="elsewhere", number=1, type=5, label=1)
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
theirs = message_factory.GetMessages([file])["caffe.NetParameter"]
for module in (caffe_pb2, importlib.reload(caffe_pb2)):  # before theirs, and after
    assert theirs(elsewhere=3).SerializeToString() == b"\\x08\\x03"
    assert module.NetParameter(name="x").SerializeToString() == b"\\x0a\\x01x"
"""


def test_coexists_with_another_caffe_pb2_in_the_default_pool():
    done = warm_start.run("-c", COEXIST)
    assert done.returncode == 0, done.stderr
