"""``espwire virtual serve``: from its options to a chip, and the one line it prints. Serving itself is virtual/serve's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.errors import UsageError
from espwire.transport.listening import parse_endpoint
from espwire.virtual.config import VirtualOptions

Served = list[tuple[VirtualOptions, tuple[str, int] | None]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    calls: Served = []

    def serve(
        options: VirtualOptions,
        *,
        tcp: tuple[str, int] | None,
        rfc2217: bool,
        announce: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        calls.append((options, tcp))
        announce("listening on socket://127.0.0.1:4000")

    monkeypatch.setattr("espwire.virtual.server.serve", serve)
    return calls


def test_options_become_a_chip(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a b&c.bin"
    line = "virtual serve ESP32-C3 --size 8MB --mac 60:55:f9:01:02:03 --revision 0.3 --profile fast --seed 7 --flash"
    more = ["--fault", "flip:0.001", "--set", "package=1", "--pace", "--tcp", "127.0.0.1:4000"]
    assert main([*line.split(), str(file), *more]) == 0
    (options, tcp), *rest = served
    assert not rest
    assert (options.chip, options.size, options.flash, options.pace) == (
        "esp32c3",
        8 << 20,
        file,
        True,
    )
    assert (options.mac, options.revision, options.profile, options.seed) == (
        bytes.fromhex("6055f9010203"),
        3,
        "fast",
        7,
    )
    assert dict(options.fields) == {"package": 1}
    assert tcp == ("127.0.0.1", 4000)
    assert capsys.readouterr().out == "listening on socket://127.0.0.1:4000\n"


def test_a_pty_is_no_tcp_and_tcp_is_the_default(served: Served) -> None:
    assert main(["virtual", "serve", "esp32", "--pty"]) == 0
    assert main(["virtual", "serve", "esp32?size=2MB"]) == 0
    assert [tcp for _, tcp in served] == [None, ("127.0.0.1", 0)]
    assert served[1][0].size == 2 << 20


def test_json_names_the_port(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "virtual", "serve", "esp32"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == {"port": "socket://127.0.0.1:4000"}


@pytest.mark.parametrize(
    "words",
    [
        ["esp99"],
        ["esp32", "--tcp", "here"],
        ["esp32", "--tcp", "127.0.0.1:70000"],
        ["esp32", "--tcp", "127.0.0.1:0", "--pty"],
        ["esp32", "--size", "big"],
        ["esp32", "--mac", "zz"],
        ["esp32", "--set", "package"],
        ["esp32", "--fault", "nonsense:1"],
        ["esp32", "--latency", "\ud800"],
    ],
)
def test_bad_options_are_exit_2(
    served: Served, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["virtual", "serve", *words]) == 2
    assert not served
    assert "error: " in capsys.readouterr().err


def test_endpoints() -> None:
    assert parse_endpoint("0.0.0.0:80") == ("0.0.0.0", 80)
    assert parse_endpoint("[::1]:80") == ("::1", 80)
    assert parse_endpoint(":80") == ("127.0.0.1", 80)
    with pytest.raises(UsageError):
        parse_endpoint("80")


def test_endpoints_with_a_default_port() -> None:
    assert parse_endpoint("lab-pc", 2217) == ("lab-pc", 2217)
    assert parse_endpoint("", 2217) == ("127.0.0.1", 2217)
    assert parse_endpoint("fe80::1", 2217) == ("fe80::1", 2217)
    assert parse_endpoint("[::1]", 2217) == ("::1", 2217)
    assert parse_endpoint("[::1]:80", 2217) == ("::1", 80)
    assert parse_endpoint(":80", 2217) == ("127.0.0.1", 80)
