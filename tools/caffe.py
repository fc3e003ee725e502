#!/usr/bin/env python
"""Train, test and time nets with Caffe's own command line."""

import sys

from pycaffe_compat.commands.brew import main

if __name__ == "__main__":
    sys.exit(main())
