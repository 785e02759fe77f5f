"""``labgrid://PLACE`` without labgrid: what a URL means, and every failure of the process that holds a place."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from espwire.errors import Cancelled, UsageError
from espwire.transport import place
from espwire.transport.base import CancelToken
from espwire.transport.place import HeldPlace, PlaceError, PlaceName, PlaceTransport, parse_place
from espwire.transport.place_keeper import KeeperError, Session, check_matches, find_url
from espwire.transport.url import open_transport


def test_the_parts_of_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LG_COORDINATOR", raising=False)
    assert parse_place("labgrid://esp32c3-1") == PlaceName("esp32c3-1", "127.0.0.1:20408")
    monkeypatch.setenv("LG_COORDINATOR", "lab:20408")
    assert parse_place("labgrid://a%2Fb?acquired=yes") == PlaceName(
        "a/b", "lab:20408", acquired=True
    )
    url = "labgrid://a?coordinator=10.0.0.1:1&resource=log"
    assert parse_place(url) == PlaceName("a", "10.0.0.1:1", "log")


@pytest.mark.parametrize(
    "url", ["labgrid:", "labgrid://", "labgrid://a/b", "labgrid://a?x=1", "labgrid://a?acquired=1"]
)
def test_a_url_with_a_mistake_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as error:
        open_transport(url)
    assert error.value.code == "bad-port"
    assert "coordinator=HOST:PORT" in error.value.hint


def run_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Have this Python program hold the place."""
    monkeypatch.setattr(place, "START", f"import sys; sys.argv.pop(1)\n{program}")


def test_the_error_of_the_process_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps({"code": "place-busy", "message": "m", "hint": "h"})
    run_instead(monkeypatch, f"print({line!r})")
    with pytest.raises(PlaceError, match="m") as error:
        HeldPlace("labgrid://a")
    assert (error.value.code, error.value.hint, error.value.exit_code) == ("place-busy", "h", 3)


@pytest.mark.parametrize("program", ["", "print('no JSON')", "raise SystemExit(1)"])
def test_a_process_that_ends_without_an_answer_is_an_error(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    run_instead(monkeypatch, program)
    with pytest.raises(PlaceError) as error:
        HeldPlace("labgrid://a")
    assert error.value.code == "place-keeper"


def test_waiting_for_a_place_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, "sys.stdin.read()")
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        HeldPlace("labgrid://a", token)


def test_closing_the_port_releases_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, 'print(\'{"url": "virtual:esp32c3"}\', flush=True); sys.stdin.read()')
    transport = open_transport("labgrid://a")
    assert isinstance(transport, PlaceTransport)
    assert transport.info.name == "labgrid://a"
    held = transport._held
    assert held._keeper._process.poll() is None
    transport.close()
    assert held._keeper._process.poll() == 0
    transport.close()


def test_a_port_that_cannot_be_opened_releases_the_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = f"{tmp_path}/left"
    answer = json.dumps({"url": "xyz:y"})
    run_instead(
        monkeypatch, f"print({answer!r}, flush=True); sys.stdin.read(); open({left!r}, 'w')"
    )
    with pytest.raises(UsageError, match="unknown kind of port 'xyz'"):
        open_transport("labgrid://a")
    assert Path(left).exists()


def test_without_labgrid_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    start = place.START.replace("import sys;", "import sys; sys.modules['labgrid'] = None;", 1)
    monkeypatch.setattr(place, "START", start.replace("modules['labgrid']", "modules['grpc']", 1))
    with pytest.raises(PlaceError, match="labgrid cannot be imported") as error:
        HeldPlace("labgrid://a")
    assert error.value.code == "no-labgrid"
    assert "espwire[lab]" in error.value.hint


@dataclass
class Match:
    rename: str = ""


@dataclass
class Place:
    name: str = "a"
    acquired_resources: list[str] = field(default_factory=list)
    missing: object = None

    def getmatch(self, path: tuple[str, ...]) -> Match:
        return Match()

    def unmatched(self, paths: object) -> object:
        return self.missing


@dataclass
class Entry:
    args: dict[str, object]
    avail: bool = True
    extra: dict[str, object] = field(default_factory=dict)
    cls: str = "NetworkSerialPort"


def make_session(*entries: Entry) -> Session:
    session = Session.__new__(Session)
    session.resources = {("host", "group", f"port{n}"): entry for n, entry in enumerate(entries)}
    paths = [("host", "group", entry.cls, f"port{n}") for n, entry in enumerate(entries)]
    session.places = {"a": Place(acquired_resources=paths)}  # type: ignore[arg-type]
    return session


LOCAL = {"host": "lab", "port": 4000}


def test_the_url_of_an_exported_port() -> None:
    assert find_url(make_session(Entry(LOCAL)), "a", "") == "rfc2217://lab:4000"
    raw = Entry(LOCAL | {"protocol": "raw", "host": "::1"})
    assert find_url(make_session(raw), "a", "") == "socket://[::1]:4000"
    power = Entry({}, cls="NetworkPowerPort")
    assert find_url(make_session(power, Entry(LOCAL)), "a", "") == "rfc2217://lab:4000"
    two = make_session(Entry(LOCAL), Entry(LOCAL | {"port": 4001}))
    assert find_url(two, "a", "port1") == "rfc2217://lab:4001"


@pytest.mark.parametrize(
    ("entries", "resource", "code", "text"),
    [
        ([], "", "place-resource", "no serial port"),
        ([Entry(LOCAL), Entry(LOCAL)], "", "place-resource", "several serial ports: port0, port1"),
        ([Entry(LOCAL)], "log", "place-resource", "no serial port log; its serial ports: port0"),
        ([Entry(LOCAL, avail=False)], "", "place-unavailable", "not available"),
        ([Entry({"host": "lab", "port": None})], "", "place-unavailable", "not available"),
        ([Entry(LOCAL | {"protocol": "x"})], "", "place-unavailable", "unknown protocol x"),
        ([Entry(LOCAL, extra={"proxy_required": True})], "", "place-proxy", "SSH proxy"),
    ],
)
def test_a_place_without_a_usable_port_is_named(
    entries: list[Entry], resource: str, code: str, text: str
) -> None:
    with pytest.raises(KeeperError, match=text) as error:
        find_url(make_session(*entries), "a", resource)
    assert error.value.code == code
    assert "place a" in str(error.value)


def test_a_missing_exporter_is_named() -> None:
    @dataclass(repr=False)
    class Missing:
        exporter: str = "right"

        def __repr__(self) -> str:
            return "right/b1/*"

    with pytest.raises(KeeperError, match=r"place a is incomplete: .* for right/b1/") as error:
        check_matches(make_session(), Place(missing=Missing()))
    assert error.value.code == "place-unavailable"
    assert "exporter right" in error.value.hint
