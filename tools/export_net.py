#!/usr/bin/env python
"""Export a net with its weights to a file that runs without Caffe and without this package."""

import sys

from pycaffe_compat.commands.export_net import main

if __name__ == "__main__":
    sys.exit(main())
