"""Following a device through names that change: who is the same, and how long to wait. The list and the clock are fake."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.errors import Cancelled, PortNotFound
from espwire.transport.base import CancelToken
from espwire.transport.ports import PortIdentity, SystemPort, find_same

MAC, OTHER_MAC = "24:6F:28:AA:BB:CC", "24:6F:28:00:00:01"
CHIP = PortIdentity("/dev/ttyACM0", 0x303A, 0x1001, MAC, "1-1")
ROM = PortIdentity("/dev/ttyACM0", 0x303A, 0x0002, "0", "1-1")
APP = PortIdentity("/dev/ttyACM3", 0x303A, 0x4001, "123456", "1-1:1.0")
PLAIN = PortIdentity("/dev/ttyUSB0", 0x1A86, 0x7523)


def moved(identity, path, **changes):
    return replace(identity, path=path, **changes)


@pytest.mark.parametrize(
    ("known", "there", "found"),
    [
        # by serial number: whatever the path and the place
        (CHIP, [moved(CHIP, "/dev/ttyACM5", location="3-2")], 0),
        (
            CHIP,
            [
                moved(CHIP, "/dev/ttyACM0", serial=OTHER_MAC, location="1-2"),
                moved(CHIP, "/dev/ttyACM1"),
            ],
            1,
        ),
        (CHIP, [moved(CHIP, "/dev/ttyACM1", serial=MAC.lower().replace(":", ""))], 0),
        # another chip took the name and even the place
        (CHIP, [moved(CHIP, "/dev/ttyACM0", serial=OTHER_MAC)], None),
        # so did a board with a bridge
        (CHIP, [moved(PLAIN, "/dev/ttyUSB0", location="1-1")], None),
        (moved(PLAIN, "/dev/ttyUSB0", location="1-1"), [CHIP], None),
        # the application has a serial number of its own: by place
        (CHIP, [moved(APP, "/dev/ttyACM2")], 0),
        (APP, [moved(ROM, "/dev/ttyACM7", location="1-2"), moved(ROM, "/dev/ttyACM8")], 1),
        # all ROMs of one kind say "0": by place, never by that
        (ROM, [moved(ROM, "/dev/ttyACM1", location="1-2")], None),
        (ROM, [moved(ROM, "/dev/ttyACM1", location="1-2"), moved(ROM, "/dev/ttyACM2")], 1),
        # no serial number and no place: by ids, if only one has them
        (PLAIN, [moved(PLAIN, "/dev/ttyUSB4")], 0),
        (PLAIN, [moved(PLAIN, "/dev/ttyUSB4"), moved(PLAIN, "/dev/ttyUSB5")], None),
        (PLAIN, [CHIP], None),
        # a device with two ports
        (
            moved(CHIP, "/dev/ttyACM0", location="1-1:1.2"),
            [
                moved(CHIP, "/dev/ttyACM4", location="1-1:1.0"),
                moved(CHIP, "/dev/ttyACM5", location="1-1:1.2"),
            ],
            1,
        ),
        # not USB: the path is all there is
        (PortIdentity("/dev/ttyS0"), [PortIdentity("/dev/ttyS1"), PortIdentity("/dev/ttyS0")], 1),
        (PortIdentity("/dev/ttyS0"), [CHIP], None),
    ],
)
def test_the_same_device_is_known_again(known, there, found):
    assert find_same(known, there) == (None if found is None else there[found])


IDS = st.sampled_from(
    [(None, None), (0x303A, 0x1001), (0x303A, 0x0002), (0x303A, 0x4001), (0x1A86, 0x7523)]
)
IDENTITIES = st.builds(
    lambda path, ids, serial, location: PortIdentity(path, *ids, serial, location),
    st.sampled_from([f"/dev/tty{number}" for number in range(6)]),
    IDS,
    st.sampled_from(["", "0", "123456", MAC, OTHER_MAC]),
    st.sampled_from(["", "1-1", "1-1:1.0", "1-1:1.2", "1-2"]),
)
LISTS = st.lists(IDENTITIES, max_size=5, unique_by=lambda one: one.path)


@given(IDENTITIES, LISTS)
def test_nobody_is_taken_who_is_surely_another(known, there):
    found = find_same(known, there)
    if found is None:
        return
    assert found in there
    if known.vid is None:  # nothing but a path was known
        assert found.path == known.path
        return
    assert found.vid is not None
    if found.serial != known.serial:
        assert "" in (found.serial, known.serial) or found.ids != known.ids
    if found.ids != known.ids and found.serial != known.serial:
        assert found.location.partition(":")[0] == known.location.partition(":")[0] != ""


@given(IDENTITIES, LISTS)
def test_the_order_of_the_list_does_not_matter(known, there):
    assert find_same(known, there) == find_same(known, there[::-1])


class Bus:
    """A clock, and a list that depends on it: ``(from, identities)`` in order."""

    def __init__(self, *scenes):
        self.now, self.scenes, self.opened = 0.0, scenes, []

    def list(self):
        return [scene for at, scene in self.scenes if at <= self.now][-1]

    def sleep(self, seconds):
        self.now += seconds

    def port(self, identity):
        return SystemPort(
            identity,
            lister=self.list,
            opener=lambda path, baud, cancel: self.opened.append((path, baud)),
            clock=lambda: self.now,
            sleep=self.sleep,
        )


def test_waiting_ends_soon_after_the_device_is_back_under_its_new_name():
    bus = Bus((0, [CHIP]), (0.02, []), (0.7, [PLAIN, moved(CHIP, "/dev/ttyACM1")]))
    back = bus.port(CHIP).wait_back(5.0)
    assert back.identity.path == "/dev/ttyACM1"
    assert 0.7 <= bus.now < 0.9
    back.open(baud=9600)
    assert bus.opened == [("/dev/ttyACM1", 9600)]


def test_a_device_that_is_about_to_go_is_not_taken_for_back():
    bus = Bus((0, [CHIP]), (0.04, []), (0.3, [CHIP]))
    assert bus.port(CHIP).wait_back(5.0).identity == CHIP
    assert bus.now >= 0.3


def test_a_device_that_stays_away_is_told_with_its_name():
    bus = Bus((0, []))
    with pytest.raises(PortNotFound) as caught:
        bus.port(CHIP).wait_back(2.0)
    assert caught.value.code == "port-not-back"
    assert MAC in str(caught.value)
    assert bus.now == pytest.approx(2.0, abs=0.1)


def test_following_goes_on_from_name_to_name():
    scenes = [(at, [moved(CHIP, f"/dev/ttyACM{at}")]) for at in range(5)]
    bus = Bus(*scenes)
    port = bus.port(CHIP)
    for at in range(5):
        bus.now = max(bus.now, float(at))
        port = port.wait_back(0.5)
        assert port.identity.path == f"/dev/ttyACM{at}"


def test_waiting_can_be_cancelled():
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        Bus((0, [])).port(CHIP).wait_back(5.0, cancel=cancel)


def test_library_and_list_remember_an_adapter_by_the_same_key():
    from espwire.device.enter_bootloader import adapter_key
    from espwire.transport.base import TransportInfo

    for one in (CHIP, ROM, PLAIN, PortIdentity("/dev/ttyS0")):
        info = TransportInfo(
            name=one.path, kind="uart", vid=one.vid, pid=one.pid, serial=one.serial
        )
        assert adapter_key(info) == one.key
