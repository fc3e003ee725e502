"""What all tests share: this folder on the path, for the helpers beside it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
