#!/usr/bin/env python
"""Train a variant of the paper from a pretrained VGG-16, in the paper's steps, each with its own solver file."""

import sys

from pycaffe_compat.commands.train_stages import main

if __name__ == "__main__":
    sys.exit(main())
