"""The walk of write-flash's data is short: from ``write_flash`` to the transport in at most eight frames."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "tools/call_depth.py"
MOST = 8


@pytest.mark.parametrize("loader", ["rom", "vendor stub", "stub"])
def test_content_reaches_the_transport_in_few_frames(loader: str) -> None:
    spec = importlib.util.spec_from_file_location("call_depth", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    chain = module.measure(loader)["data"]
    assert chain[0] == "write_flash"
    assert len(chain) <= MOST, " -> ".join(chain)
