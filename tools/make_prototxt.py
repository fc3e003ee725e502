#!/usr/bin/env python
"""Write the nets and solver files of the paper, or give a net of your own a decoder."""

import sys

from pycaffe_compat.commands.make_prototxt import main

if __name__ == "__main__":
    sys.exit(main())
