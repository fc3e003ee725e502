#!/usr/bin/env python
"""Upgrade the prototxt of an old net."""

import sys

from pycaffe_compat.commands.upgrade_proto import net_text as main

if __name__ == "__main__":
    sys.exit(main())
