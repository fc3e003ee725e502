#!/usr/bin/env python
"""Train a net as Caffe does, from a solver file."""

import sys

from pycaffe_compat.commands.train_net import main

if __name__ == "__main__":
    sys.exit(main())
