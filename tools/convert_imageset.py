#!/usr/bin/env python
"""Convert a set of images to the LMDB that Data layers read."""

import sys

from pycaffe_compat.commands.convert_imageset import main

if __name__ == "__main__":
    sys.exit(main())
