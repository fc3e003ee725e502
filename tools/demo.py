#!/usr/bin/env python
"""Train a small VGG with an SAE and a SWWAE decoder on real digits, and show what each reconstructs: a few minutes."""

import sys

from pycaffe_compat.commands.demo import main

if __name__ == "__main__":
    sys.exit(main())
