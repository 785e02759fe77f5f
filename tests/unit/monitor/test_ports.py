"""A port known by its name: it is back when something has that name again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from espwire.errors import Cancelled, PortNotFound
from espwire.monitor.loop import NamedPort
from espwire.transport.base import CancelToken


@pytest.mark.skipif(os.name != "posix", reason="a port is no file there")
def test_a_path_is_back_when_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "pci-0000:00:14.0"
    port = NamedPort(str(path))
    with pytest.raises(PortNotFound):
        port.wait_back(0)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        port.wait_back(60, cancel=token)
    path.touch()
    assert port.wait_back(0) is port


@pytest.mark.parametrize(
    "name", ["socket://localhost:1", "rfc2217://localhost:1", "virtual:esp32?flash=/no/such"]
)
def test_what_cannot_be_looked_at_is_to_be_tried(name: str) -> None:
    port = NamedPort(name)
    assert port.wait_back(0) is port


def test_opening_is_that_of_any_link() -> None:
    transport = NamedPort("virtual:esp32?boot=app").open()
    assert transport.info.kind == "virtual"
    transport.close()
