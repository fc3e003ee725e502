#!/usr/bin/env python
"""Score windows of images."""

import sys

from pycaffe_compat.commands.detect import main

if __name__ == "__main__":
    sys.exit(main())
