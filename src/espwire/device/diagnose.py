"""Finds out why no loader answered.

``examine`` collects what the chip printed and listens once more; ``diagnose``, a pure function, derives the most likely
cause from that. Some causes look the same from the host's end of the cable: a chip without power, a chip that is held in
reset and a broken TX line are all silent. The hint then names all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from espwire.chips.model import Chip
from espwire.chips.registry import chip_ids, load_chip
from espwire.device.loader import Loader
from espwire.errors import ConnectError, NoReply, WrongBootMode
from espwire.events import Note, Report, silent
from espwire.protocol.boot_log import (
    POWER_ON,
    BootMessage,
    explain_strap,
    find_boots,
    find_brown_out,
    find_missing_image,
    find_panic,
    is_application_log,
    printable_share,
    wrong_pins,
)
from espwire.protocol.reply_matcher import TEXT_LIMIT
from espwire.transport.base import Transport

SHOWN_TEXT = 4096
LOOP_BOOTS = 3  # starts after one reset: the intended one, and two more
BY_HAND = (
    "Hold BOOT, press and release RESET, release BOOT, then run the command with --before no-reset."
)


def diagnose(symptoms: Symptoms) -> ConnectError:
    """The error for the most likely cause."""
    facts = _Facts(symptoms)
    for find in (
        _rom_crash,
        _brown_out,
        _held,
        _rx_broken,
        _crash_loop,
        _wrong_mode,
        _wrong_baud,
        _application,
        _noise,
        _silence,
    ):
        error = find(facts)
        if error is not None:
            return error
    raise AssertionError("unreachable: _silence always applies")


class _Facts:
    """What the symptoms contain: boot messages, the chip that they name, other text."""

    def __init__(self, symptoms: Symptoms) -> None:
        self.symptoms = symptoms
        self.rate, other = _best_rate(symptoms.at_rates)
        texts = [readable(data) for data in symptoms.attempts] or [symptoms.text]
        after = readable(symptoms.after)
        if find_boots(other) or find_missing_image(other):
            texts = [readable(data) for data in symptoms.rounds] or [
                other
            ]  # a ROM at its own rate: this is what came
            after = ""
        self.texts, self.after = texts, after
        self.text = "\n".join([*texts, after])
        self.other = other
        self.boots = tuple(find_boots(text) for text in texts)
        self.later = find_boots(after)
        self.all_boots = (*(boot for boots in self.boots for boot in boots), *self.later)
        self.last = self.all_boots[-1] if self.all_boots else None
        self.chip = symptoms.chip or _chip_of(self.last)

    @property
    def en_works(self) -> bool:
        """Whether our resets reach the chip: after most of them it starts with the reset reason of the enable pin."""
        ours = [
            boots
            for boots, text in zip(self.boots, self.texts, strict=True)
            if boots
            and _is_pin_reset(boots[0])
            and not find_panic(text.partition(boots[0].text)[0])
        ]
        return self.symptoms.was_reset and 2 * len(ours) > len(self.boots)

    @property
    def loops(self) -> bool:
        """Whether the chip keeps resetting by itself."""
        extra = LOOP_BOOTS if self.symptoms.was_reset else LOOP_BOOTS - 1
        unasked = self.later or any(len(boots) >= extra for boots in self.boots)
        return bool(unasked) or (not self.en_works and len(self.all_boots) > 1)

    def details(self, **more: Any) -> dict[str, Any]:
        """Details that every error has."""
        symptoms = self.symptoms
        found: dict[str, Any] = {"sequences": list(symptoms.sequences), "baud": symptoms.baud}
        if self.rate is not None:
            found["guessed_baud"] = self.rate
        if self.last is not None:
            found |= {
                "strap": self.last.strap,
                "mode": self.last.mode,
                "reset_reason": self.last.reset_reason,
            }
            found["boots"] = len(self.all_boots)
        if self.chip is not None:
            found["chip"] = self.chip.id
        shown = self.text if self.text.strip() else symptoms.text
        return found | {"boot_text": (self.other or shown)[-SHOWN_TEXT:]} | more


def _rom_crash(facts: _Facts) -> ConnectError | None:
    found = re.search("virtual chip: (the ROM crashed .*)", facts.text)
    if found is None:
        return None
    return ConnectError(
        f"{found[1].strip()}: the virtual chip's ROM image does not work",
        hint="Check that rom= names a complete image of this chip's ROM.",
        code="rom-crashed",
        **facts.details(),
    )


def _held(facts: _Facts) -> ConnectError | None:
    symptoms = facts.symptoms
    output = symptoms.before + b"".join(symptoms.attempts[:1])
    silent_since = not any(symptoms.attempts[1:])
    if not output or not silent_since or symptoms.after or facts.all_boots:
        output = b""
    if output and symptoms.restarted == b"" and len(symptoms.while_held) < LEAST_GARBAGE:
        return NoReply(
            "the chip was running before the reset and has been silent since: it stays in reset",
            hint="The enable pin stays low: check its pull-up (10 kΩ to 3.3 V) and what is connected to it.",
            code="held-in-reset",
            **facts.details(),
        )
    if len(symptoms.while_held) < LEAST_GARBAGE:
        return None
    return NoReply(
        "the chip runs only while RTS is asserted: the adapter's lines are inverted and hold it in reset",
        hint="Set the adapter's RTS and DTR to the usual polarity, or unplug both and use the buttons.",
        code="held-in-reset",
        **facts.details(),
    )


def _brown_out(facts: _Facts) -> ConnectError | None:
    brown_outs = [text for text in (*facts.texts, facts.after) if find_brown_out(text)]
    dips = sum(boot.brown_out for boot in facts.all_boots)
    runs = zip((*facts.boots, facts.later), (*facts.texts, facts.after), strict=True)
    power_on = any(
        len(boots) >= LOOP_BOOTS
        and all(boot.reset == POWER_ON for boot in boots)
        and not find_panic(text)
        for boots, text in runs
    )
    if dips + len(brown_outs) < 2 and not power_on:
        return None
    return ConnectError(
        "the chip keeps resetting from brown-out: its supply voltage drops at every start",
        hint="Use a shorter USB cable or a stronger power supply.",
        code="brown-out-loop",
        **facts.details(),
    )


def _rx_broken(facts: _Facts) -> ConnectError | None:
    reached = [
        boot
        for boot in facts.all_boots
        if boot.download and not (facts.chip and _wrong(facts.chip, boot))
    ]
    silent_loader = (
        not any(facts.symptoms.attempts) and len(facts.symptoms.restarted or b"") >= LEAST_GARBAGE
    )
    if not reached and not silent_loader:
        return None
    return NoReply(
        "the chip is in download mode but does not receive anything",
        hint="Check the line from the host's TX to the chip's RX: it is broken, or another device drives it.",
        code="chip-does-not-hear",
        **facts.details(),
    )


def _crash_loop(facts: _Facts) -> ConnectError | None:
    panic = find_panic(facts.text)
    if not panic or facts.en_works or not (facts.loops or facts.text.count(panic) > 1):
        return None
    return ConnectError(
        f"the program in flash keeps crashing, and resetting the chip by the port's lines does not work ({panic})",
        hint=BY_HAND,
        code="crash-loop",
        **facts.details(panic=panic),
    )


def _wrong_mode(facts: _Facts) -> ConnectError | None:
    boot, missing = facts.last, find_missing_image(facts.text)
    if boot is None:
        if not missing:
            return None
        return WrongBootMode(
            f"the chip boots from flash instead of entering download mode ({missing})",
            hint=BY_HAND,
            **facts.details(),
        )
    shown = f"boot:{boot.strap:#x}" if not boot.old_form else f"boot mode:({boot.strap},…)"
    words = explain_strap(facts.chip, boot.strap)
    pins = wrong_pins(facts.chip, boot.strap) if facts.chip is not None else ()
    bad = next((pin for pin in pins if not pin.is_boot), None)
    if any(pin.is_boot for pin in pins) or facts.chip is None or not facts.chip.strapping.bits:
        pin = next(
            (f"GPIO{pin.gpio}" for pin in pins if pin.is_boot), "The boot pin (GPIO0 or GPIO9)"
        )
        wire = ": DTR does not reach it" if facts.symptoms.was_reset else ""
        what, hint = (
            "started its application instead of the bootloader",
            f"{pin} was not low at reset{wire}. {BY_HAND}",
        )
    elif bad is not None:
        what = "started in a mode other than UART download"
        hint = f"GPIO{bad.gpio} must be {'high' if bad.level else 'low'} at reset: disconnect what drives it."
    else:
        what = "started its application although its strapping pins select download mode"
        hint = "Download mode may be disabled by this chip's eFuses. If not, reset it by hand."
    wrong = [pin.gpio for pin in pins]
    return WrongBootMode(
        f"the chip {what} ({shown}: {words})", hint=hint, **facts.details(wrong_gpios=wrong)
    )


def _wrong_baud(facts: _Facts) -> ConnectError | None:
    if facts.rate is None:
        return None
    return NoReply(
        f"received text at {facts.rate} baud: the application is running, not the bootloader",
        hint=BY_HAND,
        code="wrong-baud-noise",
        **facts.details(),
    )


def _application(facts: _Facts) -> ConnectError | None:
    if is_garbage(facts.symptoms.raw) or not is_application_log(facts.text):
        return None
    why = "the reset did not reach it" if facts.symptoms.was_reset else "it was not reset"
    return NoReply(
        f"the application is running on the chip, not the bootloader: {why}",
        hint=BY_HAND,
        code="application-running",
        **facts.details(),
    )


def _noise(facts: _Facts) -> ConnectError | None:
    if not b"".join(facts.symptoms.attempts):
        return None
    return NoReply(
        "received only garbage: not readable at any common baud rate",
        hint="Check the ground connection and the chip's supply; an unconnected RX line picks up such noise.",
        code="noise",
        **facts.details(),
    )


def _silence(facts: _Facts) -> ConnectError:
    symptoms = facts.symptoms
    if symptoms.was_reset:
        hint = "Check supply, ground, EN (must be high), the line from the chip's TX, and whether this is the right port."
    else:
        hint = "Enter the bootloader by hand: hold BOOT while pressing RESET."
    return NoReply("no response from a chip at this port", hint=hint, **facts.details())


def _best_rate(at_rates: Mapping[int, bytes]) -> tuple[int | None, str]:
    """The rate at which the input is text, and that text; None if there is no such rate."""
    fits = [
        (printable_share(data), len(data), rate)
        for rate, data in at_rates.items()
        if len(data) >= LEAST_TEXT
        and (printable_share(data) >= TEXT_SHARE or find_boots(readable(data)))
    ]
    if not fits:
        return None, ""
    rate = max(fits)[2]
    return rate, readable(at_rates[rate])


def _chip_of(boot: BootMessage | None) -> Chip | None:
    if boot is None or boot.chip_id not in chip_ids():
        return None
    return load_chip(boot.chip_id)


def _wrong(chip: Chip, boot: BootMessage) -> bool:
    return bool(wrong_pins(chip, boot.strap))


def _is_pin_reset(boot: BootMessage) -> bool:
    """The enable pin: reason power-on, or external reset on the ESP8266."""
    return boot.reset == POWER_ON or (boot.old_form and boot.reset == 2)


# usual rates, the likely ones first: the ESP8266's boot text, old sketches, fast logs
OTHER_RATES = (74880, 9600, 57600, 230400, 460800, 921600, 38400, 19200, 1_500_000, 2_000_000)
BOOT_TEXT_RATE = 74880  # protocol.toml [link]: ROMs print at this or at the usual rate
LISTEN_S = 1.2  # per rate, and after a plain restart: most programs print something every second
ROUNDS, ROUND_S = 3, 0.6
ENOUGH_TEXT = 64
LEAST_TEXT = 12
TEXT_SHARE = 0.95
LEAST_GARBAGE = 6
HOLD_S = 0.25  # for a large capacitor at EN, and then the ROM's boot text
UNDER_WAY_S = 0.015  # for text that was under way when the chip was stopped


@dataclass(frozen=True, kw_only=True)
class Symptoms:
    """What was done, and what was received. Bytes are as received; ``text`` is their printable part.

    ``before``: input before the first reset; ``attempts``: after each reset; ``after``: after the last attempt.
    ``at_rates``: input at other baud rates; ``rounds``: after each of a few resets at ``BOOT_TEXT_RATE``.
    ``restarted``: input after a plain restart, None if not tried; ``while_held``: while RTS was asserted, which should
    keep the chip in reset.
    """

    raw: bytes = field(default=b"", repr=False)
    text: str = ""
    sequences: tuple[str, ...] = ()
    can_reset: bool = True
    baud: int = 115200
    chip: Chip | None = None
    attempts: tuple[bytes, ...] = ()
    before: bytes = field(default=b"", repr=False)
    after: bytes = field(default=b"", repr=False)
    at_rates: Mapping[int, bytes] = field(default_factory=dict)
    rounds: tuple[bytes, ...] = ()
    restarted: bytes | None = field(default=None, repr=False)
    while_held: bytes = field(default=b"", repr=False)

    @property
    def was_reset(self) -> bool:
        """Whether a reset was played."""
        return bool(self.sequences) and self.can_reset


def examine(
    loader: Loader,
    *,
    sequences: tuple[str, ...],
    chip: Chip | None = None,
    reset: Callable[[], None] | None = None,
    report: Report = silent,
) -> Symptoms:
    """Collect the symptoms after all attempts failed, and listen once more if that helps.

    After garbage, listens at other rates, with a few resets at the rate at which a ROM may print. After silence, or if
    the bootloader does not answer, restarts the chip once. Rate and lines are restored. Lines are changed only if
    ``sequences`` changed them before.

    :param sequences: names of the reset sequences that were played; empty if none was
    :param reset: plays one of them once more
    :raises TransportError, Cancelled: as the transport
    """
    transport = loader.transport
    *earlier, last = loader.captures
    before, attempts = (
        (earlier[0], (*earlier[1:], last)) if earlier and sequences else (b"", (*earlier, last))
    )
    received = b"".join(attempts)
    symptoms: dict[str, Any] = {}
    # native USB: a reset takes the port away, and there is no rate to be wrong
    moved = (
        bool(sequences) and transport.info.can_reset and transport.info.kind in ("uart", "virtual")
    )
    booted = bool(find_boots(readable(received)))
    after = _listen(transport, LISTEN_S, TEXT_LIMIT) if received else b""
    fell_silent = not booted and not after and not any(attempts[1:])
    if moved and (fell_silent or _reached_loader(readable(received))):
        symptoms["while_held"], symptoms["restarted"] = _restart(transport)
    gone = fell_silent and moved and not any(symptoms.values())
    if is_garbage(received) and not booted and not gone and transport.info.can_change_baud:
        report(Note(text=f"received garbage at {loader.baud} baud: listening at other rates"))
        symptoms |= _listen_at_rates(loader, reset if moved else None)
    return Symptoms(
        raw=before + received + after,
        text=readable(before + received + after),
        sequences=sequences,
        can_reset=transport.info.can_reset,
        baud=loader.baud,
        chip=chip,
        attempts=attempts,
        before=before,
        after=after,
        **symptoms,
    )


def is_garbage(data: bytes) -> bool:
    """Whether much of it is not text."""
    bad = len(data) * (1 - printable_share(data))
    return bad >= LEAST_GARBAGE and printable_share(data) < TEXT_SHARE


def readable(data: bytes) -> str:
    """The printable part, and line ends."""
    return "".join(chr(byte) for byte in data if 0x20 <= byte <= 0x7E or byte in b"\t\r\n")


def _listen_at_rates(loader: Loader, reset: Callable[[], None] | None) -> dict[str, Any]:
    """The input at each common rate, up to the first at which it is clearly text; as fields of Symptoms.

    If that text shows download mode, a plain restart at that rate follows.
    """
    transport = loader.transport
    found: dict[int, bytes] = {}
    symptoms: dict[str, Any] = {"at_rates": found}
    try:
        for rate in OTHER_RATES:
            if rate == loader.baud:
                continue
            transport.set_baud(rate)
            transport.discard_input()
            if reset is not None and rate == BOOT_TEXT_RATE:
                rounds = []
                for _ in range(ROUNDS):
                    reset()
                    rounds.append(_listen(transport, ROUND_S, TEXT_LIMIT))
                data, symptoms["rounds"] = b"".join(rounds), tuple(rounds)
                if _reached_loader(readable(data)):
                    symptoms["while_held"], symptoms["restarted"] = _restart(transport)
                elif not find_boots(readable(data)):
                    data += _listen(transport, LISTEN_S, ENOUGH_TEXT)
            else:
                data = _listen(
                    transport, LISTEN_S, TEXT_LIMIT if rate == BOOT_TEXT_RATE else ENOUGH_TEXT
                )
            found[rate] = data
            if len(data) >= LEAST_TEXT and (
                printable_share(data) == 1.0 or find_boots(readable(data))
            ):
                break
    finally:
        transport.set_baud(loader.baud)
    return symptoms


def _reached_loader(text: str) -> bool:
    return any(boot.download for boot in find_boots(text))


def _restart(transport: Transport) -> tuple[bytes, bytes]:
    """Restart the chip without the boot pin: the input while RTS was asserted, and after that."""
    transport.set_lines(dtr=False, rts=True)
    transport.sleep(UNDER_WAY_S)
    transport.discard_input()
    held = _listen(transport, HOLD_S, ENOUGH_TEXT)
    transport.set_lines(dtr=False, rts=False)
    return held, _listen(transport, LISTEN_S, ENOUGH_TEXT)


def _listen(transport: Transport, seconds: float, enough: int) -> bytes:
    """What comes within ``seconds``, up to about ``enough`` bytes."""
    received, deadline = b"", transport.now() + seconds
    while len(received) < enough and (left := deadline - transport.now()) > 0:
        received += transport.read(left)
    return received
