#!/usr/bin/env python
"""Upgrade an old caffemodel."""

import sys

from pycaffe_compat.commands.upgrade_proto import net_binary as main

if __name__ == "__main__":
    sys.exit(main())
