#!/usr/bin/env python
"""Classify pictures with an exported net, in onnxruntime or in OpenCV."""

import sys

from pycaffe_compat.commands.classify_onnx import main

if __name__ == "__main__":
    sys.exit(main())
