"""The benchmarks are modules of the checkout, not of the installed package."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))
