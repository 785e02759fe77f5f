"""Brings a chip into its ROM bootloader: reset sequences, SYNC, and a port that a reset may take away.

A chip starts its bootloader instead of the application if the boot pin (usually GPIO0 or GPIO9) is low when the chip
leaves reset. Development boards connect DTR and RTS of their USB bridge to the boot pin and the enable pin by two
transistors, so a *reset sequence* of line changes and waits does what a person does with two buttons. Boards differ in
their capacitors and bridges in their timing; therefore there are several sequences, and one attempt is:

1. Forget all input, play the next sequence (``reset_sequences``). In the first attempt, boot text is read while the boot
   pin is held: "waiting for download" ends the wait early.
2. Send SYNC, up to ``syncs_per_attempt`` times. Boot text that names another boot mode ends this at once.
3. A reply whose value is not 0 comes from a ROM: done. The value 0 comes from a stub, which means that the reset did not
   reach the chip: the next sequence may. If none does, the stub is used as it is.
4. Native USB leaves the bus with the reset: ``PortTracker.reopen`` waits for the device and the SYNC is repeated.

After ``connect_attempts`` of these, ``diagnose`` looks for the cause.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from espwire.chips.model import Chip
from espwire.device.backends.stub_commands import ask_capabilities
from espwire.device.diagnose import diagnose, examine
from espwire.device.loader import PAUSE_BETWEEN_SYNCS, Loader
from espwire.device.reconnect import PortTracker, is_native_usb
from espwire.device.reset_sequences import (
    CUSTOM,
    Before,
    Sequence,
    find_or_parse,
    find_reset_low,
    find_sequence,
    find_shortest_low,
    play,
    release,
    sequence_names,
)
from espwire.errors import ConnectError, DeviceError, NoReply, TransportLost
from espwire.events import Connecting, Note, Report, Resetting
from espwire.protocol.boot_log import is_waiting_for_download, parse_boot
from espwire.protocol.commands import GetSecurityInfo
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import NOT_ACCEPTED
from espwire.settings import Settings
from espwire.transport.base import TransportInfo

# from the end of the boot text until the loader certainly listens
READY_S = 0.002
BOOT_TEXT_BYTES = 0x400
PROBE_PATIENCE_S = 0.5


class ConnectHistory(Protocol):
    """What earlier sessions found out. It changes the order of attempts and so their speed, never the result.

    Losing it costs time only, so its methods must not raise.
    """

    def best_sequence(self, key: str) -> str | None:
        """The name of the reset sequence that worked last at this adapter."""

    def note_sequence(self, key: str, name: str) -> None:
        """This sequence worked at this adapter."""

    def note_device(self, mac: str, key: str) -> None:
        """The chip with this MAC is connected to this adapter."""

    def find_rate(self, key: str) -> int | None:
        """The baud rate that was stable last for this adapter, chip and direction."""

    def note_rate(self, key: str, rate: int) -> None:
        """This baud rate was stable."""


def adapter_key(info: TransportInfo) -> str:
    """Stable key of an adapter: VID:PID:serial, else its path; the same as ``PortIdentity.key``."""
    return info.name if info.vid is None else f"{info.vid:04X}:{info.pid or 0:04X}:{info.serial}"


@dataclass(frozen=True)
class NamedSequence:
    """A reset sequence by its name."""

    name: str
    steps: Sequence


@dataclass(frozen=True, kw_only=True)
class EntryOptions:
    """How to enter the bootloader. ``reset`` replaces the port's own sequences."""

    before: Before = "default-reset"
    reset: Sequence | str | None = None
    expected: Chip | None = None
    history: ConnectHistory | None = None
    tracker: PortTracker
    report: Report


def plan_sequences(
    info: TransportInfo,
    before: Before,
    settings: Settings,
    *,
    reset: Sequence | str | None = None,
    remembered: str | None = None,
) -> tuple[NamedSequence, ...]:
    """The sequences to try in turn, the remembered one first; empty if the chip must not or cannot be reset.

    :param reset: the only sequence to try: its steps, its name, or text for ``parse_sequence``
    :raises UsageError: code ``reset-sequence``
    """
    delay = settings.timing.reset_delay
    names = sequence_names(info, before)
    if reset is None and before == "default-reset":
        reset = settings.custom_reset_sequence or None
    if reset is not None:
        steps = find_or_parse(reset, info, delay) if isinstance(reset, str) else reset
        return (NamedSequence(CUSTOM, steps),) if names else ()
    if remembered in names:
        names = (remembered, *(name for name in names if name != remembered))
    return tuple(NamedSequence(name, find_sequence(name, info, delay)) for name in names)


def enter_bootloader(loader: Loader, options: EntryOptions) -> bool:
    """Reset as ``options.before`` demands and sync, with the port's sequences in turn.

    Returns whether a stub answers: because no reset was wanted, or because no reset reached the chip.

    :raises UsageError: code ``reset-sequence``: a custom sequence makes no sense
    :raises ConnectError: whatever ``diagnose`` finds
    """
    key, history = adapter_key(loader.transport.info), options.history
    remembered = history.best_sequence(key) if history is not None else None

    def plan(before: Before) -> tuple[NamedSequence, ...]:
        return plan_sequences(
            loader.transport.info,
            before,
            loader.settings,
            reset=options.reset,
            remembered=remembered,
        )

    sequences = plan(options.before)
    if options.before == "no-reset-no-sync":
        return _is_stub(loader)
    try:
        value, name = _sync_with(loader, sequences, options)
        others = plan("default-reset") if value == 0 and not sequences else ()
        if others and ask_capabilities(loader) is None:
            sequences = others
            options.report(
                Note(
                    text="a stub from an earlier session is running: resetting the chip into its ROM bootloader"
                )
            )
            value, name = _sync_with(loader, sequences, options)
    except BaseException:
        if sequences:
            release(loader.transport)  # also what looked for the cause may have been cut short
        raise
    if value == 0:
        return True
    if history is not None and name not in ("", CUSTOM) and name != remembered:
        history.note_sequence(key, name)
    return False


def _is_stub(loader: Loader) -> bool:
    """Whether a stub answers, found without SYNC: it sends two status bytes, and not the ESP8266's refusal."""
    try:
        body = loader.exchange(
            Op.GET_SECURITY_INFO, GetSecurityInfo().packet(), PROBE_PATIENCE_S
        ).body
    except (NoReply, DeviceError):
        return False
    return len(body) % 4 == 2 and body[:2] != bytes((1, NOT_ACCEPTED))


def _sync_with(
    loader: Loader, sequences: tuple[NamedSequence, ...], options: EntryOptions
) -> tuple[int, str]:
    """The value in the reply to SYNC, and the name of the sequence that led to it (empty without a reset)."""
    tracker, attempts = options.tracker, loader.settings.retry.connect_attempts
    printed_text = False
    for attempt in range(attempts):
        sequence = sequences[attempt % len(sequences)] if sequences else None
        name = sequence.name if sequence is not None else ""
        limit = attempts if attempts < sys.maxsize else 0
        options.report(Connecting(attempt=attempt + 1, attempts=limit, how=name))
        try:
            if sequence is not None:
                options.report(Resetting(how=name, into="loader"))
                tracker.reset_low = None
                printed_text = _reset(loader, sequence, listen=attempt == 0)
            value = _sync(loader)
            was_reset = printed_text or parse_boot(loader.text) is not None
            if sequence is not None and value and was_reset:
                least = find_shortest_low(loader.transport.info)
                tracker.reset_low = max(find_reset_low(sequence.steps), least)
        except TransportLost as error:
            tracker.reopen(loader, error)
            value = _sync_back(loader)
        if value or (value == 0 and sequence is None):
            return value, name
        if value == 0:  # a stub: the chip was not reset, and another sequence may do that
            if attempt + 1 >= len(sequences):
                return 0, name
        elif sequences and tracker.port is not None and is_native_usb(loader.transport.info):
            tracker.reopen(loader)  # its silence may belong to a device that has left the bus
    raise _explain(loader, sequences, options)


def _reset(loader: Loader, sequence: NamedSequence, *, listen: bool) -> bool:
    """Reset. Returns whether anything was received then: a silent chip may not have been reset at all.

    :param listen: release the boot pin as soon as the boot text shows download mode; only for the first attempt, since
        on a slow line the text may belong to an earlier reset
    """
    loader.forget_input()
    received = b""

    def hold(seconds: float) -> None:
        nonlocal received
        received = _hold(loader, seconds)

    exact = not listen or sequence.name == CUSTOM or is_native_usb(loader.transport.info)
    play(loader.transport, sequence.steps, None if exact else hold)
    return bool(loader.listen() or received)


def _hold(loader: Loader, seconds: float) -> bytes:
    """Wait while the boot pin is held, at most until the chip's boot text shows that it has looked at it.

    Returns what came; text that was under way before does not count.
    """
    transport = loader.transport
    deadline, received = transport.now() + seconds, b""
    loader.listen()
    while (left := deadline - transport.now()) > 0:
        received += loader.listen(left)
        if is_waiting_for_download(received[-BOOT_TEXT_BYTES:].decode("latin-1")):
            transport.sleep(min(READY_S, max(deadline - transport.now(), 0.0)))
            break
    return received


def _sync(loader: Loader) -> int | None:
    """SYNC several times; None: no reply. Stops early if the boot text shows that the application starts."""
    seconds = loader.settings.timing.sync
    for left in reversed(range(loader.settings.retry.syncs_per_attempt)):
        try:
            return loader.sync(1, timeout=seconds + (PAUSE_BETWEEN_SYNCS if left else 0.0))
        except NoReply:
            boot = parse_boot(loader.text)
            if boot is not None and not boot.download:
                return None
    return None


def _sync_back(loader: Loader) -> int | None:
    """SYNC over a port that was just reopened; if that goes away too, the next attempt will find out."""
    try:
        return _sync(loader)
    except TransportLost:
        return None


def _explain(
    loader: Loader, sequences: tuple[NamedSequence, ...], options: EntryOptions
) -> ConnectError:
    reset: Callable[[], None] | None = None
    if sequences:
        # the first with the longest pulse: a chip at an inverted adapter runs no longer than that
        steps = max(sequences, key=lambda sequence: find_reset_low(sequence.steps)).steps

        def reset() -> None:
            loader.forget_input()
            play(loader.transport, steps)

    used = sequences[: loader.settings.retry.connect_attempts]
    symptoms = examine(
        loader,
        sequences=tuple(sequence.name for sequence in used),
        chip=options.expected,
        reset=reset,
        report=options.report,
    )
    return diagnose(symptoms)
