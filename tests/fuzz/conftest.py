"""Fuzzing: a few seconds in the test suite; ``FUZZ_EXAMPLES=100000 pytest tests/fuzz -k …`` for a long run."""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    print_blob=True,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
)
settings.load_profile("fuzz")
