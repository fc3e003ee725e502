"""Run a program that says `import caffe`, with this package as its caffe, and Caffe's log on standard error.

usage: python -m pycaffe_compat SCRIPT.py [ARGUMENT ...]
       python -m pycaffe_compat -m MODULE [ARGUMENT ...]

examples:
  python -m pycaffe_compat classify.py cat.jpg
  PYCAFFE_COMPAT_PYTHON_LAYERS=1 PYTHONPATH=lib python -m pycaffe_compat tools/demo.py
                           a net with Python layers, whose code lies in lib/
"""

from __future__ import annotations

import os
import runpy
import sys

from .pycaffe import shim
from .pycaffe.alias import install_as_caffe
from .solver.log import init_log


def main() -> None:
    """Run the script or module named on the command line as ``__main__``."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if arguments else 2)
    module = arguments[0] == "-m"
    if module and len(arguments) < 2:
        sys.exit("python -m pycaffe_compat -m: the name of a module is missing")
    if not module and not os.path.exists(arguments[0]):
        sys.exit(f"python -m pycaffe_compat: there is no file {arguments[0]}")
    install_as_caffe()
    init_log()
    # the processes that the program starts (spawned ones import it again) find caffe in a folder
    folder = os.path.dirname(shim.__file__)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    sys.path.insert(0, folder)
    if module:
        sys.argv = arguments[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = arguments
    sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
