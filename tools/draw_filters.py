#!/usr/bin/env python
"""Draw the filters of a net's first layer, of several caffemodels beside each other, with their differences."""

import sys

from pycaffe_compat.commands.draw_filters import main

if __name__ == "__main__":
    sys.exit(main())
