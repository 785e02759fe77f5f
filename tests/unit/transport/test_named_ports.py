"""A port known by its name only is back when the path exists."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from espwire.errors import Cancelled, PortNotFound
from espwire.transport.base import CancelToken
from espwire.transport.ports import NamedPort


@pytest.mark.skipif(os.name != "posix", reason="ports are not files on Windows")
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
def test_a_url_is_tried_at_once(name: str) -> None:
    port = NamedPort(name)
    assert port.wait_back(0) is port


def test_a_named_port_opens_a_url() -> None:
    transport = NamedPort("virtual:esp32?boot=app").open()
    assert transport.info.kind == "virtual"
    transport.close()
