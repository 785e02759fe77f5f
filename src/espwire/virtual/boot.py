"""The boot of a virtual chip: the messages it prints, and the boot mode that its strapping pins select.

The texts are those of public logs and of runs of ROMs; any other chip gets its family's form (see ``BootLog``). The number
behind ``boot:`` is the strap value; ``rst:`` is the reset reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, NamedTuple

from espwire.chips.model import Chip
from espwire.virtual.cpu.memory import find_cause

BOOT_S = 0.03  # from the rise of EN to the ROM's first character
# the ESP32's strapping pins that are named after their pads
NAMED_PADS = {"mtdo": 15, "mtdi_flash_voltage": 12}


class Reason(Enum):
    """Reset reason."""

    POWER_ON = "power-on"
    SOFTWARE = "software"
    WATCHDOG = "watchdog"
    SUPER_WATCHDOG = "super-watchdog"
    USB = "usb"
    BROWN_OUT = "brown-out"
    CRASH = "crash"  # the program crashed and restarts the CPU


@dataclass(frozen=True, kw_only=True)
class BootText:
    """Boot texts of a chip. ``reasons``: number and name of each reset reason.

    ``bad_image``: no image is where the bootloader belongs; ``opening_v2``, ``refused_v1``, ``refused_v2``: secure boot.
    """

    opening: str
    download_strap: int
    app_strap: int
    download_name: str
    app_name: str
    reasons: dict[Reason, str]
    ready: str = "waiting for download\r\n"
    download_names: dict[int, tuple[str, str]] = field(default_factory=dict)
    form: str = "rst:{reason},boot:{strap:#x} ({name})\r\n"
    program_end: str = ""
    interpreter: bool = False
    wrong_mode: tuple[str, str] = ("USB_BOOT", "wait usb download\r\n")
    bad_image: str = "invalid header: 0x{head}"
    opening_v2: str = "Valid secure boot key blocks: {numbers}"
    refused_v1: str = ""
    refused_v2: str = "secure boot verification failed\r\nets_main.c 329 "

    def download(self, reason: Reason, strap: int | None = None) -> bytes:
        """Printed before download mode; ``strap`` overrides the usual strapping value."""
        strap = self.download_strap if strap is None else strap
        name, ready = self.download_names.get(strap, (self.download_name, self.ready))
        return self._fill(reason, strap, name) + ready.encode()

    def app(self, reason: Reason, strap: int | None = None) -> bytes:
        """Printed before the application."""
        return self._fill(reason, self.app_strap if strap is None else strap, self.app_name)

    def wrong(self, reason: Reason, strap: int) -> bytes:
        """Printed when the strapping pins select neither the loader nor the application."""
        name, rest = self.download_names.get(strap, self.wrong_mode)
        return self._fill(reason, strap, name.format(strap)) + rest.encode()

    def number(self, reason: Reason) -> int:
        """The number of a reset reason, as the chip's register has it."""
        return int(self._find_reason(reason).split()[0], 0)

    def _find_reason(self, reason: Reason) -> str:
        return self.reasons.get(reason, self.reasons[Reason.WATCHDOG])

    def _fill(self, reason: Reason, strap: int, name: str) -> bytes:
        known = self._find_reason(reason)
        return (self.opening + self.form.format(reason=known, strap=strap, name=name)).encode()


class Straps(NamedTuple):
    """State of the strapping pins: the value that is printed and latched, and the boot mode."""

    value: int
    mode: Literal["download", "app", "wrong"]


def read_straps(chip: Chip, text: BootText, *, boot_low: bool, pins: Mapping[int, bool]) -> Straps:
    """Sample the strapping pins.

    :param boot_low: whether the boot pin is pulled low
    :param pins: levels that the board forces on pins, by their GPIO numbers, True high; also the boot pin's
    """
    strapping = chip.strapping
    boot_low = (
        not pins.get(strapping.boot_gpio, not boot_low)
        if strapping.boot_gpio is not None
        else boot_low
    )
    value = text.download_strap if boot_low else text.app_strap
    for gpio, bit in _strap_bits(chip).items():
        if gpio in pins:
            value = value & ~(1 << bit) | pins[gpio] << bit
    seconds: dict[int, str] = {pin.gpio: pin.level for pin in strapping.second_gpios}
    if strapping.second_gpio is not None:
        seconds[strapping.second_gpio] = strapping.second_level_for_download
    fits = all(
        pins.get(gpio, level == "high") is (level == "high") for gpio, level in seconds.items()
    )
    # the further pins matter only for download mode, except on the ESP8266, where three bits select the mode
    if boot_low or strapping.second_gpios:
        return Straps(value, "wrong" if not fits else "download" if boot_low else "app")
    return Straps(value, "app")


def _strap_bits(chip: Chip) -> Mapping[int, int]:
    """GPIO number → bit of the strap value."""
    strapping = chip.strapping
    found = {int(name[4:]): bit for name, bit in strapping.bits.items() if name.startswith("gpio")}
    found |= {
        gpio: strapping.bits[name] for name, gpio in NAMED_PADS.items() if name in strapping.bits
    }
    for name, gpio in (("boot", strapping.boot_gpio), ("second", strapping.second_gpio)):
        if gpio is not None and name in strapping.bits:
            found[gpio] = strapping.bits[name]
    return found


ESP8266_REASONS = {
    Reason.POWER_ON: "1",
    Reason.SOFTWARE: "2",
    Reason.WATCHDOG: "4",
    Reason.BROWN_OUT: "1",  # it has no brown-out detector
    Reason.CRASH: "2",
}
ESP32_REASONS = {
    Reason.POWER_ON: "0x1 (POWERON_RESET)",
    Reason.SOFTWARE: "0x3 (SW_RESET)",
    Reason.WATCHDOG: "0x10 (RTCWDT_RTC_RESET)",
    Reason.BROWN_OUT: "0xf (RTCWDT_BROWN_OUT_RESET)",
    Reason.CRASH: "0xc (SW_CPU_RESET)",
}
RTC_REASONS = {
    Reason.POWER_ON: "0x1 (POWERON)",
    Reason.SOFTWARE: "0x3 (RTC_SW_SYS_RST)",
    Reason.WATCHDOG: "0x10 (RTCWDT_RTC_RST)",
    Reason.SUPER_WATCHDOG: "0x12 (SUPER_WDT_RST)",
    Reason.USB: "0x15 (USB_UART_CHIP_RESET)",
    Reason.BROWN_OUT: "0xf (BROWNOUT_RST)",
    Reason.CRASH: "0xc (RTC_SW_CPU_RST)",
}
LP_REASONS = {
    Reason.POWER_ON: "0x1 (POWERON)",
    Reason.SOFTWARE: "0x3 (LP_SW_HPSYS)",
    Reason.WATCHDOG: "0x10 (LP_WDT_SYS)",
    Reason.SUPER_WATCHDOG: "0x12 (LP_SWDT_SYS)",
    Reason.USB: "0x15 (USB_UART_HPSYS)",
    Reason.BROWN_OUT: "0xf (LP_BOD_SYS)",
    Reason.CRASH: "0xc (SW_CPU)",
}


UART0_MODE = {2: ("UART0_BOOT", "wait uart0 download")}


def find_boot_text(chip: Chip) -> BootText:
    """The boot texts of a chip, by the generation of its ROM and its ``boot_log``."""
    if not chip.rom.attach_bytes:
        return BootText(
            opening="\r\n ets Jan  8 2013,",
            form="rst cause:{reason}, boot mode:({name})\r\n\r\n",
            download_strap=1,
            app_strap=3,
            download_name="1,6",
            app_name="3,6",
            reasons=ESP8266_REASONS,
            ready="",
            wrong_mode=("{},6", ""),
        )
    if chip.rom.begin_words == 4:
        return BootText(
            opening="ets Jul 29 2019 12:21:46\r\n\r\n",
            download_strap=0x3,
            app_strap=0x13,
            download_name="DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2)",
            app_name="SPI_FAST_FLASH_BOOT",
            reasons=ESP32_REASONS,
            download_names={0xF: ("UART_BOOT(UART0)", "")},
            program_end="flash read err, 631\r\nFalling back to built-in command interpreter.\r\nOK\r\n>",
            interpreter=True,
            wrong_mode=("HSPI_FLASH_BOOT", "flash read err, 1000\r\nets_main.c 371 \r\n"),
            bad_image="flash read err, 1000\r\nets_main.c 371 ",
            opening_v2="secure boot v2 enabled",
            refused_v1="secure boot check fail\r\nets_main.c 371 ",
            refused_v2="secure boot verification failed\r\nets_main.c 371 ",
        )
    log = chip.boot_log
    modes = log.other_modes or (UART0_MODE if chip.cpu.architecture == "riscv" else {})
    reasons = RTC_REASONS if chip.reset.super_watchdog is None or _is_rtc(chip) else LP_REASONS
    built_line = f"Build:{log.built}\r\n" if log.built else ""
    return BootText(
        opening=f"ESP-ROM:{log.banner or chip.id}\r\n{built_line}",
        download_strap=log.download_strap,
        app_strap=log.app_strap,
        download_name=log.download_mode,
        app_name="SPI_FAST_FLASH_BOOT",
        reasons=reasons | {Reason(name): text for name, text in log.reset_reasons.items()},
        download_names={
            strap: (name, f"{line}\r\n" if line else "") for strap, (name, line) in modes.items()
        },
        program_end="user code done\r\n",
    )


def _is_rtc(chip: Chip) -> bool:
    """Whether the chip has the RTC of the first generations: the super watchdog's auto-feed bit shows it."""
    swd = chip.reset.super_watchdog
    return swd is not None and swd.auto_feed_bit == 31


def panic_text(fault: str, address: int, cause: int) -> bytes:
    """What a RISC-V ROM prints at a bus fault; unknown registers are 0."""
    rows = (
        ("PC", "RA", "SP", "GP"),
        ("TP", "T0", "T1", "T2"),
        ("S0", "S1", "A0", "A1"),
        ("A2", "A3", "A4", "A5"),
        ("A6", "A7", "S2", "S3"),
        ("S4", "S5", "S6", "S7"),
        ("S8", "S9", "S10", "S11"),
        ("T3", "T4", "T5", "T6"),
    )
    lines = [f"Guru Meditation Error: Core 0 panic'ed ({fault})", "Core 0 register dump:"]
    lines += ["  ".join(f"{name:<8}: 0x00000000" for name in row) for row in rows]
    lines.append(
        f"MSTATUS : 0x00001880  MCAUSE  : {cause:#010x}  MTVAL   : {address:#010x}  INTLEVEL: 0x00000001"
    )
    return ("\r\n".join(lines) + "\r\n\r\n\r\nStack memory:\r\n\r\n\r\n").encode()


def rom_crash_text(fault: str, address: int, pc: int) -> bytes:
    """Printed when a mask ROM crashes and has no handler for it. No real chip prints this."""
    return f"virtual chip: the ROM crashed at {pc:#010x}: {fault} at {address:#010x}\r\n".encode()


def refusal_text(chip: Chip, entry: int) -> bytes:
    """Printed instead of running a program for which there is no engine. No real chip prints this."""
    cpu = f"{chip.cpu.isa} programs are not emulated"
    return f"virtual chip: cannot run the program at {entry:#010x}: {cpu}\r\n".encode()


FAULT_CAUSES = {
    "Instruction access fault": 1,
    "Illegal instruction": 2,
    "Load address misaligned": 4,
    "Load access fault": 5,
    "Store/AMO address misaligned": 6,
    "Store/AMO access fault": 7,
}
FAULT_NAMES = {cause: name for name, cause in FAULT_CAUSES.items()}


def find_fault(what: str) -> str:
    """The RISC-V ROM's name of an engine's fault (``CpuFault.what``).

    >>> find_fault("unaligned load"), find_fault("store to read-only memory"), find_fault("illegal instruction 0x0")
    ('Load address misaligned', 'Store/AMO access fault', 'Illegal instruction')
    """
    return FAULT_NAMES.get(find_cause(what), "Illegal instruction")
