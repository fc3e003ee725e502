# ruff: noqa: B018, B905, C408, NPY002  (written the way such scripts are)
"""What Caffe's own Python tests ask of ``import caffe``, as unittest cases. Run by tests/pycaffe/test_scripts.py."""

import importlib
import operator
import os
import tempfile
import unittest
from collections import OrderedDict

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2

SMALL = """
name: "small" force_backward: true
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { num: 5 channels: 2 height: 3 width: 4 num: 5 channels: 1 height: 1 width: 1
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { decay_mult: 1 } param { decay_mult: 0 }
  convolution_param { num_output: 6 kernel_size: 2 pad: 3
    weight_filler { type: "gaussian" std: 1 } bias_filler { type: "constant" value: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "score"
  inner_product_param { num_output: 7 weight_filler { type: "gaussian" std: 2.5 } bias_filler { type: "constant" value: -3 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""


class InAFolder(unittest.TestCase):
    """Each test in an empty folder of its own."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder.name)

    def write(self, text, name="net.prototxt"):
        with open(name, "w") as file:
            file.write(text)
        return name

    def net(self, text=SMALL, phase=caffe.TRAIN, **options):
        return caffe.Net(self.write(text), phase, **options)


class NetTest(InAFolder):
    def setUp(self):
        super().setUp()
        self.small = self.net()
        self.small.blobs["label"].data[...] = np.random.randint(7, size=self.small.blobs["label"].data.shape)

    def test_blobs_and_parameters_outlive_the_net(self):
        blobs = [*self.small.blobs.values(), *(b for bs in self.small.params.values() for b in bs)]
        del self.small
        self.assertTrue(np.isfinite(sum(b.data.sum() + b.diff.sum() for b in blobs)))

    def test_names_types_and_indices(self):
        net = self.small
        self.assertEqual(list(net._layer_names), ["data", "conv", "ip", "loss"])
        self.assertEqual(list(net.layer_dict), list(net._layer_names))
        self.assertEqual([layer.type for layer in net.layers], [net.layer_dict[n].type for n in net._layer_names])
        self.assertEqual((net.inputs, net.outputs), ([], ["loss"]))
        tops = [("data", ["data", "label"]), ("conv", ["conv"]), ("ip", ["score"]), ("loss", ["loss"])]
        self.assertEqual(net.top_names, OrderedDict(tops))
        self.assertEqual(net.bottom_names["loss"], ["score", "label"])
        self.assertEqual([net._blob_names[i] for i in net._bottom_ids(3)], ["score", "label"])
        self.assertEqual([net._blob_names[i] for i in net._top_ids(0)], ["data", "label"])
        self.assertEqual([net._blob_names[i] for i in net._outputs], ["loss"])
        self.assertEqual((list(net._inputs), len(net._blobs)), ([], 5))
        self.assertEqual(net.blob_loss_weights["loss"], 1)
        self.assertEqual(net.name, "small")

    def test_a_range_of_layers_works_on_what_is_in_the_blobs_even_before_any_forward_pass(self):
        conv, score = self.small.blobs["conv"], self.small.blobs["score"]
        weight, bias = (blob.data for blob in self.small.params["ip"])
        conv.data[:] = values = np.random.uniform(size=conv.data.shape).astype("f4")
        made = self.small.forward(start="ip", end="ip")
        self.assertEqual(list(made), ["score"])
        np.testing.assert_allclose(score.data, values.reshape(5, -1) @ weight.T + bias, rtol=1e-4, atol=1e-4)
        fresh = self.net()
        fresh.blobs["score"].diff[:] = above = np.random.uniform(size=score.data.shape).astype("f4")
        made = fresh.backward(start="ip", end="ip")
        want = (above @ fresh.params["ip"][0].data).reshape(conv.data.shape)
        np.testing.assert_allclose(made["conv"], want, rtol=1e-4, atol=1e-4)
        self.assertIsInstance(fresh._forward(0, 3), float)
        fresh._backward(3, 0)

    def test_parameter_diffs_are_cleared_in_place(self):
        self.small.forward()
        self.small.backward()
        diff = self.small.params["conv"][0].diff
        self.assertGreater(np.abs(diff).max(), 0)
        self.small.clear_param_diffs()
        self.assertFalse(diff.any())

    def test_weights_are_the_same_after_saving_in_each_form_and_every_constructor(self):
        for name, save in (("weights", self.small.save), ("weights_h5", self.small.save_hdf5)):
            save(name)
            others = [
                caffe.Net("net.prototxt", name, caffe.TRAIN),
                caffe.Net("net.prototxt", caffe.TRAIN, weights=name),
                caffe.Net("net.prototxt", caffe.TRAIN, 0, [], name),
                caffe.Net(network_file="net.prototxt", phase=caffe.TEST, level=0, stages=None, weights=name),
            ]
            others.append(caffe.Net("net.prototxt", caffe.TRAIN))
            (others[-1].load_hdf5 if save == self.small.save_hdf5 else others[-1].copy_from)(name)
            for other in others:
                for layer, blobs in self.small.params.items():
                    for mine, theirs in zip(blobs, other.params[layer]):
                        np.testing.assert_array_equal(mine.data, theirs.data)
        self.small.backward(start="loss")
        self.small.save("diffs", True)
        read = caffe_pb2.NetParameter()
        with open("diffs", "rb") as file:
            read.ParseFromString(file.read())
        conv = next(layer for layer in read.layer if layer.name == "conv")
        np.testing.assert_array_equal(conv.blobs[1].diff, self.small.params["conv"][1].diff)

    def test_levels_and_stages_choose_layers(self):
        def layer(name, rule):
            return f'layer {{ name: "{name}" type: "ReLU" bottom: "data" top: "{name}" {rule} }}'

        text = (
            'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 } } }'
            + layer("always", "")
            + layer("level0", "include { min_level: 0 max_level: 0 }")
            + layer("level1", "include { min_level: 1 max_level: 1 }")
            + layer("from0", "include { min_level: 0 }")
            + layer("A", 'include { stage: "A" }')
            + layer("notA", 'include { not_stage: "A" }')
            + layer("train", "include { phase: TRAIN }")
            + layer("AandB", 'include { stage: "A" stage: "B" phase: TEST }')
        )
        for options, want in (
            ({}, "always level0 from0 notA"),
            ({"level": 1}, "always level1 from0 notA"),
            ({"stages": ["A"]}, "always level0 from0 A"),
            ({"stages": ["B", "A"], "level": 1}, "always level1 from0 A AandB"),
            ({"phase": caffe.TRAIN}, "always level0 from0 notA train"),
        ):
            net = self.net(text, **{"phase": caffe.TEST, **options})
            self.assertEqual(list(net.blobs)[1:], want.split())

    def test_inputs_batches_and_callbacks(self):
        net = self.net(
            'input: "x" input_shape { dim: 2 dim: 3 } layer { name: "y" type: "Power" bottom: "x" top: "y" }'
        )
        rows = np.arange(15, dtype="f4").reshape(5, 3)
        np.testing.assert_array_equal(net.forward_all(x=rows)["y"], rows)
        outs, diffs = net.forward_backward_all(blobs=["x"], diffs=["y"], x=rows, y=rows)
        np.testing.assert_array_equal(outs["x"], rows)
        np.testing.assert_array_equal(diffs["y"], rows)
        seen = []
        for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
            getattr(net, name)(lambda layer, name=name: seen.append((name, layer)))
        net.forward()
        net.backward()
        self.assertEqual(
            seen[:2] + seen[-2:],
            [
                (n, i)
                for n, i in (("before_forward", 0), ("after_forward", 0), ("before_backward", 0), ("after_backward", 0))
            ],
        )

    def test_arrays_for_memory_data(self):
        net = self.net(
            'layer { name: "m" type: "MemoryData" top: "x" top: "y" '
            "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }"
        )
        images = np.arange(12, dtype="f4").reshape(4, 1, 1, 3)
        net.set_input_arrays(images, np.arange(4, dtype="f4"))
        for first in (0, 2, 0):
            net.forward()
            np.testing.assert_array_equal(net.blobs["x"].data, images[first : first + 2])
            np.testing.assert_array_equal(net.blobs["y"].data.ravel(), [first, first + 1])

    def test_a_reshaped_input_reshapes_all(self):
        net = self.net(
            'input: "x" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5'
            ' layer { name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param { kernel_size: 2 stride: 2 } }'
        )
        blob = net.blobs["x"]
        self.assertEqual((blob.num, blob.channels, blob.height, blob.width, blob.count), (2, 3, 4, 5, 120))
        blob.reshape(1, 3, 8, 8)
        net.reshape()
        self.assertEqual(list(net.blobs["p"].shape), [1, 3, 4, 4])


class SolverTest(InAFolder):
    def setUp(self):
        super().setUp()
        self.write(SMALL)
        self.write(
            'net: "net.prototxt" test_iter: 3 test_interval: 10 base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005 '
            'lr_policy: "inv" gamma: 0.0001 power: 0.75 display: 10 max_iter: 20 snapshot_after_train: false '
            'snapshot_prefix: "model"',
            "solver.prototxt",
        )
        self.solver = caffe.get_solver("solver.prototxt")

    def test_solving_goes_to_max_iter(self):
        self.assertIsInstance(self.solver, caffe.SGDSolver)
        self.assertEqual((self.solver.iter, self.solver.param.max_iter, self.solver.param.display), (0, 20, 10))
        starts, ready = [], []
        self.solver.add_callback(lambda: starts.append(self.solver.iter), lambda: ready.append(self.solver.iter))
        self.solver.step(2)
        self.assertEqual((starts, ready, self.solver.iter), ([0, 1], [0, 1], 2))
        self.solver.solve()
        self.assertEqual(self.solver.iter, 20)
        self.assertLess(self.solver.lr, 0.01)

    def test_the_update_is_the_diff_at_the_learning_rate(self):
        weight = self.solver.net.layers[1].blobs[0]
        held = weight.data[...]
        held[...] = 0
        weight.diff[...] = 1
        self.solver.apply_update()
        np.testing.assert_allclose(held, -0.01, atol=1e-7)

    def test_nets_outlive_the_solver(self):
        nets = [self.solver.net, *self.solver.test_nets]
        del self.solver
        self.assertEqual(len(nets), 2)
        for net in nets:
            net.forward()
            self.assertTrue(all(np.isfinite(b.data.sum() + b.diff.sum()) for b in net.blobs.values()))

    def test_snapshots_are_restored(self):
        self.solver.step(3)
        self.solver.snapshot()
        self.assertTrue(os.path.isfile("model_iter_3.caffemodel"))
        again = caffe.SGDSolver("solver.prototxt")
        again.restore("model_iter_3.solverstate")
        self.assertEqual(again.iter, 3)
        for layer, blobs in self.solver.net.params.items():
            np.testing.assert_array_equal(blobs[0].data, again.net.params[layer][0].data)
        tested = caffe.Net("net.prototxt", caffe.TEST)
        again.share_weights(tested)
        again.net.params["ip"][0].data[...] = 4
        self.assertEqual(tested.params["ip"][0].data.min(), 4)

    def test_every_rule_trains(self):
        for cls in (
            caffe.NesterovSolver,
            caffe.AdaGradSolver,
            caffe.RMSPropSolver,
            caffe.AdaDeltaSolver,
            caffe.AdamSolver,
        ):
            with open("solver.prototxt") as file:
                text = file.read().replace(
                    "momentum: 0.9", "" if cls in (caffe.AdaGradSolver, caffe.RMSPropSolver) else "momentum: 0.9"
                )
            solver = cls(self.write(text, "other.prototxt"))
            before = solver.net.params["ip"][0].data.copy()
            solver.step(1)
            self.assertTrue((solver.net.params["ip"][0].data != before).any())

    def test_one_process_is_a_group_of_its_own(self):
        self.assertEqual((caffe.solver_count(), caffe.solver_rank()), (1, 0))
        self.assertTrue(caffe.has_nccl())
        uid = caffe.NCCL.new_uid()
        self.assertIsInstance(uid, bytes)
        nccl = caffe.NCCL(self.solver, uid)
        nccl.bcast()
        self.solver.add_callback(nccl)
        self.solver.net.after_backward(nccl)
        total = caffe.Timer()
        self.solver.add_callback(total.start, total.stop)
        self.solver.step(1)
        self.assertGreater(total.ms, 0)


class Tenfold(caffe.Layer):
    def setup(self, bottom, top):
        self.seen = 0

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        self.seen += 1
        top[0].data[...] = 10 * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 10 * top[0].diff

    def forget(self, to):
        self.seen = to


class Failing(caffe.Layer):
    def setup(self, bottom, top):
        raise RuntimeError


class Counting(caffe.Layer):
    """A parameter whose gradient is 1."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 0

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        pass

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] = 1


class PhaseOf(caffe.Layer):
    def setup(self, bottom, top):
        self.options = eval(self.param_str) if self.param_str else {}

    def reshape(self, bottom, top):
        top[0].reshape()

    def forward(self, bottom, top):
        top[0].data[()] = self.phase + self.options.get("more", 0)


class PythonLayerTest(InAFolder):
    def python(self, name, layer, bottom="data", more=""):
        place = f'bottom: "{bottom}"' if bottom else ""
        return (
            f'layer {{ name: "{name}" type: "Python" {place} top: "{name}" '
            f'python_param {{ module: "behaviours" layer: "{layer}" {more} }} }}'
        )

    def net(self, layers, phase=caffe.TRAIN):
        text = 'force_backward: true input: "data" input_shape { dim: 3 dim: 2 dim: 4 }' + layers
        return super().net(text, phase)

    def chain(self):
        return self.net(self.python("one", "Tenfold") + self.python("two", "Tenfold", "one"))

    def test_forward_and_backward(self):
        net = self.chain()
        net.blobs["data"].data[...] = 8
        net.forward()
        self.assertEqual(set(net.blobs["two"].data.flat), {800})
        fresh = self.chain()
        fresh.blobs["two"].diff[...] = 7
        fresh.backward()
        self.assertEqual(set(fresh.blobs["data"].diff.flat), {700})

    def test_reshape(self):
        net = self.chain()
        net.blobs["data"].reshape(4, 4, 4, 4)
        net.forward()
        self.assertEqual({b.data.shape for b in net.blobs.values()}, {(4, 4, 4, 4)})

    def test_errors_are_those_of_the_layer(self):
        with self.assertRaises(RuntimeError):
            self.net(self.python("bad", "Failing"))

    def test_parameters(self):
        net = self.net(self.python("layer", "Counting"))
        net.forward()
        net.backward()
        blob = net.layers[list(net._layer_names).index("layer")].blobs[0]
        self.assertEqual((blob.data[0], blob.diff[0]), (0, 1))
        blob.data[0] += blob.diff[0]
        net.save("weights")
        blob.data[0] = -1
        net.copy_from("weights")
        self.assertEqual(blob.data[0], 1)
        other = caffe.Net("net.prototxt", caffe.TRAIN)
        other.share_with(net)
        self.assertEqual(other.params["layer"][0].data[0], 1)

    def test_phase_and_param_str(self):
        more = "param_str: \"{'more': 5}\""
        for phase in (caffe.TRAIN, caffe.TEST):
            net = self.net(self.python("phase", "PhaseOf", "") + self.python("more", "PhaseOf", "", more), phase)
            made = net.forward()
            self.assertEqual((made["phase"], made["more"]), (phase, phase + 5))

    def test_the_layers_own_object_is_at_hand(self):
        net = self.chain()
        net.forward()
        layer = net.layers[1]
        self.assertEqual(
            (layer.type, layer.seen, layer.python.__class__), ("Python", 1, __import__("behaviours").Tenfold)
        )
        layer.forget(to=40)
        layer.note = "mine"
        net.forward()
        self.assertEqual((net.layer_dict["one"].seen, net.layers[1].python.note), (41, "mine"))
        with self.assertRaises(AttributeError):
            layer.nothing


class SpecTest(InAFolder):
    def lenet(self):
        n = caffe.NetSpec()
        shapes = [dict(dim=[4, 1, 28, 28]), dict(dim=[4, 1, 1, 1])]
        n.data, n.label = L.DummyData(shape=shapes, transform_param=dict(scale=1.0 / 255), ntop=2)
        n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=4, weight_filler=dict(type="xavier"))
        n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
        n.ip1 = L.InnerProduct(n.pool1, num_output=9, weight_filler=dict(type="xavier"))
        n.relu1 = L.ReLU(n.ip1, in_place=True)
        n.ip2 = L.InnerProduct(n.relu1, num_output=10)
        n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
        return n.to_proto()

    def anonymous(self):
        data, label = L.DummyData(shape=[dict(dim=[4, 9]), dict(dim=[4])], ntop=2)
        top = L.InnerProduct(L.ReLU(L.InnerProduct(data, num_output=9), in_place=True), num_output=10)
        return caffe.to_proto(L.SoftmaxWithLoss(top, label))

    def load(self, proto):
        return caffe.Net(self.write(str(proto)), caffe.TEST)

    def test_named_and_anonymous_nets_are_built(self):
        proto = self.lenet()
        self.assertEqual(list(proto.layer[4].bottom), list(proto.layer[4].top))
        self.assertEqual(len(self.load(proto).layers), 7)
        proto = self.anonymous()
        self.assertEqual(list(proto.layer[2].bottom), list(proto.layer[2].top))
        self.assertEqual(len(self.load(proto).layers), 5)

    def test_a_net_without_outputs(self):
        n = caffe.NetSpec()
        n.data, n.data2 = L.DummyData(shape=dict(dim=3), ntop=2)
        n.silence = L.Silence(n.data, n.data2, ntop=0)
        self.assertEqual(len(self.load(n.to_proto()).forward()), 0)


class ModuleTest(unittest.TestCase):
    def test_types_version_log_and_submodules(self):
        self.assertTrue({"Data", "Convolution", "Python", "LSTM"} <= set(caffe.layer_type_list()))
        self.assertEqual(caffe.__version__, "1.0.0")
        caffe.set_mode_cpu()
        caffe.set_device(0)
        caffe.set_random_seed(3)
        caffe.set_multiprocess(True)
        caffe.init_log(2, True)
        caffe.log("seen by those who ask for it")
        names = "_caffe classifier coord_map detector draw io net_spec proto proto.caffe_pb2 pycaffe"
        for name in names.split():
            self.assertIs(importlib.import_module(f"caffe.{name}"), operator.attrgetter(name)(caffe))
        self.assertIs(caffe.pycaffe.Net, caffe._caffe.Net)
        self.assertIs(caffe.proto.caffe_pb2, caffe_pb2)
        self.assertIs(caffe.net_spec.layers, L)
        self.assertTrue({caffe.classifier.Classifier, caffe.detector.Detector} == {caffe.Classifier, caffe.Detector})

    def test_blob_and_datum_messages(self):
        old = caffe_pb2.BlobProto(data=np.zeros(6), num=1, channels=1, height=2, width=3)
        self.assertEqual(caffe.io.blobproto_to_array(old).shape, (1, 1, 2, 3))
        new = caffe_pb2.BlobProto(data=np.zeros(6))
        new.shape.dim.extend((2, 3))
        self.assertEqual(caffe.io.blobproto_to_array(new).shape, (2, 3))
        with self.assertRaises(ValueError):
            caffe.io.blobproto_to_array(caffe_pb2.BlobProto(data=np.zeros(6)))
        self.assertEqual(caffe.io.blobproto_to_array(caffe_pb2.BlobProto(data=[123])), 123)
        labelled = caffe.io.array_to_datum(np.ones((2, 2, 3)), label=1)
        self.assertGreater(labelled.ByteSize(), caffe.io.array_to_datum(np.ones((2, 2, 3))).ByteSize())
        with self.assertRaises(ValueError):
            caffe.io.array_to_datum(np.ones((2, 2)))


if __name__ == "__main__":
    unittest.main()
