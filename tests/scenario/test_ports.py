"""A bus made of software, and whole command lines on it: what is listed, what is chosen, what is remembered."""

from __future__ import annotations

import json

import pytest

from espwire.cli.main import main
from espwire.errors import Cancelled, PortBusy, PortNotFound, TransportLost
from espwire.transport.base import CancelToken
from espwire.transport.ports import PortIdentity, SystemPort
from espwire.virtual.chip import State
from espwire.virtual.usb_bus import VirtualBus

MAC, OTHER = "24:6F:28:AA:BB:CC", "24:6F:28:00:00:01"
JTAG = f"esp32c3?kind=usb-jtag&profile=instant&mac={MAC}"
BRIDGED = f"esp32?profile=instant&mac={MAC}"


# --- the bus ---


def test_devices_have_the_identities_of_their_kind():
    bus = VirtualBus()
    for text in (JTAG, f"esp32s2?kind=usb-otg&mac={OTHER}", BRIDGED):
        bus.add(text)
    jtag, otg, bridge = bus.enumerate()
    assert (jtag.path, jtag.ids, jtag.serial, jtag.location) == (
        "/dev/ttyACM0",
        "303A:1001",
        MAC,
        "1-1",
    )
    assert (otg.path, otg.ids, otg.serial) == ("/dev/ttyACM1", "303A:0002", OTHER)
    assert (bridge.path, bridge.ids, bridge.serial) == ("/dev/ttyUSB0", "10C4:EA60", "B0000002")
    info = bus.add("esp32c6?kind=usb-jtag").open().info
    assert (info.name, info.kind, info.vid, info.pid) == (
        "/dev/ttyACM2",
        "usb-jtag",
        0x303A,
        0x1001,
    )


def reset(transport):
    """A reset into the application by the lines of USB-Serial/JTAG."""
    transport.set_lines(dtr=False, rts=True)


def test_after_a_reset_every_use_of_the_old_link_fails_and_the_clock_goes_on():
    bus = VirtualBus(seed=1, away=(0.2, 0.2))
    port = bus.add(JTAG)
    transport = port.open()
    transport.sleep(1.0)
    reset(transport)
    assert bus.enumerate() == ()
    for use in (
        lambda: transport.read(0.1),
        lambda: transport.write(b"x", transport.now() + 1),
        lambda: transport.set_lines(rts=False),
        transport.drain,
        transport.discard_input,
    ):
        with pytest.raises(TransportLost):
            use()
    before = transport.now()
    transport.sleep(0.05)
    assert before == pytest.approx(1.0)
    assert bus.now == transport.now() == pytest.approx(1.05)
    back = port.wait_back(1.0)
    assert bus.now == pytest.approx(1.2, abs=0.06)
    assert back.identity.path != port.identity.path
    with pytest.raises(TransportLost):
        transport.read(0.1)
    transport.close()
    transport.close()
    again = back.open()
    assert again.now() == bus.now
    again.sleep(0.5)
    assert bus.now == again.now() == pytest.approx(1.7, abs=0.06)


def test_a_reader_notices_soon_that_the_device_leaves_by_itself():
    bus = VirtualBus(seed=1)
    port = bus.add(JTAG)
    device = bus.devices[0]
    transport = port.open()
    device.chip.reset(0.5)
    with pytest.raises(TransportLost):
        transport.read(3.0)
    assert bus.now < 0.7


def test_lines_are_released_by_the_return_to_the_bus():
    bus = VirtualBus(seed=1)
    port = bus.add(f"{JTAG}&boot=app")
    transport = port.open()
    transport.set_lines(dtr=True, rts=False)
    transport.set_lines(dtr=True, rts=True)
    transport.set_lines(dtr=False, rts=True)
    chip = bus.devices[0].chip
    port = port.wait_back(2.0)
    assert chip.state is State.LOADER
    transport = port.open()
    reset(transport)
    port.wait_back(2.0)
    bus.sleep(0.1)
    assert chip.state is State.APP


def test_behind_a_bridge_a_reset_changes_nothing_on_the_bus():
    bus = VirtualBus()
    port = bus.add(f"{BRIDGED}&boot=app")
    transport = port.open()
    transport.set_lines(dtr=False, rts=True)
    transport.sleep(0.1)
    transport.set_lines(rts=False)
    assert b"boot:0x13" in transport.read(1.0)
    assert bus.devices[0].paths == ["/dev/ttyUSB0"]
    assert transport.info.kind == "uart"


def test_a_device_is_lost_and_comes_back_when_told():
    bus = VirtualBus(seed=4)
    port = bus.add(BRIDGED)
    transport = port.open()
    bus.lose("/dev/ttyUSB0", back_after=2.0)
    with pytest.raises(TransportLost):
        transport.read(0.1)
    with pytest.raises(PortNotFound):
        port.open()
    with pytest.raises(PortNotFound) as caught:
        port.wait_back(1.0)
    assert caught.value.code == "port-not-back"
    port.wait_back(2.0).open().close()
    bus.lose("/dev/ttyUSB0", power=True)
    bus.sleep(60)
    assert bus.enumerate() == ()
    bus.plug(bus.devices[0])
    assert [one.path for one in bus.enumerate()] == ["/dev/ttyUSB0"]


def test_an_unplugged_device_stays_away_whatever_its_chip_does():
    bus = VirtualBus(seed=4)
    bus.add(JTAG)  # in the loader, with its watchdogs running
    device = bus.devices[0]
    bus.lose("/dev/ttyACM0")
    boots = device.chip.boots
    bus.sleep(60)
    assert device.chip.boots > boots
    assert bus.enumerate() == ()


def test_one_port_is_open_once():
    bus = VirtualBus()
    port = bus.add(JTAG)
    transport = port.open()
    with pytest.raises(PortBusy):
        port.open()
    transport.close()
    with pytest.raises(TransportLost, match="closed"):
        transport.read(0.1)
    port.open()


def test_the_old_name_may_be_another_s_and_two_devices_never_share_one():
    bus = VirtualBus(seed=3)
    ports = [
        bus.add(f"esp32c3?kind=usb-jtag&mac=24:6F:28:00:00:{number:02x}") for number in range(4)
    ]
    taken_over = 0
    for _ in range(40):
        for at, port in enumerate(ports):
            transport = port.open()
            reset(transport)
            transport.close()
            ports[at] = port.wait_back(2.0)
            paths = [one.path for one in bus.enumerate()]
            assert len(set(paths)) == len(paths) == 4
            assert ports[at].identity.serial == port.identity.serial
            taken_over += bus.devices[at - 1].paths[-1] == port.identity.path
    assert len(set(bus.devices[0].paths)) > 3
    assert all(one.path != "" for one in bus.enumerate())


def test_the_same_seed_gives_the_same_names():
    def names(seed):
        bus = VirtualBus(seed=seed)
        port = bus.add(JTAG)
        for _ in range(10):
            reset(port.open())
            port = port.wait_back(2.0)
        return bus.devices[0].paths, bus.now

    assert names(5) == names(5)
    assert names(5) != names(6)


def test_two_devices_share_one_clock():
    bus = VirtualBus()
    one, two = bus.add(BRIDGED).open(), bus.add(f"{BRIDGED}&boot=app").open()
    one.sleep(3.0)
    assert two.now() == pytest.approx(3.0)
    assert b"invalid header" in two.read(0.0)
    two.sleep(1.0)
    assert one.now() == bus.now == pytest.approx(4.0)


def test_cancelling_works_with_and_without_the_device():
    bus = VirtualBus()
    port = bus.add(JTAG)
    token = CancelToken()
    transport = port.open(cancel=token)
    token.cancel()
    for use in (
        lambda: transport.read(1.0),
        lambda: transport.sleep(1.0),
        lambda: transport.write(b"x", 9.0),
    ):
        with pytest.raises(Cancelled):
            use()
    reset(transport)  # lines can still be released
    with pytest.raises(Cancelled):
        transport.sleep(1.0)
    with pytest.raises(Cancelled):
        port.wait_back(1.0, cancel=token)


# --- command lines on it ---


class Desk:
    """A bus in place of the system's ports, and the program run on it."""

    def __init__(self, monkeypatch, capsys):
        self.bus, self.capsys, self.extra, self.opened = VirtualBus(seed=2), capsys, [], []
        monkeypatch.setattr("espwire.transport.ports.list_system_ports", self.list)
        for module in ("ports", "url"):
            monkeypatch.setattr(f"espwire.transport.{module}.open_transport", self.open)
        for name, value in {"clock": lambda: self.bus.now, "sleep": self.bus.sleep}.items():
            monkeypatch.setitem(SystemPort.__init__.__kwdefaults__, name, value)

    def list(self):
        return (*self.bus.enumerate(), *self.extra)

    def open(self, path, *, baud=115200, cancel=None):
        self.opened.append(path)
        return self.bus.open_path(path, baud, cancel)

    def run(self, *words, code=0):
        """Standard output and error of a run that ends with ``code``."""
        got = main([*words])
        out, err = self.capsys.readouterr()
        assert got == code, (got, out, err)
        assert "Traceback" not in out + err
        return out, err


@pytest.fixture
def desk(monkeypatch, capsys):
    return Desk(monkeypatch, capsys)


@pytest.mark.parametrize("board", [JTAG, BRIDGED])
def test_the_one_board_needs_no_port(desk, board):
    desk.extra.append(PortIdentity("/dev/ttyS0"))
    desk.bus.add(board)
    out, _ = desk.run("read-mac")
    assert f"MAC: {MAC.lower()}" in out
    path = desk.bus.enumerate()[0].path
    events = [json.loads(line) for line in desk.run("--json", "read-mac")[0].splitlines()]
    assert {event["device"] for event in events} == {path}


def test_of_several_none_is_touched_until_one_is_meant(desk):
    desk.bus.add(JTAG)
    desk.bus.add(f"esp32?profile=instant&mac={OTHER}")
    out, err = desk.run("read-mac", code=2)
    assert "2 ports match [several-ports]" in err
    assert "/dev/ttyACM0 (ESP chip's built-in USB (Serial/JTAG), 24:6F:28:AA:BB:CC)" in err
    assert desk.opened == []
    for words in (
        ["--port-filter", "vid=0x10C4", "pid=60000", "read-mac"],
        ["read-mac", "--port-filter", "name=usb"],
        ["--port-filter", "vid=0x10C4", "read-mac", "--port_filter=serial=b00000"],
        ["--port", "B0000001", "read-mac"],
        ["-p", "/dev/ttyUSB0", "read-mac"],
    ):
        out, _ = desk.run(*words)
        assert f"MAC: {OTHER.lower()}" in out
    assert set(desk.opened) == {"/dev/ttyUSB0"}
    assert (
        "does not match the filter"
        in desk.run("--port-filter", "vid=1", "--", "read-mac", code=3)[1]
    )
    assert "[port-filter]" in desk.run("--port-filter", "speed=1", "read-mac", code=2)[1]


def test_an_unknown_port_is_not_touched_without_consent(desk):
    desk.bus.add(BRIDGED, ids=(0x1199, 0x9071))
    _, err = desk.run("read-mac", code=3)
    assert "unknown USB device, used only with --any-port" in err
    assert desk.opened == []
    assert MAC.lower() in desk.run("--any-port", "read-mac")[0]


def test_a_mac_seen_before_is_a_port_wherever_it_is_now(desk):
    desk.bus.add(BRIDGED)
    _, err = desk.run("-p", MAC, "read-mac", code=3)
    assert "[mac-not-found]" in err
    desk.run("--no-state", "read-mac")
    desk.run("-p", MAC, "read-mac", code=3)
    desk.run("read-mac")
    device = desk.bus.devices[0]
    desk.bus.lose(device.path)
    desk.bus.add(f"esp32?profile=instant&mac={OTHER}")  # takes the free name
    desk.bus.plug(device)
    assert device.path == "/dev/ttyUSB1"
    for spelling in (MAC, MAC.lower(), MAC.replace(":", "-"), MAC.replace(":", "")):
        assert MAC.lower() in desk.run("-p", spelling, "read-mac")[0]
    assert "[mac-not-found]" in desk.run("--no-state", "-p", MAC, "read-mac", code=3)[1]


def test_a_mac_never_leads_to_another_board_on_the_same_adapter(desk):
    desk.bus.add(BRIDGED, serial="A1")
    desk.run("read-mac")
    desk.bus.lose("/dev/ttyUSB0")
    desk.bus.add(f"esp32?profile=instant&boot=app&mac={OTHER}", serial="A1")
    out, err = desk.run("-p", MAC, "read-mac", code=4)
    assert "MAC: " not in out
    assert f"has the MAC address {OTHER.lower()}, not {MAC} [wrong-board]" in err
    desk.bus.sleep(1.0)
    assert desk.bus.devices[1].chip.state is State.APP


def test_a_chip_with_its_own_usb_is_found_by_its_mac_at_once(desk):
    desk.bus.add(JTAG)
    desk.bus.add(f"esp32c3?kind=usb-jtag&profile=instant&mac={OTHER}")
    for mac in (MAC, OTHER):
        for _ in range(3):  # under a new name each time
            assert mac.lower() in desk.run("-p", mac.lower(), "read-mac")[0]


def test_two_ports_with_one_serial_number_are_told(desk):
    desk.bus.add(BRIDGED, serial="0001")
    desk.bus.add(BRIDGED, serial="0001")
    _, err = desk.run("-p", "0001", "read-mac", code=2)
    assert "2 ports have the serial number 0001 [several-ports]" in err
    assert "/dev/ttyUSB0, /dev/ttyUSB1" in err


def test_ports_are_listed_and_none_is_opened(desk, monkeypatch):
    from espwire.transport.open_errors import Holder

    monkeypatch.setattr(
        "espwire.transport.open_errors.find_holders",
        lambda paths: {"/dev/ttyUSB0": Holder(42, "picocom")},
    )
    desk.extra.append(PortIdentity("/dev/ttyS0"))
    desk.bus.add(BRIDGED)
    desk.bus.add(JTAG)
    out, _ = desk.run("ports")
    lines = [line.split("  ") for line in out.splitlines()]
    assert [line[0] for line in lines] == ["port", "/dev/ttyACM0", "/dev/ttyUSB0", "/dev/ttyS0"]
    assert "picocom (42)" in out
    assert "303a:1001" in out
    rows = json.loads(desk.run("--json", "ports")[0])["data"]["ports"]
    assert rows[1] == {
        "path": "/dev/ttyUSB0",
        "vid": 0x10C4,
        "pid": 0xEA60,
        "serial": "B0000000",
        "location": "1-1",
        "description": "CP2102N USB to UART Bridge Controller",
        "manufacturer": "Silicon Labs",
        "board": "board with a CP2102 / CP2102N / CP2104",
        "known": True,
        "holder": {"pid": 42, "name": "picocom"},
    }
    assert [row["known"] for row in rows] == [True, True, False]
    assert [row["holder"] for row in rows] == [None, rows[1]["holder"], None]
    only = json.loads(desk.run("--json", "ports", "--port-filter", "vid=0x303A", "pid=4097")[0])[
        "data"
    ]["ports"]
    assert [row["path"] for row in only] == ["/dev/ttyACM0"]
    assert (
        "No port matches the filter (3 excluded)." in desk.run("ports", "--port-filter", "vid=1")[0]
    )
    desk.bus.devices.clear()
    desk.extra.clear()
    assert "No serial port found." in desk.run("ports")[0]
    assert desk.opened == []


def resets(text):
    """The sequences into the loader that a run with --json tried."""
    events = [json.loads(line) for line in text.splitlines()]
    return [
        event["how"]
        for event in events
        if event["event"] == "Resetting" and event["into"] == "loader"
    ]


def test_the_reset_that_worked_at_an_adapter_is_tried_first_next_time(desk):
    from espwire.cli.state import State, find_state_file

    desk.bus.add(f"{BRIDGED}&boot=app&rc=0.3")  # a capacitor that only the long sequences wait for
    first = resets(desk.run("--json", "read-mac")[0])
    assert len(first) > 1
    assert resets(desk.run("--json", "--no-state", "read-mac")[0]) == first
    assert resets(desk.run("--json", "read-mac")[0]) == first[-1:]
    noted = State(find_state_file(), lambda event: None)
    assert noted.best_sequence(desk.bus.enumerate()[0].key) == first[-1]
    # another adapter is another matter
    desk.bus.lose("/dev/ttyUSB0")
    desk.bus.add(f"{BRIDGED}&boot=app&rc=0.3")
    assert resets(desk.run("--json", "read-mac")[0]) == first


@pytest.mark.parametrize("noted", ["nonsense", "D1|W10", "usb_jtag", "classic", ""])
def test_whatever_is_remembered_the_result_is_the_same(desk, noted):
    from espwire.cli.state import State, find_state_file

    desk.bus.add(f"{BRIDGED}&boot=app")
    State(find_state_file(), lambda event: None).note_sequence(desk.bus.enumerate()[0].key, noted)
    assert f"MAC: {MAC.lower()}" in desk.run("read-mac")[0]


def test_a_broken_state_file_is_told_and_no_more(desk):
    from espwire.cli.state import find_state_file

    file = find_state_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{", "utf-8")
    desk.bus.add(BRIDGED)
    out, err = desk.run("read-mac")
    assert f"MAC: {MAC.lower()}" in out
    assert "[state-unreadable]" in err
    assert desk.run("read-mac")[1] == ""
