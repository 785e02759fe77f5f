"""Gets a chip into its loader: resets by one sequence after the other, syncs, follows its port. Identifies nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from espwire.chips.model import Chip
from espwire.device.connect_history import Memory, memory_key
from espwire.device.diagnose import diagnose, examine
from espwire.device.loader import PAUSE_BETWEEN_SYNCS, Loader
from espwire.device.reconnect import PortTracker, is_native_usb
from espwire.device.reset_sequences import (
    CUSTOM,
    SHORT_LOW_S,
    Before,
    Sequence,
    find_or_parse,
    find_reset_low,
    find_sequence,
    play,
    release,
    sequence_names,
)
from espwire.device.stub_commands import ask_capabilities
from espwire.errors import ConnectError, DeviceError, NoReply, TransportLost
from espwire.events import Connecting, Note, Report, Resetting
from espwire.protocol.boot_log import parse_boot, says_waiting
from espwire.protocol.commands import GetSecurityInfo
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import NOT_ACCEPTED
from espwire.settings import Settings
from espwire.transport.base import TransportInfo

# from the end of the boot text until the loader surely listens: it has gone on while its FIFO was sent
READY_S = 0.002
BOOT_TEXT_BYTES = 0x400
PROBE_PATIENCE_S = 0.5


@dataclass(frozen=True)
class Way:
    """A reset sequence by its name."""

    name: str
    steps: Sequence


@dataclass(frozen=True, kw_only=True)
class Entrance:
    """What getting in needs to know beside the loader. ``reset`` replaces the port's own sequences."""

    before: Before = "default-reset"
    reset: Sequence | str | None = None
    named: Chip | None = None
    memory: Memory | None = None
    tracker: PortTracker
    report: Report


def plan_ways(
    info: TransportInfo,
    before: Before,
    settings: Settings,
    *,
    reset: Sequence | str | None = None,
    remembered: str | None = None,
) -> tuple[Way, ...]:
    """The ways into the loader to try in turn, the remembered one first; empty where none is wanted or possible.

    :param reset: a sequence of the caller's: its steps, its name, or the small language; the only one then
    :raises UsageError: code ``reset-sequence``
    """
    delay = settings.timing.reset_delay
    names = sequence_names(info, before)
    if reset is None and before == "default-reset":
        reset = settings.custom_reset_sequence or None
    if reset is not None:
        steps = find_or_parse(reset, info, delay) if isinstance(reset, str) else reset
        return (Way(CUSTOM, steps),) if names else ()
    if remembered in names:
        names = (remembered, *(name for name in names if name != remembered))
    return tuple(Way(name, find_sequence(name, info, delay)) for name in names)


def reach_loader(loader: Loader, entrance: Entrance) -> bool:
    """Reset as ``entrance.before`` says and sync, ``settings.retry.connect_attempts`` times with the port's ways in turn.

    Returns whether a stub answers: ours, where no reset is wanted, or another one that could not be reset away.

    :raises UsageError: code ``reset-sequence``: a custom sequence makes no sense
    :raises ConnectError: whatever ``diagnose`` finds
    """
    key, memory = memory_key(loader.transport.info), entrance.memory
    remembered = memory.best_sequence(key) if memory is not None else None

    def plan(before: Before) -> tuple[Way, ...]:
        return plan_ways(
            loader.transport.info,
            before,
            loader.settings,
            reset=entrance.reset,
            remembered=remembered,
        )

    ways = plan(entrance.before)
    if entrance.before == "no-reset-no-sync":
        return _is_stub(loader)
    try:
        value, name = _sync_with(loader, ways, entrance)
        others = plan("default-reset") if value == 0 and not ways else ()
        if others and ask_capabilities(loader) is None:
            ways = others
            entrance.report(
                Note(
                    text="a stub of an earlier session is running: resetting the chip into its ROM"
                )
            )
            value, name = _sync_with(loader, ways, entrance)
    except BaseException:
        if ways:
            release(loader.transport)  # also what looked for the cause may have been cut short
        raise
    if value == 0:
        return True
    if memory is not None and name not in ("", CUSTOM) and name != remembered:
        memory.note_sequence(key, name)
    return False


def _is_stub(loader: Loader) -> bool:
    """Whether a stub answers, where no SYNC may tell: two status bytes, but no ESP8266's refusal."""
    try:
        body = loader.exchange(
            Op.GET_SECURITY_INFO, GetSecurityInfo().packet(), PROBE_PATIENCE_S
        ).body
    except (NoReply, DeviceError):
        return False
    return len(body) % 4 == 2 and body[:2] != bytes((1, NOT_ACCEPTED))


def _sync_with(loader: Loader, ways: tuple[Way, ...], entrance: Entrance) -> tuple[int, str]:
    """The value in the answer to SYNC, and the name of the way that led to it (empty without a reset)."""
    tracker, attempts, stub, spoke = (
        entrance.tracker,
        loader.settings.retry.connect_attempts,
        "",
        False,
    )
    for attempt in range(attempts):
        way = ways[attempt % len(ways)] if ways else None
        limit = attempts if attempts < sys.maxsize else 0
        entrance.report(
            Connecting(attempt=attempt + 1, attempts=limit, how=way.name if way is not None else "")
        )
        try:
            if way is not None:
                entrance.report(Resetting(how=way.name, into="loader"))
                tracker.reset_low, spoke = None, _reset(loader, way, listen=attempt == 0)
            value = _sync(loader)
            if way is not None and value and (spoke or parse_boot(loader.text) is not None):
                tracker.reset_low = max(find_reset_low(way.steps), SHORT_LOW_S)
        except TransportLost as error:
            tracker.reopen(loader, error)
            value = _sync_back(loader)
        if value or (value == 0 and way is None):
            return value, way.name if way is not None else ""
        if value == 0 and way is not None:
            stub = way.name  # it was not reset: another sequence may do better
            if attempt + 1 >= len(ways):
                return 0, stub
        elif way is not None and tracker.port is not None and is_native_usb(loader.transport.info):
            _look_again(loader, tracker)
    raise _explain(loader, ways, entrance)


def _reset(loader: Loader, way: Way, *, listen: bool) -> bool:
    """Reset; whether the chip was heard then. One that says nothing may still be in the loader that it was in before.

    :param listen: do not hold the boot pin any longer than until the chip says that it is in its loader; only for the
        first attempt, since a chip on a slow line may say late what was true before
    """
    loader.forget_input()
    heard = b""

    def hold(seconds: float) -> None:
        nonlocal heard
        heard = _hold(loader, seconds)

    exact = not listen or way.name == CUSTOM or is_native_usb(loader.transport.info)
    play(loader.transport, way.steps, None if exact else hold)
    return bool(loader.listen() or heard)


def _hold(loader: Loader, seconds: float) -> bytes:
    """Wait while the boot pin is held, at most until the chip's boot text shows that it has looked at it.

    Returns what came, but for what was under way before.
    """
    transport = loader.transport
    deadline, heard = transport.now() + seconds, b""
    loader.listen()
    while (left := deadline - transport.now()) > 0:
        heard += loader.listen(left)
        if says_waiting(heard[-BOOT_TEXT_BYTES:].decode("latin-1")):
            transport.sleep(min(READY_S, max(deadline - transport.now(), 0.0)))
            break
    return heard


def _sync(loader: Loader) -> int | None:
    """SYNC several times; None: no answer. A chip that says that it starts its application is not asked on."""
    for attempt in range(loader.settings.retry.syncs_per_attempt):
        if attempt:
            loader.transport.sleep(PAUSE_BETWEEN_SYNCS)
        try:
            return loader.sync(1)
        except NoReply:
            boot = parse_boot(loader.text)
            if boot is not None and not boot.download:
                return None
    return None


def _sync_back(loader: Loader) -> int | None:
    """SYNC over a link that was just opened again; if that goes away too, the next attempt will see."""
    try:
        return _sync(loader)
    except TransportLost:
        return None


def _look_again(loader: Loader, tracker: PortTracker) -> None:
    """A port of native USB that stays silent may be the ghost of one that is gone: open it anew."""
    tracker.reopen(loader)


def _explain(loader: Loader, ways: tuple[Way, ...], entrance: Entrance) -> ConnectError:
    reset: Callable[[], None] | None = None
    if ways:
        steps = ways[0].steps

        def reset() -> None:
            loader.forget_input()
            play(loader.transport, steps)

    used = ways[: loader.settings.retry.connect_attempts]
    evidence = examine(
        loader,
        sequences=tuple(way.name for way in used),
        chip=entrance.named,
        reset=reset,
        report=entrance.report,
    )
    return diagnose(evidence)
