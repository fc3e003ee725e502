#!/usr/bin/env python
"""Write blobs of a net, for the data that it reads, to LMDBs."""

import sys

from pycaffe_compat.commands.extract_features import main

if __name__ == "__main__":
    sys.exit(main())
