"""The walk of write-flash's data is short: from ``write_flash`` to the transport in at most eight frames."""

from __future__ import annotations

import call_depth
import pytest

MOST = 8


@pytest.mark.parametrize("loader", ["rom", "vendor stub", "stub"])
def test_content_reaches_the_transport_in_few_frames(loader: str) -> None:
    chain = call_depth.measure(loader)["data"]
    assert chain[0] == "write_flash"
    assert len(chain) <= MOST, " -> ".join(chain)
