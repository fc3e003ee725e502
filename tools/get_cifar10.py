#!/usr/bin/env python
"""Make LMDBs of CIFAR-10, from the official archive, whose hashes are checked, or from a file of JPEGs."""

import sys

from pycaffe_compat.commands.get_cifar10 import main

if __name__ == "__main__":
    sys.exit(main())
