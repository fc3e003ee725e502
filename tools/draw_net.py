#!/usr/bin/env python
"""Draw a net."""

import sys

from pycaffe_compat.commands.draw_net import main

if __name__ == "__main__":
    sys.exit(main())
