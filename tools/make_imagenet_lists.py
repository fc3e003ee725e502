#!/usr/bin/env python
"""Make the lists of ILSVRC 2012's pictures and classes that Caffe uses."""

import sys

from pycaffe_compat.commands.make_imagenet_lists import main

if __name__ == "__main__":
    sys.exit(main())
