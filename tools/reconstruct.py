#!/usr/bin/env python
"""Show what trained decoders make of pictures, from each layer, and measure how near it comes: a grid, curves, a page."""

import sys

from pycaffe_compat.commands.reconstruct import main

if __name__ == "__main__":
    sys.exit(main())
