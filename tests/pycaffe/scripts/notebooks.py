# ruff: noqa: B905, C408  (written the way such scripts are)
"""What Caffe's example notebooks do, on tiny data, as unittest cases. Run by tests/pycaffe/test_scripts.py."""

import os
import tempfile
import unittest

import caffe
import cv2
import h5py
import lmdb
import numpy as np
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2

SIZE = 12


def digits(count, seed):
    """Pictures of a bar that lies at the place of its label, 0 … 3, in noise."""
    random = np.random.RandomState(seed)
    labels = random.randint(4, size=count)
    images = random.randint(0, 80, (count, 1, SIZE, SIZE))
    for image, label in zip(images, labels):
        image[0, 3 * label : 3 * label + 2] += 150
    return images.astype(np.uint8), labels


class Notebook(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder.name)
        caffe.set_mode_cpu()
        caffe.set_random_seed(0)

    def write(self, name, text):
        with open(name, "w") as f:
            f.write(str(text))
        return name


def small_net(data, classes, learn=True, train=True):
    """A chain of two convolutions and two inner products, like the reference nets."""
    param = [dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)] if learn else [dict(lr_mult=0)] * 2
    fill = dict(weight_filler=dict(type="xavier"), bias_filler=dict(type="constant", value=0.1))
    n = caffe.NetSpec()
    n.data = data
    n.conv1 = L.Convolution(n.data, kernel_size=3, num_output=6, param=param, **fill)
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.norm1 = L.LRN(n.pool1, local_size=3, alpha=1e-4, beta=0.75)
    n.conv2 = L.Convolution(n.norm1, kernel_size=3, pad=1, num_output=6, group=2, param=param, **fill)
    n.fc6 = L.InnerProduct(n.conv2, num_output=16, param=param, **fill)
    n.relu6 = L.ReLU(n.fc6, in_place=True)
    fc7 = n.drop6 = L.Dropout(n.relu6, in_place=True) if train else n.relu6
    n.fc8 = L.InnerProduct(fc7, num_output=classes, param=[dict(lr_mult=10), dict(lr_mult=20)], **fill)
    return n


class Classification(Notebook):
    def test_a_picture_is_preprocessed_classified_and_looked_into(self):
        n = small_net(L.Input(shape=dict(dim=[10, 3, SIZE, SIZE])), 5, train=False)
        n.prob = L.Softmax(n.fc8)
        self.write("deploy.prototxt", n.to_proto())
        caffe.Net("deploy.prototxt", caffe.TEST).save("trained.caffemodel")
        random = np.random.RandomState(1)
        cv2.imwrite("cat.jpg", random.randint(0, 256, (30, 40, 3)).astype(np.uint8))
        np.save("mean.npy", random.uniform(90, 130, (3, 16, 16)))

        net = caffe.Net("deploy.prototxt", "trained.caffemodel", caffe.TEST)
        mu = np.load("mean.npy").mean(1).mean(1)
        transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
        transformer.set_transpose("data", (2, 0, 1))
        transformer.set_mean("data", mu)
        transformer.set_raw_scale("data", 255)
        transformer.set_channel_swap("data", (2, 1, 0))
        net.blobs["data"].reshape(5, 3, SIZE, SIZE)
        image = caffe.io.load_image("cat.jpg")
        transformed = transformer.preprocess("data", image)
        net.blobs["data"].data[...] = transformed
        output = net.forward()
        prob = output["prob"][0]
        self.assertAlmostEqual(float(prob.sum()), 1, places=5)
        self.assertEqual(net.blobs["prob"].data.shape, (5, 5))
        self.assertEqual(len(prob.argsort()[::-1][:5]), 5)
        shapes = {name: blob.data.shape for name, blob in net.blobs.items()}
        self.assertEqual(shapes["conv2"], (5, 6, 5, 5))
        shapes = {name: (p[0].data.shape, p[1].data.shape) for name, p in net.params.items()}
        self.assertEqual(shapes["conv2"], ((6, 3, 3, 3), (6,)))
        filters = net.params["conv1"][0].data.transpose(0, 2, 3, 1)
        grid = (filters - filters.min()) / (filters.max() - filters.min())
        self.assertEqual((grid.shape, grid.max()), ((6, 3, 3, 3), 1))
        features = net.blobs["conv1"].data[0, :4]
        self.assertEqual((features.shape, net.blobs["fc6"].data[0].ndim), ((4, 10, 10), 1))
        np.testing.assert_allclose(transformer.deprocess("data", net.blobs["data"].data[0]).shape, (SIZE, SIZE, 3))

        classifier = caffe.Classifier(
            "deploy.prototxt",
            "trained.caffemodel",
            mean=mu,
            channel_swap=(2, 1, 0),
            raw_scale=255,
            image_dims=(SIZE, SIZE),
        )
        np.testing.assert_allclose(classifier.predict([image], oversample=False)[0], prob, rtol=1e-4, atol=1e-6)
        self.assertEqual(classifier.predict([image, image]).shape, (2, 5))
        detector = caffe.Detector(
            "deploy.prototxt", "trained.caffemodel", mean=mu, channel_swap=(2, 1, 0), raw_scale=255, context_pad=2
        )
        windows = [("cat.jpg", np.array([[0, 0, 20, 20], [5, 5, 28, 38]]))]
        self.assertEqual([d["prediction"].shape for d in detector.detect_windows(windows)], [(5,), (5,)])


class LearningLeNet(Notebook):
    def lenet(self, source, batch_size):
        n = caffe.NetSpec()
        n.data, n.label = L.Data(
            batch_size=batch_size, backend=P.Data.LMDB, source=source, transform_param=dict(scale=1.0 / 255), ntop=2
        )
        n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=8, weight_filler=dict(type="xavier"))
        n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
        n.fc1 = L.InnerProduct(n.pool1, num_output=30, weight_filler=dict(type="xavier"))
        n.relu1 = L.ReLU(n.fc1, in_place=True)
        n.score = L.InnerProduct(n.relu1, num_output=4, weight_filler=dict(type="xavier"))
        n.loss = L.SoftmaxWithLoss(n.score, n.label)
        return n.to_proto()

    def setUp(self):
        super().setUp()
        for name, count, seed in (("train_lmdb", 128, 0), ("test_lmdb", 32, 1)):
            with lmdb.open(name, map_size=1 << 24) as env, env.begin(write=True) as txn:
                for i, (image, label) in enumerate(zip(*digits(count, seed))):
                    txn.put(b"%08d" % i, caffe.io.array_to_datum(image, int(label)).SerializeToString())
        self.write("train.prototxt", self.lenet("train_lmdb", 16))
        self.write("test.prototxt", self.lenet("test_lmdb", 32))

    def test_step_by_step(self):
        self.write(
            "solver.prototxt",
            'train_net: "train.prototxt" test_net: "test.prototxt" test_iter: 1 test_interval: 500 base_lr: 0.01 '
            'momentum: 0.9 weight_decay: 0.0005 lr_policy: "inv" gamma: 0.0001 power: 0.75 display: 100 max_iter: 10000 '
            'snapshot: 5000 snapshot_prefix: "lenet"',
        )
        solver = None  # as the notebooks say for LMDB: only one reader at a time
        solver = caffe.SGDSolver("solver.prototxt")
        self.assertEqual(solver.net.blobs["data"].data.shape, (16, 1, SIZE, SIZE))
        solver.net.forward()
        loss = solver.test_nets[0].forward()["loss"]
        self.assertAlmostEqual(float(loss), np.log(4), delta=1)
        self.assertEqual(list(solver.net.blobs["label"].data[:8]), list(digits(128, 0)[1][:8]))
        solver.step(1)
        self.assertGreater(np.abs(solver.net.params["conv1"][0].diff[:, 0].reshape(2, 4, 5, 5)).max(), 0)
        niter, interval = 40, 10
        train_loss, test_acc = np.zeros(niter), np.zeros(niter // interval)
        output = np.zeros((niter, 8, 4))
        for it in range(niter):
            solver.step(1)
            train_loss[it] = solver.net.blobs["loss"].data
            solver.test_nets[0].forward(start="conv1")
            output[it] = solver.test_nets[0].blobs["score"].data[:8]
            if it % interval == 0:
                correct = 0
                for _ in range(2):
                    solver.test_nets[0].forward()
                    correct += sum(
                        solver.test_nets[0].blobs["score"].data.argmax(1) == solver.test_nets[0].blobs["label"].data
                    )
                test_acc[it // interval] = correct / 64
        self.assertLess(train_loss[-5:].mean(), train_loss[:5].mean() / 3)
        self.assertGreater(test_acc[-1], 0.9)
        self.assertTrue((output[0] != output[-1]).any())

    def test_a_solver_written_in_python(self):
        s = caffe_pb2.SolverParameter()
        s.random_seed = 0xCAFFE
        s.train_net = "train.prototxt"
        s.test_net.append("test.prototxt")
        s.test_interval = 500
        s.test_iter.append(1)
        s.max_iter = 10000
        s.type = "Adam"
        s.base_lr = 0.005
        s.momentum = 0.75
        s.weight_decay = 5e-4
        s.lr_policy = "inv"
        s.gamma = 0.0001
        s.power = 0.75
        s.display = 1000
        s.snapshot = 5000
        s.snapshot_prefix = "custom_net"
        s.solver_mode = caffe_pb2.SolverParameter.CPU
        self.write("custom.prototxt", s)
        solver = caffe.get_solver("custom.prototxt")
        self.assertIsInstance(solver, caffe.AdamSolver)
        first = float(solver.net.forward()["loss"])
        solver.step(20)
        self.assertLess(float(solver.net.blobs["loss"].data), first)


class FineTuning(Notebook):
    def test_a_style_net_starts_from_the_weights_of_another(self):
        images, labels = digits(24, 3)
        lines = []
        for i, (image, label) in enumerate(zip(images, labels)):
            cv2.imwrite(f"{i}.png", np.dstack([image[0]] * 3))
            lines.append(f"{i}.png {label}\n")
        self.write("train.txt", "".join(lines))
        n = small_net(L.Input(shape=dict(dim=[1, 3, SIZE, SIZE])), 5, train=False)
        self.write("imagenet.prototxt", n.to_proto())
        weights = "imagenet.caffemodel"
        caffe.Net("imagenet.prototxt", caffe.TEST).save(weights)

        def style_net(train, learn_all):
            data, label = L.ImageData(
                transform_param=dict(mirror=train, crop_size=SIZE, mean_value=[40, 40, 40], scale=1 / 64),
                source="train.txt",
                batch_size=12,
                new_height=SIZE + 1,
                new_width=SIZE + 1,
                shuffle=train,
                ntop=2,
            )
            n = small_net(data, 4, learn=learn_all, train=train)
            n.fc8_flickr = L.InnerProduct(n.relu6, num_output=4, weight_filler=dict(type="gaussian", std=0.01))
            del n.fc8
            n.label = label
            n.loss = L.SoftmaxWithLoss(n.fc8_flickr, n.label)
            n.acc = L.Accuracy(n.fc8_flickr, n.label)
            name = f"style_{train}_{learn_all}.prototxt"
            return self.write(name, n.to_proto())

        def solver_of(net, **options):
            s = caffe_pb2.SolverParameter(
                train_net=net, base_lr=0.02, lr_policy="step", gamma=0.1, stepsize=20000, **options
            )
            s.momentum, s.weight_decay, s.max_iter, s.snapshot_prefix = 0.9, 5e-4, 100, "style"
            return caffe.get_solver(self.write("solver.prototxt", s))

        solvers = [
            ("pretrained", solver_of(style_net(True, False))),
            ("scratch", solver_of(style_net(True, True))),
        ]
        solvers[0][1].net.copy_from(weights)
        frozen = solvers[0][1].net.params["conv1"][0].data.copy()
        names = ("loss", "acc")
        loss, acc = ({name: np.zeros(30) for name, _ in solvers} for _ in names)
        for it in range(30):
            for name, s in solvers:
                s.step(1)
                loss[name][it], acc[name][it] = (s.net.blobs[b].data.copy() for b in names)
        for name, s in solvers:
            self.assertLess(loss[name][-5:].mean(), loss[name][:5].mean())
            s.net.save(f"weights.{name}.caffemodel")
        np.testing.assert_array_equal(solvers[0][1].net.params["conv1"][0].data, frozen)
        self.assertTrue((solvers[1][1].net.params["conv1"][0].data != frozen).any())
        del solvers
        test_net = caffe.Net(style_net(False, True), "weights.scratch.caffemodel", caffe.TEST)
        accuracy = np.mean([test_net.forward()["acc"] for _ in range(2)])
        self.assertGreater(accuracy, 0.5)


class NetSurgery(Notebook):
    def test_filters_and_biases_are_edited_in_place(self):
        self.write(
            "conv.prototxt",
            'name: "convolution" input: "data" input_dim: 1 input_dim: 1 input_dim: 20 input_dim: 20 '
            'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 3 '
            'kernel_size: 5 stride: 1 weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 0 } } }',
        )
        net = caffe.Net("conv.prototxt", caffe.TEST)
        im_input = np.random.RandomState(0).uniform(size=(1, 1, 24, 24))
        net.blobs["data"].reshape(*im_input.shape)
        net.blobs["data"].data[...] = im_input
        net.forward()
        conv0 = net.blobs["conv"]
        before = conv0.data.mean()
        net.params["conv"][1].data[0] = 1.0
        net.forward()
        self.assertAlmostEqual(conv0.data.mean() - before, 1 / 3, places=4)
        ksize = net.params["conv"][0].data.shape[2:]
        sobel = np.array((-1, -2, 0, 2, 1)).reshape((1, -1))
        net.params["conv"][0].data[1, 0, 1:-1, :] = sobel
        net.params["conv"][0].data[2, 0, :, 1:-1] = sobel.T
        self.assertEqual(ksize, (5, 5))
        net.forward()
        np.testing.assert_array_equal(net.params["conv"][0].data[1, 0, 1], sobel[0])

    def test_inner_products_become_convolutions(self):
        n = small_net(L.Input(shape=dict(dim=[1, 1, SIZE, SIZE])), 4, train=False)
        self.write("net.prototxt", n.to_proto())
        proto = n.to_proto()
        for layer in proto.layer:
            if layer.type == "InnerProduct":
                options = layer.inner_product_param
                layer.convolution_param.num_output = options.num_output
                layer.convolution_param.kernel_size.append(5 if layer.name == "fc6" else 1)
                layer.ClearField("inner_product_param")
                layer.type, layer.name = "Convolution", layer.name + "-conv"
        proto.layer[0].input_param.shape[0].dim[2:] = [SIZE + 8, SIZE + 8]
        self.write("full_conv.prototxt", proto)

        net = caffe.Net("net.prototxt", caffe.TEST)
        net.save("net.caffemodel")
        params = ["fc6", "fc8"]
        fc_params = {pr: (net.params[pr][0].data, net.params[pr][1].data) for pr in params}
        net_full_conv = caffe.Net("full_conv.prototxt", "net.caffemodel", caffe.TEST)
        params_full_conv = ["fc6-conv", "fc8-conv"]
        conv_params = {
            pr: (net_full_conv.params[pr][0].data, net_full_conv.params[pr][1].data) for pr in params_full_conv
        }
        for pr, pr_conv in zip(params, params_full_conv):
            conv_params[pr_conv][0].flat = fc_params[pr][0].flat  # flat unrolls the arrays
            conv_params[pr_conv][1][...] = fc_params[pr][1]
        net_full_conv.save("full_conv.caffemodel")
        image = np.random.RandomState(2).uniform(size=(1, 1, SIZE + 8, SIZE + 8))
        out = net_full_conv.forward_all(data=image)
        self.assertEqual(out["fc8"].shape, (1, 4, 5, 5))
        again = caffe.Net("full_conv.prototxt", "full_conv.caffemodel", caffe.TEST)
        np.testing.assert_array_equal(again.forward(data=image)["fc8"], out["fc8"])
        again.blobs["data"].reshape(1, 1, SIZE, SIZE)
        part = image[:, :, 4 : 4 + SIZE, 6 : 6 + SIZE]
        one = again.forward(data=part)["fc8"]
        self.assertEqual(one.shape, (1, 4, 1, 1))
        np.testing.assert_allclose(one[0, :, 0, 0], net.forward(data=part)["fc8"][0], rtol=1e-4, atol=1e-5)


class LogisticRegression(Notebook):
    def net(self, source, batch_size, hidden=0):
        n = caffe.NetSpec()
        n.data, n.label = L.HDF5Data(batch_size=batch_size, source=source, ntop=2)
        top = n.data
        if hidden:
            n.ip0 = L.InnerProduct(n.data, num_output=hidden, weight_filler=dict(type="xavier"))
            top = n.relu0 = L.ReLU(n.ip0, in_place=True)
        n.ip1 = L.InnerProduct(top, num_output=2, weight_filler=dict(type="xavier"))
        n.accuracy = L.Accuracy(n.ip1, n.label)
        n.loss = L.SoftmaxWithLoss(n.ip1, n.label)
        return n.to_proto()

    def test_it_learns_from_hdf5(self):
        random = np.random.RandomState(0)
        for name, count in (("train", 400), ("test", 100)):
            x = random.standard_normal((count, 4))
            y = (x @ [1, -2, 0.5, 0] > 0).astype(np.float32)
            with h5py.File(f"{name}.h5", "w") as f:
                f.create_dataset("data", data=x.astype(np.float32), compression="gzip")
                f["label"] = y
            self.write(f"{name}.txt", f"{name}.h5\n")
        for hidden in (0, 10):
            self.write("train.prototxt", self.net("train.txt", 10, hidden))
            self.write("test.prototxt", self.net("test.txt", 25, hidden))
            s = caffe_pb2.SolverParameter(train_net="train.prototxt", test_net=["test.prototxt"], test_interval=100)
            s.test_iter.append(4)
            s.max_iter, s.base_lr, s.lr_policy, s.gamma, s.stepsize, s.momentum = 200, 0.05, "step", 0.1, 5000, 0.9
            s.display, s.snapshot, s.snapshot_prefix = 1000, 10000, "logreg"
            solver = caffe.get_solver(self.write("solver.prototxt", s))
            solver.solve()
            accuracy = 0
            for _ in range(4):
                solver.test_nets[0].forward()
                accuracy += solver.test_nets[0].blobs["accuracy"].data
            self.assertGreater(accuracy / 4, 0.9)


class TwoLabels(caffe.Layer):
    """A data layer in Python, for pictures with several labels."""

    def setup(self, bottom, top):
        self.top_names = ["data", "label"]
        params = eval(self.param_str)
        self.batch_size, self.shape = params["batch_size"], params["im_shape"]
        self.images, self.labels = digits(20, params["seed"])
        self.cursor = 0
        top[0].reshape(self.batch_size, 1, self.shape[0], self.shape[1])
        top[1].reshape(self.batch_size, 4)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        for itt in range(self.batch_size):
            top[0].data[itt, ...] = self.images[self.cursor] / 255.0
            top[1].data[itt, ...] = np.arange(4) == self.labels[self.cursor]
            self.cursor = (self.cursor + 1) % len(self.images)

    def backward(self, top, propagate_down, bottom):
        pass


class MultiLabel(Notebook):
    def test_a_python_data_layer_trains_a_net(self):
        params = dict(batch_size=10, im_shape=[SIZE, SIZE], seed=5)
        n = caffe.NetSpec()
        n.data, n.label = L.Python(module="notebooks", layer="TwoLabels", ntop=2, param_str=str(params))
        n.score = L.InnerProduct(n.data, num_output=4, weight_filler=dict(type="xavier"))
        n.loss = L.SigmoidCrossEntropyLoss(n.score, n.label)
        self.write("trainnet.prototxt", n.to_proto())
        self.write(
            "solver.prototxt",
            'train_net: "trainnet.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" '
            'snapshot_prefix: "m" snapshot_after_train: false',
        )
        solver = caffe.SGDSolver("solver.prototxt")
        first = float(solver.net.forward()["loss"])
        for _ in range(40):
            solver.step(1)
        self.assertLess(float(solver.net.blobs["loss"].data), first / 2)
        gts, ests = solver.net.blobs["label"].data, solver.net.blobs["score"].data > 0
        distance = np.mean([np.sum(g != e) / len(g) for g, e in zip(gts, ests)])
        self.assertLess(distance, 0.1)
        self.assertEqual(solver.net.layers[0].top_names, ["data", "label"])


if __name__ == "__main__":
    unittest.main()
