"""A folder for ``sys.path`` in which ``import caffe`` finds this package: for processes that a script starts."""
