"""Programs from files that want to run code."""

import io
import os
import pickle
import re
import zipfile

import pytest
import torch
from torch import nn

from pycaffe_compat.errors import CaffeError
from pycaffe_compat.export import program_to_caffe


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def pickled() -> bytes:
    file = io.BytesIO()
    torch.save(((Evil(),), {}), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("member", "content", "said"),
    [
        ("data/sample_inputs/model.pt", pickled(), "what is pickled in it could run any code"),
        ("data/constants/opaque_obj_0", pickle.dumps(Evil()), "opaque_obj_0 in it could run any code"),
        (
            "models/model.json",
            b"__import__('os').mkdir('evil')",
            r"the length __import__.* in it could run any code",
        ),
        ("data/aotinductor/model/a.so", b"", "a.so in it could run any code"),
    ],
)
def test_a_program_runs_no_code_of_its_file(member, content, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batch = {"input": {0: torch.export.Dim("n")}}
    torch.export.save(torch.export.export(nn.ReLU(), (torch.rand(2, 3),), dynamic_shapes=batch), "good.pt2")
    with zipfile.ZipFile("good.pt2") as good, zipfile.ZipFile("bad.pt2", "w") as bad:
        members = {name: good.read(name) for name in good.namelist()}
        if member.endswith(".json"):
            content, number = re.subn(rb"Symbol\('\w+'[^)]*\)", content, members[f"good/{member}"])
            assert number
        for name, data in {**members, f"good/{member}": content}.items():
            bad.writestr(name, data)
    assert len(program_to_caffe("good.pt2", "net.prototxt", "net.caffemodel").net.layer) == 2
    with pytest.raises(CaffeError, match=f"bad.pt2: .*{said}"):
        program_to_caffe("bad.pt2", "net.prototxt", "net.caffemodel")
    assert not os.path.exists("evil")
