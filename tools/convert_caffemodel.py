#!/usr/bin/env python
"""Convert trained weights between Caffe, PyTorch, safetensors and numpy."""

import sys

from pycaffe_compat.commands.convert_caffemodel import main

if __name__ == "__main__":
    sys.exit(main())
