"""Operators and modules that PyTorch lacks, in plain PyTorch: exported next to the nets that need them.

The source of a net (:mod:`..module`) begins with the functions and classes of these files that it uses, and no others, so
nothing here uses the rest of this package, and no two of them have one name. Lines are at most 88 wide, which most formatters
are set to, and stay as they are at 120.
"""
