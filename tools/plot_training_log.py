#!/usr/bin/env python
"""Draw charts of Caffe's training logs."""

import sys

from pycaffe_compat.commands.plot_training_log import main

if __name__ == "__main__":
    sys.exit(main())
