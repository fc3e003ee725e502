#!/usr/bin/env python
"""Compute the mean image of an LMDB."""

import sys

from pycaffe_compat.commands.compute_image_mean import main

if __name__ == "__main__":
    sys.exit(main())
