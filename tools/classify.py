#!/usr/bin/env python
"""Classify images."""

import sys

from pycaffe_compat.commands.classify import main

if __name__ == "__main__":
    sys.exit(main())
