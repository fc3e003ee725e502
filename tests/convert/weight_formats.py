"""The formats of weights, and how to compare two models."""

FORMATS = (".caffemodel", ".caffemodel.h5", ".pt", ".safetensors", ".npz")


def assert_same(a, b):
    assert sorted(a.blobs) == sorted(b.blobs)
    for name in a.blobs:
        assert a.names[name] == b.names[name]
        for x, y in zip(a.blobs[name], b.blobs[name], strict=True):
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            assert x.tobytes() == y.tobytes()
