#!/usr/bin/env python
"""Score a trained net on its own test data."""

import sys

from pycaffe_compat.commands.test_net import main

if __name__ == "__main__":
    sys.exit(main())
