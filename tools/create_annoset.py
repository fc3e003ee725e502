#!/usr/bin/env python
"""Convert pictures and their boxes to the LMDB that AnnotatedData layers read."""

import sys

from pycaffe_compat.commands.create_annoset import main

if __name__ == "__main__":
    sys.exit(main())
