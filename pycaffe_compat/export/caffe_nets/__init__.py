"""The way in: modules of PyTorch as prototxt and caffemodel."""
