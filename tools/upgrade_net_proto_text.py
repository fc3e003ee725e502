#!/usr/bin/env python
"""Upgrade the prototxt of an old net to today's form: layers become layer, inputs become Input layers."""

import argparse
import sys

from pycaffe_compat.errors import CaffeError
from pycaffe_compat.proto.upgrade_files import upgrade_net_text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", metavar="IN", help="the net's prototxt, of any age")
    parser.add_argument("target", metavar="OUT", help="the upgraded file to write")
    args = parser.parse_args()
    try:
        upgraded = upgrade_net_text(args.source, args.target)
    except CaffeError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(f"upgraded: {words}" for words in upgraded) or f"already in today's form: {args.source}")
    print(f"wrote {args.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
