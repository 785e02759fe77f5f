"""Tests with labgrid, for an environment that has it: `make lab`."""

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
if find_spec("labgrid") is None:
    collect_ignore_glob = ["test_*.py"]
