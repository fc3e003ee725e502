"""What PyTorch has no operator or module for, in plain PyTorch: written out beside the nets that need it.

The source of a net (:mod:`..module`) begins with the functions and classes of these files that it uses, and no others, so
nothing here uses the rest of this package, and no two of them have one name. Lines are at most 88 wide, which most formatters
are set to, and stay as they are at 120.
"""
