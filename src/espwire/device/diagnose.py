"""Why no loader answered: one cause, one id, the evidence, one thing to do. Pure; ``evidence.py`` listens.

Only what can be told from the host's end of the cable is told. A chip without supply, one that is held in reset from
the start and one whose TX is cut are all silence; that they are is the hint.

What came instead of an answer, and what listening once more brings. Judges nothing: ``diagnosis.py`` does.
"""

from __future__ import annotations

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
LOOP_BOOTS = 3  # starts after one reset of ours: it, and two that nobody asked for
BY_HAND = (
    "Hold BOOT, press and release RESET, let go of BOOT, then try again with --before no-reset."
)


def diagnose(evidence: Evidence) -> ConnectError:
    """The one cause that fits ``evidence`` best. Pure."""
    facts = _Facts(evidence)
    for find in (
        _brown_out,
        _held,
        _not_heard,
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
    raise AssertionError("silence fits always")


class _Facts:
    """Evidence, read: which boot messages came, which chip that is, what else was said."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.rate, other = _best_rate(evidence.at_rates)
        texts = [readable(data) for data in evidence.attempts] or [evidence.text]
        after = readable(evidence.after)
        if find_boots(other) or find_missing_image(other):
            texts = [readable(data) for data in evidence.rounds] or [
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
        self.chip = evidence.chip or _chip_of(self.last)

    @property
    def en_works(self) -> bool:
        """Whether our resets reach the chip: after most of them it starts, by the reason that the enable pin gives."""
        ours = [
            boots
            for boots, text in zip(self.boots, self.texts, strict=True)
            if boots
            and _is_pin_reset(boots[0])
            and not find_panic(text.partition(boots[0].text)[0])
        ]
        return self.evidence.was_reset and 2 * len(ours) > len(self.boots)

    @property
    def loops(self) -> bool:
        """Whether the chip starts again and again without us."""
        extra = LOOP_BOOTS if self.evidence.was_reset else LOOP_BOOTS - 1
        unasked = self.later or any(len(boots) >= extra for boots in self.boots)
        return bool(unasked) or (not self.en_works and len(self.all_boots) > 1)

    def details(self, **more: Any) -> dict[str, Any]:
        """What every error carries."""
        evidence = self.evidence
        found: dict[str, Any] = {"sequences": list(evidence.sequences), "baud": evidence.baud}
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
        shown = self.text if self.text.strip() else evidence.text
        return found | {"boot_text": (self.other or shown)[-SHOWN_TEXT:]} | more


def _held(facts: _Facts) -> ConnectError | None:
    evidence = facts.evidence
    talked, silent_since = (
        evidence.before + b"".join(evidence.attempts[:1]),
        not any(evidence.attempts[1:]),
    )
    if not talked or not silent_since or evidence.after or facts.all_boots:
        talked = b""
    if talked and evidence.restarted == b"" and len(evidence.while_held) < LEAST_GARBAGE:
        return NoReply(
            "the chip was running before our reset and has been silent since: it stays in reset",
            hint="The enable pin does not come up again: check its pull-up (10 kΩ to 3.3 V) and what hangs on it.",
            code="held-in-reset",
            **facts.details(),
        )
    if len(evidence.while_held) < LEAST_GARBAGE:
        return None
    return NoReply(
        "the chip runs only while RTS is asserted: the adapter's lines are inverted and hold it in reset",
        hint="Set the adapter's RTS and DTR to the usual polarity, or unplug both and use the buttons.",
        code="held-in-reset",
        **facts.details(),
    )


def _brown_out(facts: _Facts) -> ConnectError | None:
    said = [text for text in (*facts.texts, facts.after) if find_brown_out(text)]
    dips = sum(boot.brown_out for boot in facts.all_boots)
    runs = zip((*facts.boots, facts.later), (*facts.texts, facts.after), strict=True)
    power_on = any(
        len(boots) >= LOOP_BOOTS
        and all(boot.reset == POWER_ON for boot in boots)
        and not find_panic(text)
        for boots, text in runs
    )
    if dips + len(said) < 2 and not power_on:
        return None
    return ConnectError(
        "the chip's supply breaks down whenever it starts, and it starts over and over",
        hint="Use a shorter USB cable or another port or supply, and take off what else draws current.",
        code="brown-out-loop",
        **facts.details(),
    )


def _not_heard(facts: _Facts) -> ConnectError | None:
    reached = [
        boot
        for boot in facts.all_boots
        if boot.download and not (facts.chip and _wrong(facts.chip, boot))
    ]
    silent_loader = (
        not any(facts.evidence.attempts) and len(facts.evidence.restarted or b"") >= LEAST_GARBAGE
    )
    if not reached and not silent_loader:
        return None
    return NoReply(
        "the chip waits in its loader but does not hear us",
        hint="The line from the host's TX to the chip's RX is broken or held by something else.",
        code="chip-does-not-hear",
        **facts.details(),
    )


def _crash_loop(facts: _Facts) -> ConnectError | None:
    panic = find_panic(facts.text)
    if not panic or facts.en_works or not (facts.loops or facts.text.count(panic) > 1):
        return None
    return ConnectError(
        f"the program in flash crashes and starts again, and our resets do not reach the chip ({panic})",
        hint=f"It need not run to be replaced. {BY_HAND}",
        code="crash-loop",
        **facts.details(panic=panic),
    )


def _wrong_mode(facts: _Facts) -> ConnectError | None:
    boot, missing = facts.last, find_missing_image(facts.text)
    if boot is None:
        if not missing:
            return None
        return WrongBootMode(
            f"the chip tries to start a program from flash, not its loader ({missing})",
            hint=BY_HAND,
            **facts.details(),
        )
    shown = f"boot:{boot.strap:#x}" if not boot.old_form else f"boot mode:({boot.strap},…)"
    words = explain_strap(facts.chip, boot.strap)
    pins = wrong_pins(facts.chip, boot.strap) if facts.chip is not None else ()
    bad = next((pin for pin in pins if not pin.is_boot), None)
    if any(pin.is_boot for pin in pins) or facts.chip is None or not facts.chip.strapping.bits:
        pin = next(
            (f"GPIO{pin.gpio}" for pin in pins if pin.is_boot), "the boot pin (GPIO0 or GPIO9)"
        )
        wire = "DTR does not reach it" if facts.evidence.was_reset else "nothing pulled it low"
        what, hint = (
            "started its application, not its loader",
            f"{pin} was not low at reset: {wire}. {BY_HAND}",
        )
    elif bad is not None:
        what = "started in a mode that is not its UART loader"
        hint = f"GPIO{bad.gpio} must be {'high' if bad.level else 'low'} at reset: free it from what drives it."
    else:
        what = "started its application although its pins ask for the loader"
        hint = "Download mode may be switched off in this chip's eFuses; else reset it again, slowly, by hand."
    wrong = [pin.gpio for pin in pins]
    return WrongBootMode(
        f"the chip {what} ({shown}: {words})", hint=hint, **facts.details(wrong_gpios=wrong)
    )


def _wrong_baud(facts: _Facts) -> ConnectError | None:
    if facts.rate is None:
        return None
    return NoReply(
        f"what comes is text at {facts.rate} baud: a program is running, not the loader",
        hint=BY_HAND,
        code="wrong-baud-noise",
        **facts.details(),
    )


def _application(facts: _Facts) -> ConnectError | None:
    if is_garbage(facts.evidence.raw) or not is_application_log(facts.text):
        return None
    why = "our resets do not reach it" if facts.evidence.was_reset else "it was not reset"
    return NoReply(
        f"a program is running on the chip, not the loader, and {why}",
        hint=BY_HAND,
        code="application-running",
        **facts.details(),
    )


def _noise(facts: _Facts) -> ConnectError | None:
    if not b"".join(facts.evidence.attempts):
        return None
    return NoReply(
        "what comes is noise: text at none of the usual rates",
        hint="Check that ground is connected and that the chip has its supply; a free RX line picks up such noise.",
        code="noise",
        **facts.details(),
    )


def _silence(facts: _Facts) -> ConnectError:
    evidence = facts.evidence
    if evidence.was_reset:
        hint = "Check supply, ground, EN (must be high) and the wire from the chip's TX; it may be another port, too."
    else:
        hint = "Bring the chip into its loader by hand: hold BOOT while pressing RESET."
    return NoReply("nothing answers at this port", hint=hint, **facts.details())


def _best_rate(at_rates: Mapping[int, bytes]) -> tuple[int | None, str]:
    """The rate at which what came is text, and that text; None if there is none."""
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
BOOT_TEXT_RATE = (
    74880  # protocol.toml [link]: what a ROM says at start can only be at this or the usual rate
)
LISTEN_S = (
    1.2  # per rate, and after a plain restart: programs that log at all do so about once a second
)
ROUNDS, ROUND_S = 3, 0.6
ENOUGH_TEXT = 64
LEAST_TEXT = 12
TEXT_SHARE = 0.95
LEAST_GARBAGE = 6
HOLD_S = 0.25  # a large capacitor at EN needs its time, and then the ROM's boot text must come
UNDER_WAY_S = 0.015  # what the chip said before it was stopped has arrived by then


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was done and what came. Bytes are as received; ``text`` is their printable part.

    ``attempts``: what came after each reset, in order; ``before``: what came before the first one; ``after``: what came
    when nothing more was done; ``at_rates``: what was heard at other rates, ``rounds``: the same after each of a few
    resets at the rate that a ROM may talk at; ``restarted``: what came after a plain restart, None if not tried;
    ``while_held``: what came while RTS was asserted, which should keep the chip still.
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
        """Whether any line was moved."""
        return bool(self.sequences) and self.can_reset


def examine(
    loader: Loader,
    *,
    sequences: tuple[str, ...],
    chip: Chip | None = None,
    reset: Callable[[], None] | None = None,
    report: Report = silent,
) -> Evidence:
    """After all attempts failed: put together what came, and listen once more where that tells more.

    Garbage: at other rates, with a few resets for the rate that a ROM may talk at. Silence after resets, or a loader
    that does not answer: one plain restart. Leaves rate and lines as a closed port has them. Lines are moved only if
    ``sequences`` moved them before.

    :param sequences: names of the reset sequences that were played; empty if none was
    :param reset: plays one of them once more
    :raises TransportError, Cancelled: as the link does
    """
    transport = loader.transport
    *earlier, last = loader.captures
    before, attempts = (
        (earlier[0], (*earlier[1:], last)) if earlier and sequences else (b"", (*earlier, last))
    )
    heard = b"".join(attempts)
    evidence: dict[str, Any] = {}
    # native USB: a reset takes the port away, and there is no rate to be wrong
    moved = (
        bool(sequences) and transport.info.can_reset and transport.info.kind in ("uart", "virtual")
    )
    booted = bool(find_boots(readable(heard)))
    after = _listen(transport, LISTEN_S, TEXT_LIMIT) if heard else b""
    fell_silent = not booted and not after and not any(attempts[1:])
    if moved and (fell_silent or _reached_loader(readable(heard))):
        evidence["while_held"], evidence["restarted"] = _restart(transport)
    gone = fell_silent and moved and not any(evidence.values())
    if is_garbage(heard) and not booted and not gone and transport.info.can_change_baud:
        report(Note(text=f"what comes is no text at {loader.baud} baud: listening at other rates"))
        evidence |= _listen_at_rates(loader, reset if moved else None)
    return Evidence(
        raw=before + heard + after,
        text=readable(before + heard + after),
        sequences=sequences,
        can_reset=transport.info.can_reset,
        baud=loader.baud,
        chip=chip,
        attempts=attempts,
        before=before,
        after=after,
        **evidence,
    )


def is_garbage(data: bytes) -> bool:
    """Whether a good part of it is no text."""
    bad = len(data) * (1 - printable_share(data))
    return bad >= LEAST_GARBAGE and printable_share(data) < TEXT_SHARE


def readable(data: bytes) -> str:
    """The printable part, and line ends."""
    return "".join(chr(byte) for byte in data if 0x20 <= byte <= 0x7E or byte in b"\t\r\n")


def _listen_at_rates(loader: Loader, reset: Callable[[], None] | None) -> dict[str, Any]:
    """What comes at each usual rate, up to the first at which it is text without doubt; as fields of Evidence.

    Where that text says that the chip reached its loader, a plain restart at that rate follows.
    """
    transport = loader.transport
    found: dict[int, bytes] = {}
    evidence: dict[str, Any] = {"at_rates": found}
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
                data, evidence["rounds"] = b"".join(rounds), tuple(rounds)
                if _reached_loader(readable(data)):
                    evidence["while_held"], evidence["restarted"] = _restart(transport)
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
    return evidence


def _reached_loader(text: str) -> bool:
    return any(boot.download for boot in find_boots(text))


def _restart(transport: Transport) -> tuple[bytes, bytes]:
    """A plain restart, the boot pin left alone: what came while RTS was asserted, and what after."""
    transport.set_lines(dtr=False, rts=True)
    transport.sleep(UNDER_WAY_S)
    transport.discard_input()
    held = _listen(transport, HOLD_S, ENOUGH_TEXT)
    transport.set_lines(dtr=False, rts=False)
    return held, _listen(transport, LISTEN_S, ENOUGH_TEXT)


def _listen(transport: Transport, seconds: float, enough: int) -> bytes:
    """What comes within ``seconds``, up to about ``enough`` bytes."""
    heard, deadline = b"", transport.now() + seconds
    while len(heard) < enough and (left := deadline - transport.now()) > 0:
        heard += transport.read(left)
    return heard
