"""What a chip is: facts only, frozen and typed. Behaviour lives in device/ and virtual/, picked by these facts.

Addresses are absolute, sizes in bytes, revisions ``major * 100 + minor``. The schema is told in ``data/README.md``;
sources of the facts stand there too. ``unverified`` names what no second source has confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from espwire.protocol.dialect import Dialect

Unverified = bool | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BitPart:
    """A piece of a bit field: ``((word at address >> shift) & mask of bits) << to``."""

    address: int
    shift: int
    bits: int
    to: int = 0
    block: int | None = None
    word: int | None = None


BitField = tuple[BitPart, ...]


@dataclass(frozen=True, kw_only=True)
class BitAt:
    """One bit of a register."""

    address: int
    bit: int
    min_revision: int | None = None
    unverified: bool = False


@dataclass(frozen=True, kw_only=True)
class MagicAt:
    """Another place that tells the chip."""

    address: int
    mask: int
    value: int


@dataclass(frozen=True, kw_only=True)
class Identity:
    """How to tell the chip from others. ``security_info_bytes`` 0: the command does not exist."""

    detect: Literal["magic", "security_info"]
    magic_address: int
    magic_values: tuple[int, ...]
    security_info_bytes: int
    security_info_supported: bool
    image_chip_id: int | None = None
    legacy_magic_values: tuple[int, ...] = ()
    alternate_detect: MagicAt | None = None
    detect_fallback: str = ""


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """The processor."""

    architecture: Literal["xtensa", "riscv"]
    cores: int
    max_mhz: int
    low_power_core: bool
    elf_machine: int
    isa: str = ""


@dataclass(frozen=True, kw_only=True)
class Radio:
    """Radios, as the maker names their standards; empty where there is none."""

    wifi: str = ""
    bluetooth: str = ""
    ieee802154: bool = False
    none: bool = False


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """An estimate above ``above`` MHz means a crystal of ``mhz``."""

    above: int
    mhz: int


@dataclass(frozen=True, kw_only=True)
class RomCalibration:
    """Where the ESP32's ROM keeps the measurement of its clock; tells the number for CHANGE_BAUDRATE."""

    address: int
    shift: int
    mask: int
    ck8m_from: str
    formula: str
    threshold_hz: int
    high_hz: int
    low_hz: int


@dataclass(frozen=True, kw_only=True)
class BitsAt:
    """Some bits of one register."""

    address: int
    shift: int
    bits: int


@dataclass(frozen=True, kw_only=True)
class Crystal:
    """Possible crystals. ``fixed``: nothing to measure; ``uart_divider``: baud * divider / 1e6 / clock_multiple."""

    mhz: tuple[int, ...]
    method: Literal["fixed", "uart_divider"]
    formula: str = ""
    clock_multiple: int = 1
    thresholds: tuple[Threshold, ...] = ()
    warn_if_off_by_mhz: int = 1
    rom_calibration: RomCalibration | None = None
    rom_assumes_mhz: int | None = None
    rom_setting: BitsAt | None = None


@dataclass(frozen=True, kw_only=True)
class Uart:
    """UART0."""

    clock_divider_address: int
    clock_divider_mask: int
    date_address: int
    rom_baud: int
    boot_log_baud_26mhz: int | None = None
    unverified: Unverified = False


@dataclass(frozen=True, kw_only=True)
class ConsoleVariable:
    """A ROM variable that tells the kind of port in use; older tools read it."""

    mask: int
    address: int | None = None
    otg_value: int | None = None
    serial_jtag_value: int | None = None
    max_revision: int | None = None
    later_address: int | None = None
    later_serial_jtag_value: int | None = None
    unverified: bool = False

    def find_serial_jtag(self, revision: int) -> tuple[int, int] | None:
        """Its address and its value while the ROM talks over USB-Serial/JTAG; None where that is not known."""
        later = self.max_revision is not None and revision > self.max_revision
        address = self.later_address if later else self.address
        value = (self.later_serial_jtag_value if later else None) or self.serial_jtag_value
        return (address, value) if address is not None and value is not None else None


@dataclass(frozen=True, kw_only=True)
class Usb:
    """Native USB."""

    otg: bool
    serial_jtag: bool
    vendor_id: int | None = None
    otg_product_id: int | None = None
    otg_ram_block: int | None = None
    serial_jtag_product_id: int | None = None
    console_variable: ConsoleVariable | None = None


@dataclass(frozen=True, kw_only=True)
class LengthInUser1:
    """Where the ESP8266 keeps data lengths: shifts into its USER1 register."""

    mosi_shift: int
    miso_shift: int


@dataclass(frozen=True, kw_only=True)
class Spi:
    """The controller that drives the flash. Offsets from ``base``."""

    base: int
    command_offset: int
    address_offset: int
    user_offset: int
    user1_offset: int
    user2_offset: int
    data_offset: int
    address_msb_aligned: bool
    custom_pins: bool
    mosi_length_offset: int | None = None
    miso_length_offset: int | None = None
    length_in_user1: LengthInUser1 | None = None
    allowed_pins: tuple[str, ...] = ()
    usb_pins: tuple[int, ...] = ()
    max_hd_pin: int | None = None
    default_pins: Mapping[str, int] = field(default_factory=dict)
    hspi_pins: Mapping[str, int] = field(default_factory=dict)
    unverified: Unverified = False


@dataclass(frozen=True, kw_only=True)
class OctalFlag:
    """The eFuse bit that says octal flash."""

    address: int
    shift: int
    bits: int
    values: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class Flash:
    """The flash as the boot ROM and image headers see it; codes for byte 3 of an image header."""

    bootloader_offset: int
    modes: Mapping[str, int]
    sizes: Mapping[str, int]
    frequencies: Mapping[str, int]
    default_frequency: str
    sector_size: int
    address_32bit: bool
    documented_max_mb: int
    encrypted_write_align: int = 0
    frequency_quirk: str = ""
    true_mhz: Mapping[str, int] = field(default_factory=dict)
    octal_flag: OctalFlag | None = None
    unverified: Unverified = False


@dataclass(frozen=True, kw_only=True)
class MappedFlash:
    """Where flash appears in the address space."""

    irom_start: int
    irom_end: int
    drom_start: int | None = None
    drom_end: int | None = None
    unverified: Unverified = False


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """Which image format, page sizes of the flash MMU, UF2 family; what the header's one-byte least revision means."""

    format: Literal["esp8266", "esp32"]
    mmu_page_sizes: tuple[int, ...]
    legacy_revision: Literal["major", "minor"] = "major"
    default_mmu_page_size: int | None = None
    uf2_family: int | None = None
    page_tail: int = 0  # a mapped segment may not end less than this into a page
    secure_boot_v1: bool = False  # whether images can be padded for a signature of that version


@dataclass(frozen=True, kw_only=True)
class Region:
    """A named, half-open range of the address space."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The map that sorts image segments; ``measured`` gives true limits where the map is loose.

    ``measured["answers"]``: reserved ranges that read 0, where an access does not fault.
    """

    map: tuple[Region, ...]
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MacCrc:
    """Where the ESP32 keeps the CRC-8 of its MAC."""

    word: str
    shift: int
    poly: int
    init: int
    reflected: bool


@dataclass(frozen=True, kw_only=True)
class Mac:
    """Where the MAC is: two words, or the ESP8266's three with its rules for the maker part."""

    low_word: int | None = None
    high_word: int | None = None
    order: str = ""
    crc8: MacCrc | None = None
    extension: str = ""
    eui64: str = ""
    words: Mapping[str, int] = field(default_factory=dict)
    oui_rules: tuple[Mapping[str, str], ...] = ()
    tail: str = ""
    chip_id: str = ""
    unverified: Unverified = False


@dataclass(frozen=True, kw_only=True)
class RevisionRule:
    """How the fields become a revision; ``constant`` where the chip does not tell."""

    formula: str = ""
    constant: int | None = None
    major_from_raw: Mapping[int, int] = field(default_factory=dict)
    major_otherwise: int = 0
    treat_as_zero_when: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NameRule:
    """The product name when every field has the value (or one of the values) given."""

    when: Mapping[str, int | tuple[int, ...]]
    name: str


@dataclass(frozen=True, kw_only=True)
class NameOverride:
    """A text that stands in for a part's when every field has the value given."""

    when: Mapping[str, int]
    text: str


@dataclass(frozen=True, kw_only=True)
class NamePart:
    """A piece of a composed name: a fixed text, or a field looked up."""

    map: Mapping[int, str] = field(default_factory=dict)
    text: str = ""
    field: str = ""
    otherwise: str = ""
    only_if_flash: bool = False
    override: NameOverride | None = None


@dataclass(frozen=True, kw_only=True)
class NameSuffix:
    """Appended from a revision on."""

    text: str
    min_revision: int
    only_if_flash: bool = False


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How fields become a product name. ``rules``: first match wins; ``compose``: parts joined."""

    method: Literal["rules", "compose"]
    unknown: str
    rules: tuple[NameRule, ...] = ()
    parts: tuple[NamePart, ...] = ()
    unknown_marker: str = ""
    suffix: NameSuffix | None = None


@dataclass(frozen=True, kw_only=True)
class Watchdog:
    """The RTC (or low-power) watchdog: registers and key."""

    config0: int
    config1: int
    write_protect: int
    key: int


@dataclass(frozen=True, kw_only=True)
class WatchdogFire:
    """What to write to be reset by it."""

    config0: int
    config1: int
    settle_s: float


@dataclass(frozen=True, kw_only=True)
class SuperWatchdog:
    """The super watchdog: registers, key, auto-feed bit."""

    config: int
    write_protect: int
    key: int
    auto_feed_bit: int


@dataclass(frozen=True, kw_only=True)
class Reset:
    """Ways to reset beside the lines. ``watchdog_reset`` says whether that way is usable."""

    watchdog_reset: bool
    watchdog: Watchdog | None = None
    watchdog_fire: WatchdogFire | None = None
    super_watchdog: SuperWatchdog | None = None
    disable_watchdogs_when: str = ""
    force_download: BitAt | None = None
    after_otg: str = ""
    long_rts_pulse: str = ""
    clear_force_download_first: bool = False


@dataclass(frozen=True, kw_only=True)
class BootPin:
    """A further strapping pin and its level for download mode."""

    gpio: int
    level: str


@dataclass(frozen=True, kw_only=True)
class Strapping:
    """The pins that choose the boot mode, and the register that remembers them."""

    boot_gpio: int | None = None
    second_gpio: int | None = None
    second_level_for_download: str = ""
    second_gpios: tuple[BootPin, ...] = ()
    address: int | None = None
    bits: Mapping[str, int] = field(default_factory=dict)
    unverified: Unverified = False


@dataclass(frozen=True, kw_only=True)
class VoltageOverride:
    """The ESP32's register that overrides the flash regulator."""

    address: int
    power_bit: int
    high_ref_shift: int
    mid_ref_shift: int
    low_ref_shift: int
    ref_mask: int
    force_bit: int
    pull_down_bit: int
    choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FlashVoltage:
    """Which eFuse and strap bits set the flash voltage."""

    efuse_address: int
    powered_bit: int
    tie_high_bit: int
    force_bit: int
    decision: tuple[str, ...]
    strap_bit: int
    override: VoltageOverride | None = None


@dataclass(frozen=True, kw_only=True)
class CryptCount:
    """The counter whose odd number of set bits means that flash encryption is on."""

    address: int
    shift: int
    bits: int
    enabled_if: Literal["odd_bit_count"]


@dataclass(frozen=True, kw_only=True)
class KeyReadable:
    """ESP32: a flash key exists if it is read-protected or any of its words is not zero."""

    read_disable_address: int
    bit: int
    key_words_from: int
    words: int
    rule: str


@dataclass(frozen=True, kw_only=True)
class KeyValid:
    """ESP32-C2: how to tell that the key block holds a flash key."""

    long_key_address: int
    long_key_bit: int
    read_disable_address: int
    read_disable_mask: int
    short_needs: int
    long_needs: int
    key_address: int
    short_words: int
    long_words: int


@dataclass(frozen=True, kw_only=True)
class KeyManager:
    """The key manager owns the flash key if the field has a bit of ``test_mask``; the area below is then barred."""

    address: int
    shift: int
    test_mask: int
    protects_below: int


@dataclass(frozen=True, kw_only=True)
class KeySlot:
    """Where the purpose of a key block is."""

    key: int
    address: int
    shift: int
    bits: int


@dataclass(frozen=True, kw_only=True)
class KeyRule:
    """A flash key is there when any, or all, of these purposes are set."""

    any_of: tuple[int, ...] = ()
    all_of: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Security:
    """Where secure boot, flash encryption and key purposes are read."""

    flash_encryption: CryptCount | None = None
    manual_encrypt_disable: BitAt | None = None
    secure_boot: BitAt | None = None
    secure_boot_v1: BitAt | None = None
    secure_boot_v2: BitAt | None = None
    secure_boot_v1_protects_below: int | None = None
    key_readable: KeyReadable | None = None
    crypt_config_read_disable: BitAt | None = None
    key_valid: KeyValid | None = None
    key_count: int = 0
    key_purpose_slots: tuple[KeySlot, ...] = ()
    key_purposes: Mapping[int, str] = field(default_factory=dict)
    key_purpose_note: str = ""
    flash_key_valid_if: tuple[KeyRule, ...] = ()
    key_manager_flash_key: KeyManager | None = None
    unverified: Unverified = False


@dataclass(frozen=True, kw_only=True)
class ThenClear:
    """Bits to clear if all are set."""

    address: int
    mask: int
    only_if_both_set: bool


@dataclass(frozen=True, kw_only=True)
class SkipPowerOn:
    """On revision 302 one eFuse bit says that the steps are not needed."""

    address: int
    bit: int
    then_clear: ThenClear


@dataclass(frozen=True, kw_only=True)
class PowerStep:
    """One step: write a value, set or clear bits of a mask, or wait."""

    op: Literal["write", "set", "clear", "wait"]
    address: int = 0
    value: int = 0
    mask: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FlashPowerOn:
    """ESP32-P4: the flash has no power on some revisions until these steps are done."""

    revisions: tuple[int, ...]
    skip_on_302: SkipPowerOn
    steps: tuple[PowerStep, ...]


@dataclass(frozen=True, kw_only=True)
class AttachPads:
    """The pads' registers, ``first`` to ``last``, and the bits that choose the flash controller for each."""

    first: int
    last: int
    value: int
    mask: int


@dataclass(frozen=True, kw_only=True)
class AttachStep:
    """One masked write. ``checked``: it reads back as it was written."""

    address: int
    value: int
    mask: int = 0xFFFFFFFF
    checked: bool = True


@dataclass(frozen=True, kw_only=True)
class FlashAttach:
    """ESP8266: how to connect the flash to its controller by registers, since its ROM has no SPI_ATTACH."""

    pads: AttachPads
    steps: tuple[AttachStep, ...]

    def all_steps(self) -> tuple[AttachStep, ...]:
        """The writes in order, pads first."""
        pads = self.pads
        chosen = range(pads.first, pads.last + 4, 4)
        return (
            *(AttachStep(address=at, value=pads.value, mask=pads.mask) for at in chosen),
            *self.steps,
        )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An ordinary part of today, which the virtual chip is by default; ``fields`` by their names in ``Chip.fields``."""

    revision: int
    crystal_mhz: int
    fields: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """RAM for a first stage of our stub, which the stub's own segments leave free: code, then data and stack."""

    code_start: int
    code_end: int
    data_start: int
    data_end: int


@dataclass(frozen=True, kw_only=True)
class SpiClocks:
    """Words for the flash controller's clock register, for a bus of 80 MHz.

    ``direct``: 40 MHz, for the controller's own pins. ``routed``: 20 MHz, for all others, whose answers come
    later by two cycles of the bus: at 40 MHz they would want one dummy cycle more.
    Source: ESP-IDF bootloader_flash_config_esp32.c, rom/spi_flash.h (ESP_ROM_SPIFLASH_DUMMY_LEN_PLUS_20M, _40M).
    """

    direct: int
    routed: int


@dataclass(frozen=True, kw_only=True)
class OwnStub:
    """What our own stub needs beyond the other tables; ``tools/make_stub.py`` makes its C header from all of them.

    ``platform`` is the C file with what only that family has. ``registers`` are absolute addresses by name,
    ``rom_functions`` names of ``rom_addresses`` that it calls. ``uart_transmit``: where bytes to send go, if not where
    received ones come from. ``first_stage``: for ROMs that cannot change their rate, uploaded before it.
    ``pace``: CPU cycles that the stub takes on this chip, relative to the ESP32; tools/measure_pace.py measures it.
    """

    platform: str
    code_start: int
    code_end: int
    data_start: int
    data_end: int
    cpu_hz: int
    uart_count_bits: int
    uart_fraction: bool
    spi_control_offset: int
    spi_clock_offset: int
    spi_clocks: SpiClocks
    pace: float
    can_encrypt: bool = False
    uart_transmit: int | None = None
    registers: Mapping[str, int] = field(default_factory=dict)
    rom_functions: tuple[str, ...] = ()
    first_stage: FirstStage | None = None
    unverified: Unverified = False


@dataclass(frozen=True, kw_only=True)
class StubRoom:
    """RAM for a stub: where the vendor's lies, what the ROM keeps for itself. ``own``: ours, where there is one.

    ``clock_boost``: when the vendor's stub raises the CPU's clock, always or only for a host at the chip's USB port.
    ``rom_ram``: from ``packet_buffer`` on lies the ROM's last request; from ``rom_pointers_start`` to ``ram_end`` are
    pointers that its functions use.
    """

    flash_block: int
    clock_boost: Literal["always", "usb"]
    reference_layouts: tuple[Mapping[str, Any], ...] = ()
    rom_ram: tuple[Mapping[str, int], ...] = ()
    bootloader_use: tuple[Mapping[str, Any], ...] = ()
    unusable_when: str = ""
    rule: str = ""
    rule_note: str = ""
    secure_boot_start: Mapping[str, Any] = field(default_factory=dict)
    plugins: Mapping[str, int] = field(default_factory=dict)
    own: OwnStub | None = None


@dataclass(frozen=True, kw_only=True)
class RamBank:
    """RAM that is really there. ``words_only``: bytes and half words fault; ``code``: instructions can be fetched.

    ``code_alias``: the instruction bus has the same bytes from that address on, and gives words only.
    """

    name: str
    start: int
    end: int
    words_only: bool = False
    code: bool = False
    code_alias: int | None = None


@dataclass(frozen=True, kw_only=True)
class ClockTree:
    """What the CPU runs at. ``select`` 0: the crystal times ``crystal.clock_multiple``, 1: the PLL, divided as
    ``period`` tells; the peripherals' clock is the crystal's, or ``bus_mhz`` with the PLL. ``double``: a bit that
    doubles the CPU's clock alone. ``down``: bits that leave the PLL without power."""

    select: BitsAt | None = None
    period: BitsAt | None = None
    period_mhz: tuple[int, ...] = ()
    bus_mhz: int = 80
    double: BitAt | None = None
    down: MagicAt | None = None


@dataclass(frozen=True, kw_only=True)
class UartClock:
    """Where a UART picks its clock: ``source`` is one of the bus's (``bus_value``), the crystal (``crystal_value``)."""

    source: BitsAt
    bus_value: int
    crystal_value: int
    divider: BitsAt  # less one
    start: int  # the register's word when a program starts


@dataclass(frozen=True, kw_only=True)
class TimerDog:
    """The watchdog of a timer group: registers and key."""

    config: int
    prescale: int
    hold: int
    feed: int
    write_protect: int
    key: int


@dataclass(frozen=True, kw_only=True)
class Soc:
    """What a program in RAM sees of the chip, in full: ``virtual/registers.py`` derives less for other chips.

    The first of ``ram`` is the one for data and stacks. ``rom`` reads as zeros but for what is known.
    """

    ram: tuple[RamBank, ...]
    rom: tuple[Region, ...]
    clock: ClockTree
    software_reset: BitAt | None
    uart_clock: UartClock | None = None
    rtc_watchdog: Watchdog | None = None  # where ``reset`` has none, since no client may use it
    timer_watchdog: TimerDog | None = None
    systimer: int | None = None
    unverified: Unverified = False


@dataclass(frozen=True, kw_only=True)
class BootBanner:
    """What the ROM prints at reset, as public boot logs show it, on chips with a banner of the form ``ESP-ROM:…``.

    ``version`` and ``built`` are the first two lines; the two straps are the values printed as ``boot:``.
    """

    version: str | None = None
    built: str = ""
    download_strap: int = 0x04
    app_strap: int = 0x0C
    download_mode: str = "DOWNLOAD(USB/UART0)"


@dataclass(frozen=True, kw_only=True, repr=False)
class Chip:
    """All facts of one chip. ``rom`` is how its ROM loader speaks."""

    id: str
    name: str
    identity: Identity
    cpu: Cpu
    radio: Radio
    crystal: Crystal
    uart: Uart
    usb: Usb
    spi: Spi
    flash: Flash
    mapped_flash: MappedFlash
    image: ImageFormat
    memory: Memory
    mac: Mac
    revision: RevisionRule
    naming: Naming
    reset: Reset
    strapping: Strapping
    rom: Dialect
    default_flash_size: int
    stub: StubRoom
    sample: Sample
    boot_banner: BootBanner = field(default_factory=BootBanner)
    soc: Soc | None = None
    fields: Mapping[str, BitField] = field(default_factory=dict)
    field_values: Mapping[str, Any] = field(default_factory=dict)
    security: Security = field(default_factory=Security)
    flash_voltage: FlashVoltage | None = None
    flash_power_on: FlashPowerOn | None = None
    flash_attach: FlashAttach | None = None
    peripherals: Mapping[str, int] = field(default_factory=dict)
    rom_addresses: Mapping[str, int] = field(default_factory=dict)
    rom_addresses_rev300: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    maturity: str = "released"

    def __repr__(self) -> str:
        return f"<Chip {self.id}>"
