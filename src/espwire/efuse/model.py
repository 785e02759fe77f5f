"""The eFuse tables of one chip as records. ``tables.py`` loads them from ``chips/data/efuses``.

Bit ``i`` of a block is bit ``i % 32`` of its word ``i // 32``; ``start`` of a field counts from there. Locks are bits of the
fields WR_DIS and RD_DIS: ``wr_dis`` stops burning, ``rd_dis`` makes software read zeros.
"""

# no `from __future__ import annotations`: load_table reads the types of the fields

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from espwire.record import Record

EMPTY: Mapping[Any, Any] = MappingProxyType({})
Kind = Literal["flag", "uint", "bytes"]
Format = Literal[
    "",
    "key_block",
    "key_purpose",
    "bit_count",
    "mac",
    "temp_sensor",
    "adc_point",
    "adc_vref",
    "spi_pin",
    "part_join",
    "eui64",
]
Scheme = Literal["none", "three_quarter", "repeat", "reed_solomon"]


class Block(Record):
    """A block: where its words are read and written, and its locks.

    :ivar unverified: keys that only one source has
    """

    id: int
    name: str
    read: int
    write: int
    words: int
    alias: tuple[str, ...] = ()
    wr_dis: int | None = None
    rd_dis: tuple[int, ...] = ()
    purpose_field: str = ""
    unverified: tuple[str, ...] = ()

    @property
    def bits(self) -> int:
        """Size in bits."""
        return 32 * self.words


class Field(Record):
    """A named range of bits.

    :ivar values: labels of raw values; a value without a label is shown as a number
    :ivar group: the field exists only under a condition of ``Groups``
    :ivar bits_three_quarter: size with the 3/4 coding scheme
    :ivar alt: other names of the field
    :ivar reverse: the first byte as shown is the last one as stored
    :ivar high: the field that holds the higher bits of the value
    :ivar dead: the bit has no effect
    """

    name: str
    block: int
    start: int
    bits: int
    kind: Kind
    alt: tuple[str, ...] = ()
    wr_dis: int | None = None
    rd_dis: tuple[int, ...] = ()
    category: str = ""
    format: Format = ""
    group: Literal["", "key_block", "calibration", "custom_mac", "adc_calibration"] = ""
    values: Mapping[int, str] = EMPTY
    about: str = ""
    bits_three_quarter: int | None = None
    reverse: bool = False
    high: str = ""
    unverified: bool | tuple[str, ...] = False
    dead: bool = False

    @property
    def mask(self) -> int:
        """The field's bits in its block."""
        return ((1 << self.bits) - 1) << self.start


class JoinedPart(Record):
    """A part of a calculated field: the value of ``field``, shifted left by ``to``."""

    field: str
    to: int


class OutsideBit(Record):
    """A bit of a register that is not an eFuse and belongs to a calculated field."""

    address: int
    bit: int
    to: int


class Calculated(Record):
    """A field that is calculated from others and cannot be burned.

    :ivar joined: the fields of an EUI-64: MAC address, extension
    :ivar map: value by the joined parts; values that are missing there become ``otherwise``
    """

    name: str
    bits: int
    kind: Kind
    category: str
    format: Format
    parts: tuple[JoinedPart, ...] = ()
    joined: tuple[str, ...] = ()
    extra_part: OutsideBit | None = None
    map: Mapping[int, int] = EMPTY
    otherwise: int = 0
    about: str = ""


class Table(Record):
    """Fields of some revisions (both bounds inclusive). ``extra`` adds to the full table, ``full`` replaces it."""

    name: str
    mode: Literal["full", "extra"]
    field_count: int
    fields: tuple[Field, ...]
    calculated: tuple[Calculated, ...] = ()
    hidden_count: int = 0
    hidden: tuple[Field, ...] = ()
    min_revision: int | None = None
    max_revision: int | None = None
    unverified: tuple[str, ...] = ()

    def covers(self, revision: int) -> bool:
        """Whether the table is valid for a revision."""
        low, high = self.min_revision, self.max_revision
        return (low is None or revision >= low) and (high is None or revision <= high)


class Purpose(Record):
    """What a key block can be for.

    :ivar value: number in the purpose field; negative: never stored
    :ivar block: the only block for it, on chips without purpose fields
    :ivar reverse: the key's bytes are stored last to first
    :ivar read_protect: software must not read the key
    :ivar digest: of a public key, not a secret
    :ivar splits_into: the purposes of the two blocks that a key of twice the size occupies
    :ivar start: first bit in the block
    :ivar bytes: size of the key; 0: the whole block
    :ivar takes_digest: size of a digest of which only the first ``bytes`` are burned
    :ivar sets: flags that the chip needs besides, where its revision has them
    :ivar max_revision: the last revision for which this entry of the name is valid
    :ivar curves: of the ECDSA keys that fit, by the names of ``secure/keys.py``; such a key comes from a PEM file
    """

    name: str
    value: int = 0
    block: int | None = None
    reverse: bool = False
    read_protect: bool = False
    digest: bool = False
    virtual: bool = False
    splits_into: tuple[str, ...] = ()
    start: int = 0
    bytes: int = 0
    takes_digest: int = 0
    sets: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    min_revision: int | None = None
    max_revision: int | None = None
    coding: str = ""
    unverified: bool | tuple[str, ...] = False


class BlockError(Record):
    """Where the controller reports the coding errors of a block; some blocks lack the bit of failure."""

    block: int
    count_register: int
    count_shift: int
    count_mask: int
    fail_register: int | None = None
    fail_bit: int = 0


class ControllerBits(Record):
    """Bits of a register of the controller."""

    register: str
    shift: int
    bits: int


class Controller(Record):
    """The eFuse controller: its registers and commands."""

    base: int
    size: int
    write_opcode: int
    read_opcode: int
    program_command: int
    read_command: int
    command_mask: int
    timeout_s: float
    idle_reads: int
    program_words: int
    check_words: int
    registers: Mapping[str, int]
    bit_fields: Mapping[str, ControllerBits]
    block_shift: int = 0
    after_read_us: int = 0
    decode_error_mask: int = 0
    per_block_write_registers: bool = False


class Timing(Record):
    """Values that the controller's bit fields need before a burn; ``default``: those after a reset."""

    mode: Literal["fixed", "by_crystal", "by_apb", "default"]
    settings: tuple[Mapping[str, int], ...] = ()
    allowed_mhz: tuple[int, ...] = ()
    step_count: int | None = None
    clock_divider: int | None = None
    power_on: int | None = None
    power_off: int | None = None
    program_inactive: Mapping[int, int] = EMPTY
    skip: tuple[str, ...] = ()


class Coding(Record):
    """Coding schemes: of block 0, and of the others, fixed or by a field."""

    block0: Scheme
    other_blocks: Literal["by_field", "reed_solomon"]
    field: str = ""
    word: int = 0
    mask: int = 0
    values: Mapping[int, Scheme] = EMPTY


class Groups(Record):
    """When the fields of a group exist: the least version of the calibration. See ``FuseState.exists``."""

    calibration_min_block_version: int = 0


class AdcVref(Record):
    """``base + step * magnitude`` in millivolts, negative if the top bit is set."""

    base_mv: int
    step_mv: int


class AdcPoint(Record):
    """A calibration point: offset plus ``step`` times a signed number."""

    step: int
    twos_complement: bool = False
    offsets: Mapping[str, int] = EMPTY


class TempSensor(Record):
    """A temperature in steps; the top bit is the sign."""

    step: float


class SpiPin(Record):
    """GPIO numbers from ``add_2_from`` on are stored less 2."""

    add_2_from: int
    forbidden: tuple[int, ...]
    max: int


class Formats(Record):
    """Arithmetic of the formats of fields."""

    adc_point: AdcPoint | None = None
    adc_vref: AdcVref | None = None
    temp_sensor: TempSensor | None = None
    spi_pin: SpiPin | None = None


class FlashVoltage(Record):
    """The flags that select the flash voltage: ``force`` overrides the pin, ``power`` is the regulator, ``high`` is 3.3 V."""

    force: str
    power: str
    high: str


class Danger(Record):
    """A combination of eFuses that is refused without consent. All conditions must hold; fields that a chip lacks are 0.

    :ivar name: of the consent
    :ivar text: what would happen
    :ivar all_set: fields that are not 0
    :ivar any_set: fields of which one is not 0
    :ivar odd: fields with an odd number of bits set
    :ivar clear: fields that are 0
    :ivar present: fields that the chip must have
    :ivar port: kind of the port in use
    :ivar changes: fields of which the burn changes one
    :ivar check: a calculated condition, see ``danger.py``
    :ivar keys: names of key purposes, for the condition
    :ivar others: names of other key purposes
    :ivar note: only reported
    """

    name: str
    text: str
    all_set: tuple[str, ...] = ()
    any_set: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    clear: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    port: str = ""
    changes: tuple[str, ...] = ()
    check: str = ""
    keys: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    min_revision: int = 0
    max_revision: int = 999
    note: bool = False


class CommonData(Record):
    """What all chips share."""

    danger: tuple[Danger, ...]


class FuseData(Record):
    """A whole file. ``slot5_forbidden``: purposes that the last key block must not have.

    :ivar digest_schemes: kinds of keys whose signatures the chip can check; empty: unknown
    :ivar digest_scheme_revisions: the first revision of the chip for some of them
    :ivar weak_digest_schemes: those of which the chip accepts some invalid signatures
    """

    id: str
    name: str
    blocks: tuple[Block, ...]
    key_blocks: tuple[str, ...]
    key_purposes: tuple[Purpose, ...]
    controller: Controller
    timing: Timing
    coding: Coding
    formats: Formats
    table: tuple[Table, ...]
    groups: Groups = Groups()
    block_errors: tuple[BlockError, ...] = ()
    block0_error_registers: tuple[int, ...] = ()
    slot5_forbidden: tuple[str, ...] = ()
    flash_voltage: FlashVoltage | None = None
    custom_purpose_values: tuple[int, ...] = ()
    unverified: bool = False
    danger: tuple[Danger, ...] = ()
    digest_schemes: tuple[str, ...] = ()
    digest_scheme_revisions: Mapping[str, int] = EMPTY
    weak_digest_schemes: tuple[str, ...] = ()
