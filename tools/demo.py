#!/usr/bin/env python
"""Train a small VGG with an SAE and a SWWAE decoder on real digits, and show what each reconstructs: a few minutes."""

import os
import sys
from pathlib import Path

from pycaffe_compat.commands.demo import main

if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])  # the repository's prototxt/ and demo/
    sys.exit(main())
