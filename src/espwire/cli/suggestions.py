"""Suggests a command for an unknown name: the one that is probably meant.

The values of COMMANDS and GROUP_COMMANDS are command lines; tests/unit/cli/test_help.py checks them.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence

import click

from espwire.cli.ports import is_port


def _by_name(table: Mapping[str, str]) -> dict[str, str]:
    """Each name of the table with its command line."""
    return {name: line for line, names in table.items() for name in names.split()}


# command line → the names that users, older tools and tools for other chips have for it
COMMANDS = _by_name(
    {
        "flash PATH": "upload burn program deploy download install update",
        "serve-port PORT": "rfc2217 rfc2217-server esp-rfc2217-server bridge share proxy",
        "write-flash ADDRESS FILE": "write write-bin flash-write put",
        "verify-flash ADDRESS FILE": "verify compare check flash-verify",
        "read-flash 0 ALL FILE": "read dump save get flash-read",
        "backup FILE": "backup-flash flash-backup export clone archive",
        "restore FILE": "restore-flash flash-restore import unbackup",
        "job FILE": "jobs batch factory produce production recipe script steps",
        "erase-flash": "erase erase-all erase-chip wipe format clean chip-erase",
        "erase-region ADDRESS SIZE": "erase-partition erase-sector erase-block erase-range",
        "chip-info": "info chip board-info identify detect device-info probe id revision get-chip-id",
        "flash-id": "flash-info flash-size jedec-id spi-id",
        "read-mac": "mac get-mac mac-address serial-number",
        "get-security-info": "security security-info get-security",
        "ports": "list ls devices boards list-ports port scan",
        "chips": "list-chips targets supported",
        "monitor": "serial term terminal console miniterm minicom log logs screen watch",
        "decode": "backtrace addr2line panic crash stacktrace symbolize",
        "reset": "restart reboot hard-reset power-cycle",
        "run": "start boot go execute exec",
        "read-mem ADDRESS": "peek read-reg read-register mem",
        "write-mem ADDRESS VALUE": "poke write-reg write-register",
        "dump-mem ADDRESS SIZE FILE": "memdump dump-memory read-memory dump-ram dump-rom",
        "load-ram FILE": "load ram upload-ram load-to-ram",
        "read-flash-status": "status flash-status read-status",
        "write-flash-status VALUE": "write-status",
        "read-flash-sfdp --decode": "sfdp read-sfdp",
        "elf2image ELF": "elf2bin elf elf-to-image convert objcopy",
        "merge-bin -o OUTPUT ADDRESS FILE": "merge combine join mergebin uf2 uf2conv",
        "split-image FILE": "split unmerge extract unpack",
        "image-diff OLD NEW": "diff cmp",
        "image-info FILE": "inspect analyze file-info imageinfo app-info show",
        "efuse summary": "efuses fuse fuses espefuse espefuse.py summary read-efuse efuse-summary",
        "efuse dump": "dump-efuse",
        "efuse burn-efuse NAME VALUE": "burn-efuse",
        "efuse burn-bit BLOCK BIT": "burn-bit",
        "efuse burn-block-data BLOCK FILE": "burn-block-data",
        "efuse burn-key BLOCK FILE PURPOSE": "burn-key",
        "efuse burn-key-digest BLOCK FILE PURPOSE": "burn-key-digest",
        "efuse burn-custom-mac MAC": "burn-custom-mac set-mac",
        "efuse read-protect-efuse NAME": "read-protect-efuse",
        "efuse write-protect-efuse NAME": "write-protect-efuse",
        "efuse set-flash-voltage VOLTAGE": "set-flash-voltage",
        "efuse get-custom-mac": "get-custom-mac",
        "efuse adc-info": "adc-info",
        "efuse check-error": "check-error",
        "partitions show": "partition partition-table parttool gen-esp32part table",
        "ota status": "otatool ota-status switch-ota rollback",
        "image map FILE": "map flash-map layout draw",
        "virtual serve CHIP": "serve emulate emulator simulate simulator qemu",
        "secure --help": "secure-boot espsecure espsecure.py crypto flash-encryption",
        "secure generate-signing-key -v 2 KEYFILE": "generate-signing-key keygen",
        "secure generate-flash-encryption-key KEYFILE": "generate-flash-encryption-key",
        "secure sign-data -v 2 -k KEY FILE": "sign sign-data sign-image",
        "secure verify-signature -v 2 -k KEY FILE": "verify-signature",
        "secure signature-info FILE": "signature signature-info signature-info-v2",
        "secure extract-public-key -v 2 -k KEY OUTPUT": "extract-public-key",
        "secure digest-sbv2-public-key -k KEY -o OUTPUT": "digest-sbv2-public-key digest-rsa-public-key",
        "secure digest-private-key -k KEY OUTPUT": "digest-private-key",
        "secure digest-secure-bootloader -k KEY IMAGE": "digest-secure-bootloader",
        "secure encrypt-flash-data -k KEY -a ADDRESS -o OUTPUT FILE": "encrypt encrypt-flash-data",
        "secure decrypt-flash-data -k KEY -a ADDRESS -o OUTPUT FILE": "decrypt decrypt-flash-data",
        "secure generate-sdc-certificate -k KEY --mac MAC": "generate-sdc-certificate",
        "secure digest-sdc-public-key -k KEY -o OUTPUT": "digest-sdc-public-key",
        "demo": "example tour tutorial try quickstart",
        "--help": "help usage commands man",
        "version": "ver about",
        "completion bash": "complete autocomplete shell-completion",
    }
)
GROUP_COMMANDS = {
    "partitions": _by_name(
        {
            "partitions show": "list ls info print view dump",
            "partitions check FILE": "verify validate test",
            "partitions build CSV -o OUTPUT": "make create gen generate compile",
            "partitions read FILE": "get save export download backup extract",
            "write-flash 0x8000 FILE": "write upload put burn flash",
            "erase-region NAME": "erase delete",
        }
    ),
    "ota": _by_name(
        {
            "ota status": "info show list ls get read state",
            "ota switch SLOT": "set select change boot activate use rollback",
            "ota switch factory": "erase reset clear",
        }
    ),
    "image": _by_name(
        {
            "image-info FILE": "info show inspect check verify",
            "image-diff OLD NEW": "diff compare",
            "merge-bin -o OUTPUT ADDRESS FILE": "merge join combine",
            "split-image FILE": "split extract",
            "make-image OUTPUT": "make create build",
            "image map FILE": "draw svg layout picture",
        }
    ),
    "secure": _by_name(
        {
            "secure sign-data -v 2 -k KEY FILE": "sign append",
            "secure verify-signature -v 2 -k KEY FILE": "verify check",
            "secure signature-info FILE": "info show signatures",
            "secure generate-signing-key -v 2 KEYFILE": "generate keygen key new",
            "secure extract-public-key -v 2 -k KEY OUTPUT": "extract public public-key",
            "secure digest-sbv2-public-key -k KEY -o OUTPUT": "digest digest-public-key",
            "secure encrypt-flash-data -k KEY -a ADDRESS -o OUTPUT FILE": "encrypt",
            "secure decrypt-flash-data -k KEY -a ADDRESS -o OUTPUT FILE": "decrypt",
        }
    ),
    "virtual": _by_name(
        {
            "virtual serve CHIP": "start run server listen create new",
            "chips": "list ls chips",
        }
    ),
}
FILES = (".bin", ".elf", ".hex", ".uf2", ".json", ".srec", ".s19", ".ino")


def missing_command(ctx: click.Context) -> Exception:
    """The error for options without a command."""
    hint = f"Run `{ctx.command_path} --help` to list the commands."
    return CommandError("no command given", ctx, hint)


def unknown_command(
    name: str, names: Sequence[str], suggestions: Mapping[str, str], ctx: click.Context
) -> Exception:
    """The error for a command that does not exist.

    :param name: as typed
    :param names: the commands of the group
    :param suggestions: command lines for other names
    """
    program = ctx.find_root().info_name or "espwire"
    group = (ctx.info_name or "") if ctx.parent is not None else ""
    plain = name.replace("_", "-").lower()
    message = f"unknown command {name!r}" + (f" of {group}" if group else "")
    return CommandError(message, ctx, _find_hint(name, plain, names, suggestions, program, group))


def _find_hint(
    name: str,
    plain: str,
    names: Sequence[str],
    suggestions: Mapping[str, str],
    program: str,
    group: str,
) -> str:
    prefix = f"{program} {group}".rstrip()
    if (line := suggestions.get(plain) or suggestions.get(plain.removesuffix(".py"))) is not None:
        return f"Use `{program} {line}`."
    if not group and suggestions and (line := _find_line(name)):
        return line.format(program=program)
    near = [each for each in names if plain and each.startswith(plain)][:3]
    lines = {
        f"`{program} {suggestions[each]}`" if each in suggestions else f"`{prefix} {each}`": None
        for each in near or _find_near(plain, [*names, *suggestions])
    }
    if lines:
        return f"Did you mean {' or '.join(lines)}?"
    return f"Run `{prefix} --help` to list the commands."


def _find_near(plain: str, names: Sequence[str]) -> list[str]:
    """The most similar names; several only if they are about equally similar."""
    similarity = {near: difflib.SequenceMatcher(None, plain, near).ratio() for near in names}
    best = max(similarity.values(), default=0.0)
    near = [name for name, ratio in similarity.items() if ratio >= max(0.6, best - 0.02)]
    return sorted(near, key=lambda name: -similarity[name])[:3]


def _find_line(name: str) -> str:
    """The hint for a file, an address or a port in place of a command."""

    if name[:1].isdecimal():
        return f"To write a file to an address, use `{{program}} write-flash {_quoted(name)} FILE`."
    if (
        name.lower().endswith(FILES)
        or os.path.isdir(name)
        or ("." in name and os.path.isfile(name))
    ):
        return f"To write it, use `{{program}} flash {_quoted(name)}`."
    if is_port(name):
        return f"To select a port, use `-p {_quoted(name)}`."
    return ""


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word).replace("{", "{{").replace("}", "}}")


class CommandError(click.UsageError):
    """A missing or an unknown command, with a hint."""

    def __init__(self, message: str, context: click.Context, hint: str) -> None:
        super().__init__(message, context)
        self.hint = hint
