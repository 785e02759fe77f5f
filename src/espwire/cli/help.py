"""Help: the program's own on one screen, and the examples at the end of each command's.

The first example of a command is also in the hint for missing arguments. tests/unit/cli/test_help.py checks that all parse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from espwire.cli.command_table import Entry

# the options that most people need; only the names of the others are listed
OPTIONS = {
    "-p, --port PORT": "/dev/ttyUSB0, COM3, rfc2217://…, espwire://…, socket://…, virtual:esp32c3 (default: the only connected board)",
    "-c, --chip CHIP": "expected chip: esp8266, esp32, esp32s2 … (default: auto-detect)",
    "-b, --baud N": "highest baud rate for data (default: the fastest that works)",
    "--before, -a, --after WAY": "how to reset into download mode, and what to do with the chip at the end",
    "--no-stub, --stub FILE": "use the ROM bootloader only; use this stub flasher (Espressif's JSON format)",
    "-v, -q, -t, --json": "more detail; results only; print each packet; one JSON event per line",
}
FOOTER = """\
Examples:
  {program} -p /dev/ttyUSB0 chip-info
  {program} -p /dev/ttyUSB0 -b 460800 write-flash 0x0 firmware.bin
  {program} -p virtual:esp32c3 write-flash 0x0 firmware.bin      (no board needed)
  {program} demo                                                 (a demonstration, no board needed)

Run `{program} COMMAND --help` for its options and examples,
`{program} --help-all` for everything.
"""


def write_screen(
    command: click.Command,
    context: click.Context,
    formatter: click.HelpFormatter,
    sections: Mapping[str, Mapping[str, Entry]],
) -> None:
    """Write usage, commands by section, options and examples."""
    command.format_usage(context, formatter)
    command.format_help_text(context, formatter)
    width = max(len(name) for commands in sections.values() for name in commands)
    for title, commands in sections.items():
        with formatter.section(title):
            formatter.write_dl(
                [(name.ljust(width), entry.help) for name, entry in commands.items()]
            )
    with formatter.section("Options (before or after the command)"):
        others = ", ".join(_name_others(command))
        formatter.write_dl([*OPTIONS.items(), ("others", others)])
    formatter.write("\n" + FOOTER.format(program=context.info_name))


def _name_others(command: click.Command) -> list[str]:
    """The options that OPTIONS does not show."""
    shown = {word.rstrip(",") for line in OPTIONS for word in line.split()}
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return [
        option.opts[-1] for option in options if not option.hidden and not shown & set(option.opts)
    ]


# command → command lines without the program's name
EXAMPLES: dict[str, tuple[str, ...]] = {
    "flash": (
        "flash build",
        "flash .pio/build/esp32dev --dry-run",
        "flash --show firmware.uf2",
        "-p /dev/ttyUSB0,/dev/ttyUSB1 flash build",
        "--all --watch flash build",
    ),
    "write-flash": (
        "write-flash 0x0 bootloader.bin 0x8000 partitions.bin 0x10000 app.bin",
        "-p /dev/ttyUSB0 -b 460800 write-flash 0x10000 app.bin",
        "write-flash nvs=settings.bin",
        "write-flash 0x10000 new.bin --diff-with old.bin",
    ),
    "verify-flash": ("verify-flash 0x10000 app.bin", "verify-flash --diff 0x10000 app.bin"),
    "read-flash": (
        "read-flash 0x8000 0xC00 partitions.bin",
        "read-flash 0 ALL flash.bin",
        "read-flash nvs nvs.bin",
    ),
    "backup": ("backup board.zip", "-p /dev/ttyUSB0 -b 921600 backup board.zip"),
    "restore": (
        "restore board.zip",
        "restore board.zip --dry-run",
        "restore board.zip --allow other-chip --skip nvs",
    ),
    "job": (
        "job thermostat.toml --set operator=Kim",
        "job thermostat.toml --show",
        "job thermostat.toml --unfinished",
    ),
    "erase-flash": ("erase-flash", "-p virtual:esp32c3 erase-flash"),
    "erase-region": ("erase-region 0x9000 0x6000", "erase-region nvs"),
    "write-flash-status": (
        "write-flash-status --non-volatile 0",
        "write-flash-status --bytes 2 0x0200",
    ),
    "chip-info": ("chip-info", "-p virtual:esp32s3 chip-info --json"),
    "flash-id": ("flash-id", "flash-id --spi-connection HSPI"),
    "read-flash-status": ("read-flash-status", "read-flash-status --bytes 3"),
    "read-flash-sfdp": ("read-flash-sfdp 0 16", "read-flash-sfdp --decode"),
    "read-mac": ("read-mac", "-q -p /dev/ttyUSB0 read-mac"),
    "chip-id": ("chip-id",),
    "get-security-info": ("get-security-info",),
    "monitor": (
        "monitor",
        "monitor --baud auto --reset",
        "monitor --log boot.log --elf app.elf",
        "monitor --filter 'wifi:W *:I'",
    ),
    "decode": ("decode boot.log --elf app.elf", "decode boot.log --elf app.elf -o decoded.log"),
    "chips": ("chips", "chips esp32c3 esp32c6"),
    "ports": ("ports", "ports --port-filter vid=0x303A"),
    "read-mem": ("read-mem 0x60008000",),
    "write-mem": ("write-mem 0x3FC80000 0x12345678", "write-mem 0x3FC80000 0x1 0x1"),
    "dump-mem": ("dump-mem 0x40000000 0x10000 rom.bin",),
    "load-ram": ("load-ram ram-program.bin",),
    "run": ("run",),
    "reset": ("reset",),
    "elf2image": ("elf2image app.elf", "-c esp32c3 elf2image app.elf -o app.bin"),
    "make-image": ("make-image -f text.bin -a 0x40100000 -e 0x40100004 image.bin",),
    "image-info": ("image-info app.bin", "image-info --json merged.bin"),
    "merge-bin": (
        "-c esp32 merge-bin -o all.bin 0x1000 bootloader.bin 0x8000 partitions.bin 0x10000 app.bin",
        "-c esp32c3 merge-bin -f uf2 -o all.uf2 0x0 bootloader.bin 0x10000 app.bin",
    ),
    "split-image": ("split-image all.bin -o parts",),
    "image-diff": ("image-diff old.bin new.bin",),
    "partitions": (
        "partitions show partitions.csv",
        "partitions show",
        "partitions build partitions.csv -o table.bin",
    ),
    "partitions show": ("partitions show", "partitions show partitions.csv"),
    "partitions check": ("partitions check partitions.csv --flash-size 4MB",),
    "partitions build": ("partitions build partitions.csv -o partitions.bin",),
    "partitions read": ("partitions read partitions.csv",),
    "ota": ("ota status", "ota switch ota_1"),
    "ota status": ("ota status", "ota status flash-dump.bin"),
    "ota switch": ("ota switch ota_1", "ota switch factory"),
    "image": ("image map all.bin", "image map all.bin --svg flash.svg"),
    "image map": ("image map all.bin", "image map all.bin --svg flash.svg", "image map"),
    "efuse": (
        "efuse --chip esp32c3 summary --virt",
        "efuse -c esp32c3 --path-efuse-file board.fuses burn-efuse WDT_DELAY_SEL 1 dump",
    ),
    "efuse summary": ("efuse summary --virt -c esp32c3", "efuse summary MAC --format json --virt"),
    "efuse dump": ("efuse dump --virt", "efuse dump --format token --virt"),
    "efuse get-custom-mac": ("efuse get-custom-mac --virt",),
    "efuse adc-info": ("efuse adc-info --virt",),
    "efuse check-error": ("efuse check-error --virt",),
    "efuse burn": ("efuse burn --plan plan.json --path-efuse-file board.fuses -c esp32c3",),
    "efuse burn-efuse": ("efuse burn-efuse JTAG_DISABLE 1 --virt",),
    "efuse burn-bit": ("efuse burn-bit BLOCK3 0 1 5 --virt",),
    "efuse burn-block-data": ("efuse burn-block-data --offset 8 BLOCK3 data.bin --virt",),
    "efuse burn-key": (
        "efuse burn-key BLOCK_KEY0 key.bin XTS_AES_128_KEY --virt -c esp32c3",
        "efuse burn-key flash_encryption key.bin --virt -c esp32",
    ),
    "efuse burn-key-digest": (
        "efuse burn-key-digest BLOCK_KEY0 key.pem SECURE_BOOT_DIGEST0 --virt -c esp32c3",
    ),
    "efuse burn-custom-mac": ("efuse burn-custom-mac AA:CD:EF:01:02:03 --virt",),
    "efuse read-protect-efuse": ("efuse read-protect-efuse BLOCK1 --virt",),
    "efuse write-protect-efuse": ("efuse write-protect-efuse JTAG_DISABLE --virt",),
    "efuse set-flash-voltage": ("efuse set-flash-voltage 3.3V --virt",),
    "secure": (
        "secure generate-signing-key -v 2 key.pem",
        "secure sign-data -v 2 -k key.pem -o app-signed.bin app.bin",
    ),
    "secure status": ("-p /dev/ttyUSB0 secure status",),
    "secure plan": (
        "-c esp32c3 secure plan secure-boot-v2 --key key.pem --mode development",
        "-p /dev/ttyUSB0 secure plan flash-encryption,secure-boot-v2 --key key.pem --key flash.key --mode release build",
    ),
    "secure generate-signing-key": (
        "secure generate-signing-key -v 2 --scheme ecdsa256 key.pem",
        "secure generate-signing-key -v 2 --passphrase key.pem",
    ),
    "secure generate-flash-encryption-key": (
        "secure generate-flash-encryption-key flash.key",
        "secure generate-flash-encryption-key --keylen 512 flash.key",
    ),
    "secure extract-public-key": ("secure extract-public-key -v 2 -k key.pem public.pem",),
    "secure digest-sbv2-public-key": ("secure digest-sbv2-public-key -k key.pem -o digest.bin",),
    "secure digest-rsa-public-key": ("secure digest-rsa-public-key -k key.pem -o digest.bin",),
    "secure digest-private-key": ("secure digest-private-key -k key.pem boot.key",),
    "secure sign-data": (
        "secure sign-data -v 2 -k key.pem -o app-signed.bin app.bin",
        "secure sign-data -v 2 -k first.pem -k second.pem app.bin",
        "secure sign-data -v 2 --pub-key public.pem --signature app.sig app.bin",
    ),
    "secure verify-signature": (
        "secure verify-signature -v 2 -k public.pem app-signed.bin",
        "secure verify-signature -v 2 -k public.pem --at ota_0",
    ),
    "secure signature-info": (
        "secure signature-info app-signed.bin",
        "secure signature-info --at bootloader --key flash.key",
    ),
    "secure signature-info-v2": ("secure signature-info-v2 app-signed.bin",),
    "secure digest-secure-bootloader": (
        "secure digest-secure-bootloader -k boot.key bootloader.bin",
    ),
    "secure encrypt-flash-data": (
        "secure encrypt-flash-data --chip esp32c3 -k flash.key -a 0x10000 -o app-encrypted.bin app.bin",
    ),
    "secure decrypt-flash-data": (
        "secure decrypt-flash-data --chip esp32c3 -k flash.key -a 0x10000 -o app.bin app-encrypted.bin",
    ),
    "secure generate-sdc-certificate": (
        "secure generate-sdc-certificate -k key.pem --mac 00:11:22:33:44:55 --enable-jtag",
    ),
    "secure digest-sdc-public-key": ("secure digest-sdc-public-key -k key.pem -o digest.bin",),
    "secure read-sdc-chip-info": ("secure read-sdc-chip-info -o chip_info.bin",),
    "secure verify-sdc-certificate": ("secure verify-sdc-certificate certificate.bin",),
    "virtual": ("virtual serve esp32c3 --flash flash.bin --tcp 127.0.0.1:4000",),
    "virtual serve": (
        "virtual serve esp32c3 --flash flash.bin --tcp 127.0.0.1:4000",
        "virtual serve esp32 --pty",
    ),
    "serve-port": (
        "serve-port /dev/ttyUSB0",
        "serve-port /dev/ttyUSB0 /dev/ttyUSB1 --listen 192.168.1.5:2217 --token-file lab.token",
    ),
    "demo": ("demo", "demo --no-pace"),
    "completion": ("completion bash", "completion zsh"),
    "web": ("web", "web espwire-web-0.1.0.zip --no-browser"),
    "version": ("version", "--version"),
}


def find_examples(context: click.Context) -> list[str]:
    """The examples for the context's command."""
    program, _, path = context.command_path.partition(" ")
    return [f"{program} {line}" for line in EXAMPLES.get(path, ())]


def format_examples(context: click.Context) -> str:
    """The examples as a paragraph of help; empty if there are none."""
    lines = find_examples(context)
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)]) if lines else ""
