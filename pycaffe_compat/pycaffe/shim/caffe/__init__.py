"""``import caffe`` where nobody has called ``install_as_caffe`` yet."""

import sys

from pycaffe_compat.pycaffe.alias import install_as_caffe
from pycaffe_compat.solver.log import init_log

del sys.modules[__name__]
install_as_caffe()
init_log()
