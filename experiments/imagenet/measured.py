"""Run a line in bash and write what it took, as JSON: ``python -S measured.py REPORT LINE``.

A small process of its own: Linux counts the memory of the process that starts another one to the other's peak.
"""

import json
import os
import subprocess
import sys
import time

report, line = sys.argv[1:]
began = time.monotonic()
process = subprocess.Popen(["bash", "-ec", line])
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
taken = {
    "status": process.returncode,
    "seconds": time.monotonic() - began,
    "cpu_seconds": usage.ru_utime + usage.ru_stime,
    "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
}
with open(report, "w") as file:
    json.dump(taken, file)
