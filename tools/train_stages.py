#!/usr/bin/env python
"""Train variants of the paper from a pretrained classification net, in the paper's steps."""

import sys

from pycaffe_compat.commands.train_stages import main

if __name__ == "__main__":
    sys.exit(main())
