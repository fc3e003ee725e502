"""Processes forked from one that has run a net."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import warm_start

SCRIPT = """
import multiprocessing

import caffe
import numpy as np
import torch

NET = '''
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 64 dim: 64 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
'''

def run(net):
    net.blobs["data"].data[...] = 1
    made = net.forward()["pool"].copy()
    return float(np.abs(made).sum()), float(np.abs(net.backward(pool=made)["data"]).sum())

def child(queue, net):
    queue.put((run(net), torch.get_num_threads()))

torch.set_num_threads(2)
with open("net.prototxt", "w") as file:
    file.write(NET)
net = caffe.Net("net.prototxt", caffe.TRAIN)
before = run(net)
context = multiprocessing.get_context("fork")
queue = context.Queue()
context.Process(target=child, args=(queue, net), daemon=True).start()
after, threads = queue.get(timeout=100)
assert np.allclose(before, after, rtol=1e-5), (before, after)
print(threads, torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_of_a_process_that_has_run_a_net_runs_it_too(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = warm_start.run("-m", "pycaffe_compat", "script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "2"]
