"""Answers unknown command names: which command does what the user probably means, or what to use until it exists.

Loaded only after a mistake. Each value of COMMANDS is a command line of espwire: see tests/unit/cli/test_help.py.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence

import click

from espwire.errors import UsageError

EFUSE = "`espefuse` of esptool; for the security eFuses, `{program} get-security-info`"
SIGN = "`espsecure` of esptool"
BRIDGE = "`esp_rfc2217_server` of esptool"
# names that tools for other chips, older tools and users have for a command → the command line to use
COMMANDS: dict[str, str] = {
    **dict.fromkeys(
        ("upload", "burn", "program", "deploy", "download", "install", "update"), "flash PATH"
    ),
    **dict.fromkeys(
        ("write", "write-bin", "flash-write", "put", "restore"), "write-flash ADDRESS FILE"
    ),
    **dict.fromkeys(("verify", "compare", "check", "flash-verify"), "verify-flash ADDRESS FILE"),
    **dict.fromkeys(
        ("read", "dump", "backup", "save", "get", "flash-read"), "read-flash 0 ALL FILE"
    ),
    **dict.fromkeys(
        ("erase", "erase-all", "erase-chip", "wipe", "format", "clean", "chip-erase"), "erase-flash"
    ),
    **dict.fromkeys(
        ("erase-partition", "erase-sector", "erase-block", "erase-range"),
        "erase-region ADDRESS SIZE",
    ),
    **dict.fromkeys(
        ("info", "chip", "board-info", "identify", "detect", "device-info", "probe"), "chip-info"
    ),
    **dict.fromkeys(("flash-info", "flash-size", "jedec-id", "spi-id"), "flash-id"),
    **dict.fromkeys(("mac", "get-mac", "mac-address", "serial-number"), "read-mac"),
    **dict.fromkeys(("id", "revision", "get-chip-id"), "chip-info"),
    **dict.fromkeys(("security", "security-info", "get-security"), "get-security-info"),
    **dict.fromkeys(("list", "ls", "devices", "boards", "list-ports", "port", "scan"), "ports"),
    **dict.fromkeys(("list-chips", "targets", "supported"), "chips"),
    **dict.fromkeys(
        (
            "serial",
            "term",
            "terminal",
            "console",
            "miniterm",
            "minicom",
            "log",
            "logs",
            "screen",
            "watch",
        ),
        "monitor",
    ),
    **dict.fromkeys(("restart", "reboot", "hard-reset", "power-cycle"), "reset"),
    **dict.fromkeys(("start", "boot", "go", "execute", "exec"), "run"),
    **dict.fromkeys(("peek", "read-reg", "read-register", "mem"), "read-mem ADDRESS"),
    **dict.fromkeys(("poke", "write-reg", "write-register"), "write-mem ADDRESS VALUE"),
    **dict.fromkeys(
        ("memdump", "dump-memory", "read-memory", "dump-ram", "dump-rom"),
        "dump-mem ADDRESS SIZE FILE",
    ),
    **dict.fromkeys(("load", "ram", "upload-ram", "load-to-ram"), "load-ram FILE"),
    **dict.fromkeys(("status", "flash-status", "read-status"), "read-flash-status"),
    **dict.fromkeys(("write-status",), "write-flash-status VALUE"),
    **dict.fromkeys(("sfdp", "read-sfdp"), "read-flash-sfdp --decode"),
    **dict.fromkeys(("elf2bin", "elf", "elf-to-image", "convert", "objcopy"), "elf2image ELF"),
    **dict.fromkeys(
        ("merge", "combine", "join", "mergebin", "uf2", "uf2conv"),
        "merge-bin -o OUTPUT ADDRESS FILE",
    ),
    **dict.fromkeys(("split", "unmerge", "extract", "unpack"), "split-image FILE"),
    **dict.fromkeys(("diff", "cmp"), "image-diff OLD NEW"),
    **dict.fromkeys(
        ("inspect", "analyze", "file-info", "imageinfo", "app-info", "show"), "image-info FILE"
    ),
    **dict.fromkeys(
        ("partition", "partition-table", "parttool", "gen-esp32part", "table"), "partitions show"
    ),
    **dict.fromkeys(("otatool", "ota-status", "switch-ota", "rollback"), "ota status"),
    **dict.fromkeys(("map", "flash-map", "layout", "draw"), "image map FILE"),
    **dict.fromkeys(
        ("serve", "emulate", "emulator", "simulate", "simulator", "qemu"), "virtual serve CHIP"
    ),
    **dict.fromkeys(("example", "tour", "tutorial", "try", "quickstart"), "demo"),
    **dict.fromkeys(("help", "usage", "commands", "man"), "--help"),
    **dict.fromkeys(("ver", "about"), "version"),
    **dict.fromkeys(("complete", "autocomplete", "shell-completion"), "completion bash"),
}
GROUPS: dict[str, dict[str, str]] = {
    "partitions": {
        **dict.fromkeys(("list", "ls", "info", "print", "view", "dump"), "partitions show"),
        **dict.fromkeys(("verify", "validate", "test"), "partitions check FILE"),
        **dict.fromkeys(
            ("make", "create", "gen", "generate", "compile"), "partitions build CSV -o OUTPUT"
        ),
        **dict.fromkeys(
            ("get", "save", "export", "download", "backup", "extract"), "partitions read FILE"
        ),
        **dict.fromkeys(("write", "upload", "put", "burn", "flash"), "write-flash 0x8000 FILE"),
        **dict.fromkeys(("erase", "delete"), "erase-region NAME"),
    },
    "ota": {
        **dict.fromkeys(("info", "show", "list", "ls", "get", "read", "state"), "ota status"),
        **dict.fromkeys(
            ("set", "select", "change", "boot", "activate", "use", "rollback"), "ota switch SLOT"
        ),
        **dict.fromkeys(("erase", "reset", "clear"), "ota switch factory"),
    },
    "image": {
        **dict.fromkeys(("info", "show", "inspect", "check", "verify"), "image-info FILE"),
        **dict.fromkeys(("diff", "compare"), "image-diff OLD NEW"),
        **dict.fromkeys(("merge", "join", "combine"), "merge-bin -o OUTPUT ADDRESS FILE"),
        **dict.fromkeys(("split", "extract"), "split-image FILE"),
        **dict.fromkeys(("make", "create", "build"), "make-image OUTPUT"),
        **dict.fromkeys(("draw", "svg", "layout", "picture"), "image map FILE"),
    },
    "virtual": {
        **dict.fromkeys(
            ("start", "run", "server", "listen", "create", "new"), "virtual serve CHIP"
        ),
        **dict.fromkeys(("list", "ls", "chips"), "chips"),
    },
}
# what espwire does not do yet: names → what they are about, and what to use until then
LATER: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        (
            *(
                "efuse",
                "efuses",
                "fuse",
                "fuses",
                "espefuse",
                "espefuse.py",
                "summary",
                "burn-efuse",
                "burn-key",
            ),
            *(
                "burn-bit",
                "burn-block-data",
                "burn-key-digest",
                "read-protect-efuse",
                "write-protect-efuse",
                "adc-info",
            ),
            *(
                "set-flash-voltage",
                "burn-custom-mac",
                "get-custom-mac",
                "check-error",
                "dump-efuse",
                "execute-scripts",
            ),
            *("read-efuse", "efuse-summary", "set-mac"),
        ),
        ("eFuse commands", EFUSE),
    ),
    **dict.fromkeys(
        (
            *(
                "sign",
                "sign-data",
                "signature",
                "espsecure",
                "espsecure.py",
                "secure-boot",
                "generate-signing-key",
            ),
            *(
                "verify-signature",
                "extract-public-key",
                "digest-sbv2-public-key",
                "digest-private-key",
                "keygen",
            ),
            *(
                "signature-info-v2",
                "digest-secure-bootloader",
                "digest-rsa-public-key",
                "sign-image",
            ),
        ),
        ("signing commands", SIGN),
    ),
    **dict.fromkeys(
        (
            *(
                "encrypt",
                "decrypt",
                "encrypt-flash-data",
                "decrypt-flash-data",
                "generate-flash-encryption-key",
            ),
            *("split-sdc-certificate", "merge-sdc-certificate"),
        ),
        ("encryption commands", SIGN),
    ),
    **dict.fromkeys(
        ("rfc2217", "esp-rfc2217-server", "bridge", "share", "proxy"), ("port server", BRIDGE)
    ),
}
FILES = (".bin", ".elf", ".hex", ".uf2", ".json", ".srec", ".s19", ".ino")


def refuse(
    name: str, names: Sequence[str], listed: Mapping[str, str], ctx: click.Context
) -> Exception:
    """The error for a command that does not exist.

    :param name: as typed
    :param names: the commands of the group
    :param listed: the names that are wrong here, and the command line for each
    """
    program, group = (
        ctx.find_root().info_name or "espwire",
        ctx.info_name if ctx.parent is not None else "",
    )
    plain = name.replace("_", "-").lower()
    if not group and plain in LATER:
        subject, instead = LATER[plain]
        return UsageError(
            f"{name} is not available yet: espwire has no {subject} so far",
            hint=f"Until then, use {instead.format(program=program)}.",
            code="not-yet",
            command=name,
        )
    error = UnknownCommand(f"unknown command {name!r}" + (f" of {group}" if group else ""), ctx)
    error.hint = _find_hint(name, plain, names, listed, program, group or "")
    return error


def _find_hint(
    name: str, plain: str, names: Sequence[str], listed: Mapping[str, str], program: str, group: str
) -> str:
    prefix = f"{program} {group}".rstrip()
    if (line := listed.get(plain) or listed.get(plain.removesuffix(".py"))) is not None:
        return f"Use `{program} {line}`."
    if not group and (line := _find_line(name)):
        return line.format(program=program)
    starts = [one for one in names if plain and one.startswith(plain)]
    near = starts[:3] or _find_near(plain, [*names, *listed])
    lines = list(
        dict.fromkeys(
            f"`{program} {listed[one]}`" if one in listed else f"`{prefix} {one}`" for one in near
        )
    )
    if lines:
        return f"Did you mean {' or '.join(lines)}?"
    return f"Run `{prefix} --help` to list the commands."


def _find_near(plain: str, names: Sequence[str]) -> list[str]:
    """The names that a misspelt one is most like; several only if they are about equally like it."""
    likeness = {near: difflib.SequenceMatcher(None, plain, near).ratio() for near in names}
    best = max(likeness.values(), default=0.0)
    near = [name for name, ratio in likeness.items() if ratio >= max(0.6, best - 0.02)]
    return sorted(near, key=lambda name: -likeness[name])[:3]


def _find_line(name: str) -> str:
    """The hint for a word that is not a command at all: a file, an address, a port."""
    from espwire.cli.ports import is_port

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


class UnknownCommand(click.UsageError):
    """A name that no command has; ``hint`` says what to use."""

    hint = ""
