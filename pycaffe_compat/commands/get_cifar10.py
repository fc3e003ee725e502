"""Make LMDBs of CIFAR-10 from the official archive (its hashes are checked) or from a file of JPEGs."""

from __future__ import annotations

import os

from ..data.cifar10 import check_archive, download, read_archive, read_npz, write_database
from ..errors import CaffeError, DataError
from .options import Parser, command

EPILOG = """
examples:
  %(prog)s                                       fetch the archive (162 MB) into data/cifar10 and make the LMDBs there
  %(prog)s --archive cifar-10-binary.tar.gz      the same from an archive you have
  %(prog)s --npz cifar10_jpeg.npz                from JPEGs: arrays train_jpeg, train_offset, train_label, test_jpeg, …

It makes train_lmdb (50,000 pictures) and test_lmdb (10,000). Those that are there already are kept.
"""


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("--out", default="data/cifar10", metavar="DIR", help="the folder (default: %(default)s)")
    parser.add_argument("--archive", default="", metavar="FILE", help="the archive of the binary version")
    parser.add_argument("--npz", default="", metavar="FILE", help="a file of JPEGs instead of the archive")
    args = parser.parse_args(argv)
    if args.archive and args.npz:
        parser.error("give --archive or --npz, not both")
    paths = {part: os.path.join(args.out, f"{part}_lmdb") for part in ("train", "test")}
    if all(map(os.path.isdir, paths.values())):
        print(f"nothing to do: {' and '.join(paths.values())} are there")
        return
    try:
        os.makedirs(args.out, exist_ok=True)
    except OSError as error:
        raise CaffeError(f"cannot make the folder {args.out}: {error.strerror}") from error
    if args.npz:
        parts = read_npz(args.npz)
    else:
        archive = args.archive or os.path.join(args.out, "cifar-10-binary.tar.gz")
        if args.archive:
            check_archive(archive)
        else:
            download(archive)
        parts = read_archive(archive)
    for part, path in paths.items():
        if os.path.isdir(path):
            print(f"{path}: kept")
            continue
        if not len(parts[part].labels):
            raise DataError(f"no pictures in {part}")
        write_database(parts[part], path)
        print(f"{path}: {len(parts[part].labels):,} pictures")


main = command("get_cifar10", run)
