#!/usr/bin/env python
"""Find objects in pictures with a detector such as SSD."""

import sys

from pycaffe_compat.commands.detect_objects import main

if __name__ == "__main__":
    sys.exit(main())
