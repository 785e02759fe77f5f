"""The facts of one chip as records. ``registry.py`` loads them from ``data/<chip>.toml``, table by table.

Addresses are absolute, sizes are in bytes, revisions are ``major * 100 + minor``. In the data files, a comment
``unverified`` marks values that only one source has.
"""

# no `from __future__ import annotations`: the registry reads the types of the fields

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from espwire.protocol.dialect import Dialect
from espwire.record import Record

EMPTY: Mapping[Any, Any] = MappingProxyType({})


class BitPart(Record):
    """A part of a value that registers hold: ``((word at address >> shift) & mask of bits) << to``."""

    address: int
    shift: int
    bits: int
    to: int = 0


BitField = tuple[BitPart, ...]
NO_RAM = ("MASK", "DROM", "IROM", "PADDING", "EXTRAM_DATA")  # endings of names in memory maps
LOOSE_END = 0x8000  # bytes: some maps end before the RAM does


class BitAt(Record):
    """One bit of a register."""

    address: int
    bit: int
    min_revision: int | None = None


class RegisterValue(Record):
    """A register and the value of its bits in ``mask``."""

    address: int
    value: int
    mask: int = 0xFFFFFFFF


class Identity(Record):
    """How detection recognizes the chip. ``security_info_bytes`` 0: the ROM does not have GET_SECURITY_INFO."""

    detect: Literal["magic", "security_info"]
    magic_address: int
    magic_values: tuple[int, ...]
    security_info_bytes: int
    image_chip_id: int | None = None
    legacy_magic_values: tuple[int, ...] = ()  # of early samples; shared by chips: identify none
    alternate_detect: RegisterValue | None = None


class Cpu(Record):
    """The processor."""

    architecture: Literal["xtensa", "riscv"]
    cores: int
    max_mhz: int
    low_power_core: bool
    elf_machine: int
    isa: str = ""


class Radio(Record):
    """Radios, as the maker names their standards; empty: none."""

    wifi: str = ""
    bluetooth: str = ""
    ieee802154: bool = False


class RomCalibration(Record):
    """Where the ESP32's ROM keeps its measurement of the clock, which scales the number in CHANGE_BAUDRATE.

    The clock in Hz is ``measurement * 15625 * ck8m / 40``.
    """

    address: int
    shift: int
    mask: int
    ck8m_from: str
    threshold_hz: int
    high_hz: int
    low_hz: int


class Crystal(Record):
    """Possible crystals.

    ``method``: fixed, or estimated from the divider of the UART's clock as ``baud * divider / 1e6 / clock_multiple``;
    an estimate above a key of ``thresholds`` (descending, in MHz) means the crystal that is its value.
    """

    mhz: tuple[int, ...]
    method: Literal["fixed", "uart_divider"]
    clock_multiple: int = 1
    thresholds: Mapping[int, int] = EMPTY
    warn_if_off_by_mhz: int = 1
    rom_calibration: RomCalibration | None = None
    rom_assumes_mhz: int | None = None
    rom_setting: BitPart | None = None


class Uart(Record):
    """UART0. ``update_address``: a register whose bit 0 must be written for a new divider to take effect."""

    clock_divider_address: int
    clock_divider_mask: int
    date_address: int
    rom_baud: int
    update_address: int | None = None
    boot_log_baud_26mhz: int | None = None


class ConsoleVariable(Record):
    """The ROM variable with the kind of port in use. Chips above ``max_revision`` have the ``later_`` values."""

    mask: int
    address: int | None = None
    otg_value: int | None = None
    serial_jtag_value: int | None = None
    max_revision: int | None = None
    later_address: int | None = None
    later_serial_jtag_value: int | None = None

    def find_address(self, revision: int) -> int | None:
        """Its address; None: not known."""
        later = self.max_revision is not None and revision > self.max_revision
        return self.later_address if later else self.address

    def find_serial_jtag(self, revision: int) -> tuple[int, int] | None:
        """Its address, and its value while the ROM uses USB-Serial/JTAG; None: not known."""
        later = self.max_revision is not None and revision > self.max_revision
        address = self.find_address(revision)
        value = (self.later_serial_jtag_value if later else None) or self.serial_jtag_value
        return (address, value) if address is not None and value is not None else None


class Usb(Record):
    """Native USB."""

    otg: bool
    serial_jtag: bool
    vendor_id: int | None = None
    otg_product_id: int | None = None
    otg_ram_block: int | None = None
    serial_jtag_product_id: int | None = None
    console_variable: ConsoleVariable | None = None


class LengthInUser1(Record):
    """The ESP8266 has data lengths in its USER1 register, at these shifts."""

    mosi_shift: int
    miso_shift: int


class Spi(Record):
    """The SPI controller of the flash. Offsets from ``base``."""

    base: int
    command_offset: int
    address_offset: int
    status_offset: int
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
    hspi_pins: Mapping[str, int] = EMPTY


class Flash(Record):
    """The flash as the ROM sees it. The codes are those of bytes 2 and 3 of an image header.

    ``octal_flag``: the eFuse by which the ROM drives the flash chip with eight data lines.
    ``calibration_size``: bytes at the end of the flash where the SDK keeps RF calibration if there is no partition
    table.
    ``encrypts_from_revision``: on earlier revisions, the chip is reported to encrypt downloads wrongly.
    """

    bootloader_offset: int
    modes: Mapping[str, int]
    sizes: Mapping[str, int]
    frequencies: Mapping[str, int]
    default_frequency: str
    default_size: int
    sector_size: int
    address_32bit: bool
    encrypted_write_align: int = 0
    encrypts_from_revision: int = 0
    octal_flag: BitAt | None = None
    calibration_size: int = 0


class MappedFlash(Record):
    """Address ranges where the caches map flash: instructions, and data where those have their own."""

    irom_start: int
    irom_end: int
    drom_start: int | None = None
    drom_end: int | None = None

    def holds(self, address: int) -> bool:
        """Whether ``address`` is in one of them."""
        if self.irom_start <= address < self.irom_end:
            return True
        return self.drom_start is not None and self.drom_start <= address < (self.drom_end or 0)


class ImageFormat(Record):
    """Firmware images: header, page sizes of the flash MMU, UF2 family.

    ``extended_header``: 16 bytes behind the first 8, with chip id and revisions; without them an image is of the
    ESP8266's formats. ``legacy_revision``: what the header's one-byte minimum revision means.
    """

    extended_header: bool
    mmu_page_sizes: tuple[int, ...]
    legacy_revision: Literal["major", "minor"] = "major"
    default_mmu_page_size: int | None = None
    uf2_family: int | None = None
    page_tail: int = 0  # a mapped segment may not end less than this into a page
    secure_boot_v1: bool = False  # images can be padded for a signature of that version


class Region(Record):
    """A named, half-open range of addresses."""

    name: str
    start: int
    end: int


class Memory(Record):
    """The memory map that image segments are sorted by; ``measured`` has the true limits where the map is loose.

    ``measured["answers"]``: reserved ranges that read 0, where an access does not fault.
    """

    map: tuple[Region, ...]
    measured: Mapping[str, Any] = EMPTY

    def find_names(self, address: int) -> tuple[str, ...]:
        """Names of the memories that have ``address``."""
        names = (region.name for region in self.map if region.start <= address < region.end)
        return tuple(dict.fromkeys(names))

    def may_be_ram(self, start: int, end: int) -> bool:
        """Whether programs can be loaded into the range."""
        return any(
            region.start <= start and end <= region.end + LOOSE_END
            for region in self.map
            if not region.name.endswith(NO_RAM)
        )


class MacCrc(Record):
    """Where the ESP32 keeps the CRC-8 (reflected) of its MAC address. That of a custom address is calculated alike."""

    word: str
    shift: int
    poly: int
    init: int

    def compute(self, mac: bytes) -> int:
        """The CRC-8 of a MAC address."""
        crc = self.init
        for byte in mac:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (self.poly if crc & 1 else 0)
        return crc


class Mac(Record):
    """Where the MAC address is: ``high_word[15:0]`` then ``low_word``, big-endian; or the ESP8266's three words with
    rules for the vendor part."""

    low_word: int | None = None
    high_word: int | None = None
    crc8: MacCrc | None = None
    extension: str = ""
    eui64: str = ""
    words: Mapping[str, int] = EMPTY
    oui_rules: tuple[Mapping[str, str], ...] = ()
    tail: str = ""
    chip_id: str = ""


class RevisionRule(Record):
    """How the fields become a revision; ``constant``: the chip does not have such fields."""

    constant: int | None = None
    major_from_raw: Mapping[int, int] = EMPTY
    major_otherwise: int = 0
    treat_as_zero_when: Mapping[str, int] = EMPTY


class NameRule(Record):
    """The product name if every field in ``when`` has its value, or one of its values."""

    when: Mapping[str, int | tuple[int, ...]]
    name: str


class NameOverride(Record):
    """A text used instead of a part's own if every field in ``when`` has its value."""

    when: Mapping[str, int]
    text: str


class NamePart(Record):
    """A part of a composed name: a fixed text, or the text for a field's value."""

    map: Mapping[int, str] = EMPTY
    text: str = ""
    field: str = ""
    otherwise: str = ""
    only_if_flash: bool = False
    override: NameOverride | None = None


class NameSuffix(Record):
    """A text appended from a revision on."""

    text: str
    min_revision: int
    only_if_flash: bool = False


class Naming(Record):
    """How fields become a product name. ``rules``: the first match wins; ``compose``: parts are joined."""

    method: Literal["rules", "compose"]
    unknown: str
    rules: tuple[NameRule, ...] = ()
    parts: tuple[NamePart, ...] = ()
    unknown_marker: str = ""
    suffix: NameSuffix | None = None


class Watchdog(Record):
    """The RTC (or low-power) watchdog: registers and key."""

    config0: int
    config1: int
    write_protect: int
    key: int


class WatchdogFire(Record):
    """What to write to have it reset the chip."""

    config0: int
    config1: int
    settle_s: float


class SuperWatchdog(Record):
    """The super watchdog: registers, key, auto-feed bit."""

    config: int
    write_protect: int
    key: int
    auto_feed_bit: int


class Reset(Record):
    """Resets by registers.

    ``disable_watchdogs_over_usb``: over USB-Serial/JTAG they stay on in download mode and would reset the chip.
    ``otg_reset``: over USB-OTG the watchdog is needed to leave download mode, always or only if the boot pin was low
    at reset and software did not request download mode. ``clear_force_download_first``: before a hard reset.
    """

    watchdog_reset: bool
    watchdog: Watchdog | None = None
    watchdog_fire: WatchdogFire | None = None
    super_watchdog: SuperWatchdog | None = None
    disable_watchdogs_over_usb: bool = False
    force_download: BitAt | None = None
    otg_reset: Literal["", "watchdog", "watchdog-if-strapped"] = ""
    clear_force_download_first: bool = False


class BootPin(Record):
    """A further strapping pin and its level for download mode."""

    gpio: int
    level: Literal["low", "high"]


class Strapping(Record):
    """The pins that select the boot mode, and the register that holds their levels at reset."""

    boot_gpio: int | None = None
    second_gpio: int | None = None
    second_level_for_download: Literal["", "low_or_floating", "high"] = ""
    second_gpios: tuple[BootPin, ...] = ()
    address: int | None = None
    bits: Mapping[str, int] = EMPTY
    unverified: tuple[str, ...] = ()


class BootLog(Record):
    """The text that the ROM prints at reset. ``*_strap``: the value behind ``boot:``. ``banner`` empty: the chip's id.

    ``other_modes``: name and last line of further modes without a boot from flash, by strap value.
    ``reset_reasons``: number and name of reset reasons that differ from those of the chip's generation.
    """

    banner: str = ""
    built: str = ""
    download_strap: int = 0x04
    app_strap: int = 0x0C
    download_mode: str = "DOWNLOAD(USB/UART0)"
    other_modes: Mapping[int, tuple[str, str]] = EMPTY
    reset_reasons: Mapping[str, str] = EMPTY


class FlashVoltage(Record):
    """The ESP32's register that overrides the regulator of the flash."""

    address: int
    power_bit: int
    high_ref_shift: int
    mid_ref_shift: int
    low_ref_shift: int
    ref_mask: int
    force_bit: int
    pull_down_bit: int
    choices: tuple[str, ...]


class KeyReadable(Record):
    """ESP32: a flash key exists if it is read-protected or any of its words is not zero."""

    read_disable_address: int
    bit: int
    key_words_from: int
    words: int


class KeyValid(Record):
    """ESP32-C2: when the key block holds a flash key."""

    long_key_address: int
    long_key_bit: int
    read_disable_address: int
    read_disable_mask: int
    short_needs: int
    long_needs: int
    key_address: int
    short_words: int
    long_words: int


class KeyManager(Record):
    """The key manager owns the flash key if the field has a bit of ``test_mask``; flash below is then protected."""

    address: int
    shift: int
    test_mask: int
    protects_below: int


class KeyRule(Record):
    """A flash key exists if any, or all, of these key purposes are set."""

    any_of: tuple[int, ...] = ()
    all_of: tuple[int, ...] = ()


class Security(Record):
    """Where secure boot, flash encryption and key purposes are read.

    ``flash_encryption``: the counter; an odd number of set bits means enabled. ``key_purpose_slots``: by key number.
    ``spare_purpose``: what the security information has for one key more than there are. ``rom_eco``: where the ROM has its
    version, the last word of the security information, and that of a known ROM.
    ``secure_version``: the anti-rollback version, the number of bits that are set.
    ``signed_bootloader_limit``: bytes of a bootloader, without its signature sector, that the ROM can check with secure
    boot version 2. Source: ESP-IDF, "Bootloader Size".
    """

    flash_encryption: BitPart | None = None
    manual_encrypt_disable: BitAt | None = None
    secure_boot: BitAt | None = None
    secure_boot_v1: BitAt | None = None
    secure_download: BitAt | None = None
    secure_boot_v2: BitAt | None = None
    secure_boot_v1_protects_below: int | None = None
    signed_bootloader_limit: int = 0x10000
    secure_version: BitPart | None = None
    key_readable: KeyReadable | None = None
    crypt_config_read_disable: BitAt | None = None
    key_valid: KeyValid | None = None
    key_count: int = 0
    spare_purpose: int = 0
    rom_eco: RegisterValue | None = None
    key_purpose_slots: tuple[BitPart, ...] = ()
    key_purposes: Mapping[int, str] = EMPTY
    flash_key_valid_if: tuple[KeyRule, ...] = ()
    key_manager_flash_key: KeyManager | None = None


class PowerStep(Record):
    """Write a value, set or clear the bits of a mask, or wait."""

    op: Literal["write", "set", "clear", "wait"]
    address: int = 0
    value: int = 0
    mask: int = 0
    seconds: float = 0.0


class FlashPowerOn(Record):
    """ESP32-P4: steps that switch on the flash's power, on these revisions.

    ``skip_on_302``: on revision 302, an eFuse bit that makes the steps unnecessary; then only ``skipped_clears`` is
    written, if all of its bits are set.
    """

    revisions: tuple[int, ...]
    skip_on_302: BitAt
    skipped_clears: RegisterValue
    steps: tuple[PowerStep, ...]


class AttachStep(Record):
    """A masked write. ``checked``: the register reads back as written; ``pad``: one of the flash's pads."""

    address: int
    value: int
    mask: int = 0xFFFFFFFF
    checked: bool = True
    pad: bool = False


class ClockStep(Record):
    """A masked write to a register of clocks or core voltage.

    ``update``: the chip's clocks are updated after it (``ClockTree.update``); ``wait``: for 1 ms after it. Both apply
    as well when it is undone.
    """

    address: int
    mask: int
    value: int
    update: bool = False
    wait: bool = False


class Sample(Record):
    """A typical current chip, which the virtual chip is by default. ``fields`` by their names in ``Chip.fields``."""

    revision: int
    crystal_mhz: int
    fields: Mapping[str, int] = EMPTY


class ProgramRam(Record):
    """RAM for a form of the stub: code, then data and stack."""

    code_start: int
    code_end: int
    data_start: int
    data_end: int


class SpiClocks(Record):
    """Values of the flash controller's clock register, for a bus of 80 MHz.

    ``direct``: 40 MHz, for the controller's own pins. ``routed``: 20 MHz, for all others: their inputs arrive two bus
    cycles later, so 40 MHz would require one more dummy cycle.
    Source: ESP-IDF bootloader_flash_config_esp32.c, rom/spi_flash.h (ESP_ROM_SPIFLASH_DUMMY_LEN_PLUS_20M, _40M).
    """

    direct: int
    routed: int


class OwnStub(Record):
    """What espwire's own stub requires in addition to other tables; ``tools/make_stub.py`` makes its C header of all.

    ``platform`` is the C file of that chip family. ``registers`` are absolute addresses by name, ``rom_functions``
    names from ``rom_addresses``. ``uart_transmit``: the transmit FIFO's address if it is not the receive FIFO's.
    ``flash_steps``, ``clock_steps``: masked writes, undone before the stub starts another program; the first put the
    flash controller back to one data line, the others raise the CPU clock (none: it stays as the ROM has set it).
    ``uart_bus``: the UART's clock changes with the CPU clock while a register has this value. ``spi_state``: bits of
    the SPI controller's command register that are 0 while it is idle.
    ``first_stage``: for ROMs that cannot change their baud rate; uploaded before the stub, and
    not in the way of its segments. ``older``: for chips up to ``older_revision``, whose ROM uses other RAM.
    ``can_lzma``: whether RAM and code memory have room for the LZMA decoder.
    ``slowest_hz``: of the CPU with the stub, where ``cpu_hz`` is only the most that it can be.
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
    can_lzma: bool = True
    slowest_hz: int | None = None
    uart_transmit: int | None = None
    uart_bus: RegisterValue | None = None
    spi_state: int = 0
    flash_steps: tuple[RegisterValue, ...] = ()
    clock_steps: tuple[ClockStep, ...] = ()
    registers: Mapping[str, int] = EMPTY
    rom_functions: tuple[str, ...] = ()
    first_stage: ProgramRam | None = None
    older: ProgramRam | None = None
    older_revision: int = 0


class StubRoom(Record):
    """RAM for a stub: where the vendor's is loaded and what the ROM uses itself. ``own``: espwire's stub, if it has one.

    ``clock_boost``: when the vendor's stub raises the CPU's clock, always or only over the chip's USB port, to
    ``boost_mhz`` (src/target/CHIP/src/clock.c of esp-stub-lib). ``rom_ram``: the ROM's last request starts at ``packet_buffer``; pointers for its functions are from
    ``rom_pointers_start`` to ``ram_end``.
    """

    flash_block: int
    clock_boost: Literal["always", "usb"]
    boost_mhz: int = 160
    reference_layouts: tuple[Mapping[str, Any], ...] = ()
    rom_ram: tuple[Mapping[str, int], ...] = ()
    unusable_when: Literal["", "secure boot enabled", "revision 0"] = ""
    own: OwnStub | None = None


class RamBank(Record):
    """RAM that really exists. ``words_only``: byte and half-word accesses fault; ``code``: instructions can be fetched.

    ``code_alias``: where the instruction bus has the same bytes, for word accesses only.
    """

    name: str
    start: int
    end: int
    words_only: bool = False
    code: bool = False
    code_alias: int | None = None


class ClockTree(Record):
    """The CPU's clock. ``select`` 0: the crystal times ``crystal.clock_multiple``; ``pll``: the PLL, divided by ``period``.

    The PLL gives ``period_mhz`` to the CPU and ``bus_mhz`` to the peripherals, or ``pll_multiple`` times the crystal to
    the CPU alone; the peripherals otherwise run at the crystal's frequency. ``double``: a bit that doubles the CPU's clock alone. ``down``: bits that switch off
    the PLL. ``flash_multiple``: times the crystal, the flash controller's input from the PLL, if not that of the
    peripherals. ``update``: a bit that must be set for selections to take effect; it clears itself. ``divider``: divides the
    crystal for CPU and peripherals, by its value plus one; ``divider_start`` is its value after a reset.
    """

    select: BitPart | None = None
    pll: int = 1
    update: BitAt | None = None
    period: BitPart | None = None
    period_mhz: tuple[int, ...] = ()
    pll_multiple: int | None = None
    bus_mhz: int = 80
    double: BitAt | None = None
    down: RegisterValue | None = None
    divider: BitPart | None = None
    divider_start: int = 0
    flash_multiple: float | None = None


class UartClock(Record):
    """The clock of a UART: ``source`` is ``bus_value`` for the peripherals' clock, ``crystal_value`` for the crystal."""

    source: BitPart
    bus_value: int
    crystal_value: int
    divider: BitPart  # minus one
    start: int  # the register's value when a program starts


class TimerDog(Record):
    """The watchdog of a timer group: registers and key."""

    config: int
    prescale: int
    hold: int
    feed: int
    write_protect: int
    key: int


class Soc(Record):
    """The whole chip as a program in RAM sees it, for chips whose programs the virtual chip runs.

    The first entry of ``ram`` is for data and stacks. ``rom`` reads as zeros where its content is not known. Without
    ``ram``, both come from the memory map.
    """

    ram: tuple[RamBank, ...] = ()
    rom: tuple[Region, ...] = ()
    clock: ClockTree = ClockTree()
    software_reset: BitAt | None = None
    uart_clock: UartClock | None = None
    rtc_watchdog: Watchdog | None = None  # if ``reset`` has none because clients may not use it
    timer_watchdog: TimerDog | None = None
    systimer: int | None = None


class Chip(Record):
    """All facts of one chip. ``rom`` describes its ROM loader's protocol."""

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
    stub: StubRoom
    sample: Sample
    boot_log: BootLog = BootLog()
    soc: Soc | None = None
    fields: Mapping[str, BitField] = EMPTY
    field_values: Mapping[str, Any] = EMPTY
    security: Security = Security()
    flash_voltage: FlashVoltage | None = None
    flash_power_on: FlashPowerOn | None = None
    flash_attach: tuple[AttachStep, ...] = ()  # ESP8266, whose ROM does not have SPI_ATTACH
    peripherals: Mapping[str, int] = EMPTY
    rom_addresses: Mapping[str, int] = EMPTY
    notes: tuple[str, ...] = ()
    maturity: str = "released"

    def __repr__(self) -> str:
        return f"<Chip {self.id}>"
