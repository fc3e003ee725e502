#!/usr/bin/env python
"""Turn Caffe's training log into tables."""

import sys

from pycaffe_compat.commands.parse_log import main

if __name__ == "__main__":
    sys.exit(main())
