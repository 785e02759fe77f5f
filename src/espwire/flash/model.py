"""The values that operations on flash share: target, steps and the plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from espwire.errors import UsageError
from espwire.events import PartitionChange, PlannedStep
from espwire.flash.findings import Finding, Policy
from espwire.progress import Task
from espwire.protocol.stub import LZMA_CODECS, Codec
from espwire.sizes import SECTOR, Ranges, format_size

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.backends.base import FlashLimits
    from espwire.device.device import Device
    from espwire.device.security import SecurityInfo

BLANK = b"\xff"


class Cancel(Protocol):
    """Checked by operations between blocks; ``transport.base.CancelToken`` implements it."""

    def check(self) -> None:
        """Raise ``Cancelled`` if the operation is to stop."""


@dataclass(frozen=True, kw_only=True)
class FlashTarget:
    """The chip and its flash, as plans and safety checks see them.

    ``flash_size`` None: not known, so not checked. ``size_assumed``: it is a guess. ``id_size``: the size by the
    flash's own id, whatever size the user states; None: it is not known.
    ``flash_key``: whether the eFuses hold a key to encrypt flash with; ``crypt_config``: which address bits change
    that key (ESP32). None: not known, or not on this chip; the same for ``revision`` and ``security``.
    """

    chip: Chip
    limits: FlashLimits
    flash_size: int | None = None
    size_assumed: bool = False
    id_size: int | None = None
    secure_download: bool = False
    revision: int | None = None
    security: SecurityInfo | None = None
    flash_key: bool | None = None
    crypt_config: int | None = None

    @classmethod
    def of(cls, device: Device, *, flash_size: int | None = None) -> FlashTarget:
        """The device as a target. Attaches the flash if that was not done yet.

        :param flash_size: bytes, as stated by the user; None: by its id
        """
        from espwire.device.flash_id import find_flash_size, is_plausible

        info = device.flash
        if info is None or (flash_size is not None and (flash_size != info.size or info.assumed)):
            info = device.attach_flash(size=flash_size)  # the loader checks addresses by the size
        known = info.jedec is not None and is_plausible(info.jedec)
        return cls(
            chip=device.chip,
            limits=device.backend.limits,
            flash_size=info.size,
            size_assumed=info.assumed,
            id_size=find_flash_size(info.jedec) if known and info.jedec is not None else None,
            secure_download=device.secure_download,
            revision=device.revision if device.revision_known else None,
            security=device.security,
        )

    @property
    def real_size(self) -> int | None:
        """The flash size, if it is known and not a guess."""
        return None if self.size_assumed else self.flash_size

    @property
    def encrypts_flash(self) -> bool:
        """Whether what is in flash cannot be compared with files: it is encrypted, or cannot be read at all."""
        encrypted = self.security is not None and self.security.flash_encryption
        return encrypted or self.secure_download

    @property
    def encrypted_align(self) -> int:
        """Bytes that the chip encrypts at once."""
        return self.chip.flash.encrypted_write_align or 16

    @property
    def checks_images(self) -> bool:
        """Whether the chip may refuse an image of which a byte was changed."""
        security = self.security
        secured = security is not None and (
            security.secure_boot or security.secure_boot_v1 or security.secure_download
        )
        return secured or self.secure_download

    def check_range(self, start: int, end: int, *, stated: int | None = None) -> None:
        """Refuse a range past the end of the flash: most flash chips wrap around to address 0 there.

        :param stated: the size that the user gave
        :raises UsageError: code ``past-flash-end``
        """
        size = self.id_size
        if stated is not None and end > stated and (size is None or end <= size):
            raise UsageError(
                f"{start:#x} to {end:#x} exceeds the given flash size, {stated:#x}",
                hint="Give the real --flash-size, or leave it out.",
                code="past-flash-end",
            )
        if size is not None and end > size:
            raise UsageError(
                f"{start:#x} to {end:#x} exceeds the flash, which ends at {size:#x}",
                hint="Check address and size: the end is from the JEDEC id of the flash chip.",
                code="past-flash-end",
            )


class Erase(NamedTuple):
    """Erase whole sectors. ``whole``: the entire flash. ``again``: although they read blank, see ``journal.py``."""

    address: int
    size: int
    whole: bool = False
    again: bool = False

    def describe(self) -> str:
        """One line for people."""
        if self.again:
            return f"erase again {format_span(self.address, self.address + self.size)}: an erase was interrupted"
        return f"erase {format_span(self.address, self.address + self.size)}"


@dataclass(frozen=True)
class Piece:
    """Whole sectors to erase, and what to program there from ``address`` on.

    ``codec``: how it is sent. ``packed``: the zlib form, which is sent in place of raw data once a transfer has failed;
    None: the data is never compressed. An LZMA stream is compressed while it is sent. ``wire_bytes`` is what the host
    sends in all, repetitions not counted; ``wire_estimated``: about.
    ``erase_end``: up to where the loader erases.
    """

    address: int
    data: bytes = field(repr=False)
    packed: bytes | None = field(default=None, repr=False)
    wire_bytes: int = 0
    erase_end: int = 0
    codec: Codec = Codec.RAW
    wire_estimated: bool = False

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + len(self.data)

    @property
    def payload(self) -> int:
        """Bytes of the stream; about, for LZMA."""
        if self.codec in LZMA_CODECS:
            return self.wire_bytes
        if self.codec == Codec.ZLIB and self.packed is not None:
            return len(self.packed)
        return len(self.data)


@dataclass(frozen=True)
class Write:
    """Bring a blob into flash: erase and program ``pieces``, which are runs of whole sectors.

    ``address`` and ``data`` are all that the flash holds afterwards: the blob, filled up to the borders of its sectors
    with what is kept there, or with 0xFF. ``blob``: the blob's own range, half-open.
    """

    address: int
    data: bytes = field(repr=False)
    name: str
    pieces: tuple[Piece, ...]
    encrypted: bool = False
    blob: tuple[int, int] = (0, 0)

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + len(self.data)

    @property
    def size(self) -> int:
        """Bytes that are programmed."""
        return sum(len(piece.data) for piece in self.pieces)

    @property
    def changed(self) -> int:
        """Bytes of the blob that are programmed; the others are in flash already."""
        low, high = self.blob
        return sum(max(0, min(p.end, high) - max(p.address, low)) for p in self.pieces)

    @property
    def wire_bytes(self) -> int:
        """What the host sends."""
        return sum(piece.wire_bytes for piece in self.pieces)

    def describe(self) -> str:
        """One line for people."""
        some = (
            f"{describe_extent(self.size, len(self.data))} of "
            if self.size < len(self.data)
            else ""
        )
        codecs = {piece.codec for piece in self.pieces}
        packed = sum(piece.payload for piece in self.pieces)
        how = f", compressed to {packed:,} bytes" if packed < self.size else ""
        how = ", compressed with LZMA" if codecs.intersection(LZMA_CODECS) else how
        how += ", encrypted by the chip" if self.encrypted else ""
        return f"write {some}{self.name} to {format_span(*self.blob)}{how}"


@dataclass(frozen=True)
class Verify:
    """The flash must hold ``data`` at ``address``: the blob, and the rest of its sectors where that is known.

    ``tail``: bytes behind ``data`` that must be blank: up to the end of the last sector, which holds the padding of the
    last block and was erased with the rest. ``blob``: the blob's own range, half-open.
    """

    address: int
    data: bytes = field(repr=False)
    name: str
    tail: int = 0
    blob: tuple[int, int] = (0, 0)

    @property
    def end(self) -> int:
        """One past the last address of ``data``."""
        return self.address + len(self.data)

    @property
    def content(self) -> bytes:
        """All that the flash must hold from ``address`` on, blank tail included."""
        return self.data + BLANK * self.tail

    def describe(self) -> str:
        """One line for people."""
        return f"verify {self.name} at {format_span(*self.blob)}"


class Found(NamedTuple):
    """What the flash holds where one blob goes.

    ``changed``: half-open ranges of whole sectors that differ from it; None: not compared.
    ``before``, ``behind``: the rest of its first sector and of its last one; None: not known.
    ``certain``: the comparison covered each byte of it, by replies that carry a CRC.
    ``weak``: sectors that read blank now and whose erase was interrupted.
    """

    changed: Ranges | None = None
    before: bytes | None = None
    behind: bytes | None = None
    certain: bool = False
    weak: Ranges = ()


class Skip(NamedTuple):
    """Nothing to do for this blob, and why. ``checked``: the flash was read or hashed, and holds it."""

    address: int
    size: int
    name: str
    why: str
    checked: bool = False

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + self.size

    def describe(self) -> str:
        """One line for people."""
        return f"skip {self.name}: {self.why}"


Step = Erase | Write | Verify | Skip


class Unbooted(NamedTuple):
    """An application that was written, and the one that boots instead, by their partitions' labels."""

    written: str
    boots: str


@dataclass(frozen=True)
class Plan:
    """What will be done, in order.

    ``wire_bytes`` is what the host sends, see ``wire_estimated``; ``durations`` an estimate for each step, in seconds.
    ``partitions``: how a partition table that is written differs from the one in flash. ``unbooted``: the application that
    was written does not boot, which is known once the plan was carried out.
    """

    steps: tuple[Step, ...]
    findings: tuple[Finding, ...] = ()
    wire_bytes: int = 0
    durations: tuple[float, ...] = ()
    policy: Policy = field(default_factory=Policy)
    partitions: tuple[PartitionChange, ...] = ()
    unbooted: Unbooted | None = None

    @property
    def seconds(self) -> float:
        """An estimate of the whole."""
        return sum(self.durations)

    @property
    def written(self) -> int:
        """Bytes of the blobs that are programmed; the others are in flash already."""
        return sum(step.changed for step in self.writes)

    @property
    def erases(self) -> bool:
        """Whether it erases what the caller named."""
        return any(isinstance(step, Erase) and not step.again for step in self.steps)

    @property
    def writes(self) -> tuple[Write, ...]:
        """The steps that write."""
        return tuple(step for step in self.steps if isinstance(step, Write))

    @property
    def changes_flash(self) -> bool:
        """Whether anything is erased or written."""
        return any(isinstance(step, Erase | Write) for step in self.steps)

    @property
    def wire_estimated(self) -> bool:
        """Whether ``wire_bytes`` is an estimate: data is compressed, or encoded for the line, while it is sent."""
        return any(piece.wire_estimated for write in self.writes for piece in write.pieces)

    @property
    def unverified(self) -> tuple[str, ...]:
        """Names of what is written and not verified after."""
        checks = [range(s.address, s.end) for s in self.steps if isinstance(s, Verify)]
        return tuple(w.name for w in self.writes if not any(w.address in check for check in checks))

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Names of what no step looks at in the flash itself: unverified, or skipped on trust."""
        trusted = (s.name for s in self.steps if isinstance(s, Skip) and s.size and not s.checked)
        return (*self.unverified, *trusted)

    def describe(self) -> tuple[str, ...]:
        """One line per step."""
        return tuple(step.describe() for step in self.steps)

    @property
    def actions(self) -> tuple[PlannedStep, ...]:
        """The steps for programs that show them."""
        return tuple(map(describe_step, self.steps))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that will report progress, in order."""
        tasks: list[Task] = []
        for step, seconds in zip(self.steps, self.durations, strict=True):
            match step:
                case Erase():
                    tasks.append(Task("erase", "", step.size, seconds))
                case Write():
                    tasks.append(Task("write", step.name, step.size, seconds))
                case Verify():
                    tasks.append(Task("verify", step.name, len(step.data), seconds))
                case Skip(checked=True):
                    tasks.append(Task("write", step.name, 0, 0.0))
                    if not self.is_verified(step):
                        tasks.append(Task("verify", step.name, 0, 0.0))
        return tuple(tasks)

    def is_verified(self, skipped: Skip) -> bool:
        """Whether a step verifies the blob that is skipped."""
        address = skipped.address
        return any(isinstance(step, Verify) and step.blob[0] == address for step in self.steps)


def describe_step(step: Step) -> PlannedStep:
    """A step as events report it."""
    start, end = step.address, step.address
    if isinstance(step, Write | Verify):
        start, end = step.blob
    else:
        end += step.size
    name = "" if isinstance(step, Erase) else step.name
    return PlannedStep(kind=type(step).__name__.lower(), address=start, size=end - start, name=name)


def describe_extent(size: int, whole: int) -> str:
    """How many of the sectors of ``whole`` bytes ``size`` bytes are.

    >>> describe_extent(0x1800, 0x10001)
    '2 of 17 sectors'
    """
    return f"{-(-size // SECTOR)} of {-(-whole // SECTOR)} sectors"


def format_span(start: int, end: int) -> str:
    """A range for people."""
    return f"{start:#x}..{end:#x} ({format_size(end - start)})"
