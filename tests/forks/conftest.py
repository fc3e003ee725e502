"""Makes the helpers importable: for layers (``import golden_layer``), and ``box_reference``."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "layers"), str(Path(__file__).parent)]
