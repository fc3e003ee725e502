#!/usr/bin/env python
"""Show a net: its layers, shapes, parameters, memory and arithmetic."""

import sys

from pycaffe_compat.commands.show_net import main

if __name__ == "__main__":
    sys.exit(main())
