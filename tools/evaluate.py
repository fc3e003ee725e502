#!/usr/bin/env python
"""Score a classifier as the paper does: top-1 and top-5 errors of the centre crop, or of the whole image."""

import sys

from pycaffe_compat.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
