#!/usr/bin/env python
"""Write the sizes of pictures, for the name_size_file of SSD's DetectionOutput."""

import sys

from pycaffe_compat.commands.get_image_size import main

if __name__ == "__main__":
    sys.exit(main())
