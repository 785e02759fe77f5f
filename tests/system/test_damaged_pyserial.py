"""pyserial's files can be gone or another package's: after uninstalling pyserial-labgrid, or with the package serial."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from espwire.errors import TransportError
from espwire.transport.ports import list_system_ports
from espwire.transport.url import open_transport


@pytest.mark.parametrize("module", [None, ModuleType("serial")])
def test_the_error_names_the_repair(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, "serial", module)
    with pytest.raises(TransportError, match="installation of pyserial is damaged") as error:
        open_transport("/dev/ttyUSB0")
    assert error.value.code == "pyserial-broken"
    assert "--force-reinstall --no-deps pyserial" in error.value.hint


def test_the_list_of_ports_does_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial.tools", None)
    with pytest.raises(TransportError) as error:
        list_system_ports()
    assert error.value.code == "pyserial-broken"
