"""Make a golden: run one small net with any `import caffe` and write what it computes.

usage: python make_golden.py NET.prototxt OUT.npz [--caffe MODULE] [--phase TEST] [--seed N]
                             [--input BLOB=SPEC ...] [--param LAYER/I=SPEC ...] [--top-diff BLOB=SPEC ...]
                             [--no-diff A,B] [--blobs A,B] [--forward-only] [--source TEXT]
       python make_golden.py --like GOLDEN.npz OUT.npz [--caffe MODULE]

A SPEC says what an array is filled with:
    normal:MEAN,STD      the default, with 0,1 (parameters 0,0.5)
    uniform:LOW,HIGH
    integers:LOW,HIGH    whole numbers from LOW to HIGH - 1: labels, indices
    constant:VALUE
    FILE.npy             an array of the right shape

examples:
    python make_golden.py conv.prototxt conv_k5.npz
    python make_golden.py loss.prototxt softmax_loss.npz --input label=integers:0,5 --no-diff label
    python make_golden.py accuracy.prototxt accuracy.npz --phase TEST --forward-only --input label=integers:0,5

The net has Input layers and a few layers after them. Its parameters are drawn here, not by its fillers, so that the golden
does not depend on a random number generator of Caffe. --like takes net, phase, inputs, parameters and gradients from a
golden and computes the rest again: with the Caffe that made it the numbers are the same.

The layout of the file is in README.md, beside this script. It keeps to syntax that Python 2.7 has, for old builds of
pycaffe.
"""
from __future__ import print_function

import argparse
import importlib
import json
import os
import re
import tempfile
import zlib
from collections import OrderedDict

import numpy as np

GIVEN = ("in", "param", "top_diff")  # what a golden's computation starts from; the rest is its result
DEFAULT, PARAM_DEFAULT = "normal:0,1", "normal:0,0.5"
BATCH_NORM = ("normal:0,0.5", "uniform:0.5,1.5", "constant:2")  # mean, variance, the number both are divided by


def fill(spec, shape, seed, key):
    """Return a float32 array of `shape`; each `key` draws from a generator of its own, so that none depends on another."""
    if spec.endswith(".npy"):
        array = np.load(spec)
        if array.shape != tuple(shape):
            raise SystemExit("%s: %s has shape %s, but %s is needed" % (key, spec, array.shape, tuple(shape)))
        return array.astype("f4")
    kind, _, numbers = spec.partition(":")
    try:
        values = [float(each) for each in numbers.split(",")]
        if len(values) != {"normal": 2, "uniform": 2, "integers": 2, "constant": 1}[kind]:
            raise ValueError
    except (KeyError, ValueError):
        raise SystemExit("%s=%s: a SPEC is normal:MEAN,STD, uniform:LOW,HIGH, integers:LOW,HIGH, constant:VALUE or FILE.npy"
                         % (key, spec))
    rng = np.random.RandomState(zlib.crc32(("%d/%s" % (seed, key)).encode()) & 0x7FFFFFFF)
    if kind == "normal":
        return (values[0] + values[1] * rng.standard_normal(shape)).astype("f4")
    if kind == "uniform":
        return rng.uniform(values[0], values[1], shape).astype("f4")
    if kind == "integers":
        return rng.randint(int(values[0]), int(values[1]), shape).astype("f4")
    return np.full(shape, values[0], "f4")


def make(caffe, prototxt, phase="TRAIN", forward_only=False, no_diff=(), blobs=None, seed=0, specs=None, given=None,
         source=""):
    """Run the net in `prototxt` (text) with the module `caffe`; return the golden, a dict of key -> array, and its meta.

    specs: key ("in/BLOB", "param/LAYER/I", "top_diff/BLOB") -> SPEC, for arrays that are drawn.
    given: key -> array, for arrays that are not drawn.
    """
    specs, given = dict(specs or {}), dict(given or {})
    if not forward_only and not re.search(r"\bforce_backward\b", prototxt):
        prototxt = "force_backward: true\n" + prototxt
    if hasattr(caffe, "set_random_seed"):
        caffe.set_random_seed(seed)
    handle, path = tempfile.mkstemp(".prototxt")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(prototxt)
        net = caffe.Net(path, getattr(caffe, phase))
    finally:
        os.remove(path)
    golden = OrderedDict()

    def value(key, shape, default):
        golden[key] = given[key] if key in given else fill(specs.pop(key, default), shape, seed, key)
        return golden[key]

    for name in net.inputs:
        net.blobs[name].data[...] = value("in/" + name, net.blobs[name].data.shape, DEFAULT)
    types = {name: layer.type for name, layer in zip(net._layer_names, net.layers)}
    for name, params in net.params.items():
        defaults = BATCH_NORM if types[name] == "BatchNorm" else [PARAM_DEFAULT] * len(params)
        for i, param in enumerate(params):
            param.data[...] = value("param/%s/%d" % (name, i), param.data.shape, defaults[i])
            param.diff[...] = 0
    net.forward()

    tops = [name for name in net.blobs if name not in net.inputs and "_split_" not in name]
    unknown = set(blobs or ()) - set(tops)
    if unknown:
        raise SystemExit("--blobs: the net makes no %s; it makes %s" % (", ".join(sorted(unknown)), ", ".join(tops)))
    for name in tops:
        if blobs is None or name in blobs:
            golden["out/" + name] = np.array(net.blobs[name].data, "f4")
    for name, params in net.params.items():
        if types[name] == "BatchNorm":  # forward changes its statistics
            for i, param in enumerate(params):
                golden["state/%s/%d" % (name, i)] = np.array(param.data, "f4")
    if not forward_only:
        losses = dict(getattr(net, "blob_loss_weights", {}))
        for name in net.outputs:
            if not losses.get(name) and name not in no_diff and (not given or "top_diff/" + name in given):
                net.blobs[name].diff[...] = value("top_diff/" + name, net.blobs[name].data.shape, DEFAULT)
        net.backward()
        if re.search(r"\bforce_backward\s*:\s*true\b", prototxt):
            for name in net.inputs:
                if name not in no_diff:
                    golden["in_diff/" + name] = np.array(net.blobs[name].diff, "f4")
        for name, params in net.params.items():
            for i, param in enumerate(params):
                golden["param_diff/%s/%d" % (name, i)] = np.array(param.diff, "f4")
    if specs:
        raise SystemExit("the net has no %s; it has %s" % (", ".join(sorted(specs)), ", ".join(
            key for key in golden if key.split("/")[0] in GIVEN)))
    meta = {"prototxt": prototxt, "phase": phase, "forward_only": forward_only, "no_diff": list(no_diff),
            "source": source or "%s %s" % (caffe.__name__, getattr(caffe, "__version__", ""))}
    return golden, meta


def like(caffe, path, source=""):
    """Compute the golden at `path` again; return it and its meta as `make` does."""
    with np.load(path) as file:
        given = {key: file[key] for key in file.files if key.split("/")[0] in GIVEN}
        meta = json.loads(str(file["meta"]))
    return make(caffe, meta["prototxt"], meta["phase"], meta["forward_only"], meta["no_diff"], given=given, source=source)


def write(path, golden, meta):
    """Write a golden as `.npz`."""
    np.savez_compressed(path, meta=json.dumps(meta), **golden)


def _specs(parser, args):
    specs = {}
    for folder, pairs in (("in", args.input), ("param", args.param), ("top_diff", args.top_diff)):
        for pair in pairs:
            name, equals, spec = pair.partition("=")
            if not equals:
                parser.error("%s is not NAME=SPEC" % pair)
            specs["%s/%s" % (folder, name)] = spec
    return specs


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", nargs="?", help="the net's prototxt, with Input layers")
    parser.add_argument("out", help="the .npz file to write")
    parser.add_argument("--like", metavar="GOLDEN.npz", help="compute this golden again instead of a NET")
    parser.add_argument("--caffe", default="caffe", metavar="MODULE", help="the module to import (default: caffe)")
    parser.add_argument("--phase", default="TRAIN", choices=["TRAIN", "TEST"], help="default: TRAIN")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all arrays that are drawn (default: 0)")
    parser.add_argument("--input", action="append", default=[], metavar="BLOB=SPEC", help="fill an input")
    parser.add_argument("--param", action="append", default=[], metavar="LAYER/I=SPEC", help="fill blob I of a layer")
    parser.add_argument("--top-diff", action="append", default=[], metavar="BLOB=SPEC", help="fill an output's gradient")
    parser.add_argument("--no-diff", default="", metavar="A,B", help="inputs and outputs that have no gradient")
    parser.add_argument("--blobs", default="", metavar="A,B", help="the tops to write (default: all)")
    parser.add_argument("--forward-only", action="store_true", help="run no backward pass")
    parser.add_argument("--source", default="", help="the Caffe that computes (default: the module and its version)")
    args = parser.parse_args(argv)
    if bool(args.net) == bool(args.like):
        parser.error("give a NET or --like GOLDEN.npz")
    os.environ.setdefault("GLOG_minloglevel", "2")
    caffe = importlib.import_module(args.caffe)
    if args.like:
        golden, meta = like(caffe, args.like, args.source)
    else:
        def names(text):
            return [name for name in text.split(",") if name]

        with open(args.net) as file:
            text = file.read()
        golden, meta = make(caffe, text, args.phase, args.forward_only, names(args.no_diff), names(args.blobs) or None,
                            args.seed, _specs(parser, args), source=args.source)
    write(args.out, golden, meta)
    print("%s: %s" % (args.out, ", ".join(golden)))


if __name__ == "__main__":
    main()
