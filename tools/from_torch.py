#!/usr/bin/env python
"""Write a module of PyTorch as a net of Caffe with its weights, and check what it computes."""

import sys

from pycaffe_compat.commands.from_torch import main

if __name__ == "__main__":
    sys.exit(main())
