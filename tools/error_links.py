"""The section of the guide for each error or warning; docs/errors.md links to it."""

from __future__ import annotations

_NO_LOADER = "troubleshooting.md#the-loader-does-not-answer"
_NO_PORT = "troubleshooting.md#the-port-cannot-be-opened"
_POWER = "troubleshooting.md#insufficient-power"
_REMOTE = "remote-ports.md#who-may-connect"
_PINS = "wiring.md#reset-and-boot-pins"

# error id → file and section under docs/guide
LINKS = {
    "application-running": _NO_LOADER,
    "address-not-allowed": _REMOTE,
    "bad-token": _REMOTE,
    "token-needed": _REMOTE,
    "wrong-token": _REMOTE,
    "no-espwire-server": "remote-ports.md#connecting",
    "no-rfc2217": "remote-ports.md#connecting",
    "sequence-refused": "remote-ports.md#reset-sequences-over-a-network",
    "backup-damaged": "backup.md#the-file",
    "backup-encryption": "backup.md#flash-encryption-secure-download-mode",
    "backup-partial": "backup.md#interruptions",
    "backup-too-large": "backup.md#another-board",
    "other-chip": "backup.md#another-board",
    "backup-flash-size": "backup.md#another-board",
    "baud-refused": "settings.md#baud-rates",
    "board-unknown": "jobs.md#boards",
    "boards-file": "jobs.md#boards",
    "brown-out-loop": _POWER,
    "cannot-open": _NO_PORT,
    "chip-does-not-hear": "wiring.md#serial-lines",
    "chip-reset": _POWER,
    "command-failed": "troubleshooting.md#the-transfer-fails-midway",
    "config-file": "settings.md#espwiretoml",
    "config-value": "settings.md#invalid-settings",
    "crash-loop": "wiring.md#by-hand",
    "data-misread": "writing.md#a-new-partition-table",
    "flash-busy": "wiring.md#flash-pins",
    "flash-size": "flash-settings.md#size",
    "flash-size-unknown": "flash-settings.md#size",
    "fail-line": "jobs.md#steps",
    "header-flash-size": "flash-settings.md#size",
    "header-kept": "flash-settings.md#setting-them",
    "held-in-reset": _PINS,
    "image-broken": "troubleshooting.md#missing-bootloader",
    "image-magic": "image-format.md",
    "job-file": "jobs.md#the-job-file",
    "job-template": "jobs.md#variables",
    "job-variable": "jobs.md#variables",
    "line-too-bad": "troubleshooting.md#the-transfer-fails-midway",
    "link-lost": "troubleshooting.md#the-transfer-fails-midway",
    "boards-failed": "many-boards.md",
    "hub-suspected": "many-boards.md#hubs-and-power",
    "needs-yes": "many-boards.md#which-boards",
    "one-board": "many-boards.md",
    "one-file": "many-boards.md#files-for-each-board",
    "port-twice": "many-boards.md#which-boards",
    "nand-flash": "troubleshooting.md#the-flash-chip-does-not-answer",
    "no-flash": "troubleshooting.md#the-flash-chip-does-not-answer",
    "no-free-row": "jobs.md#boards",
    "no-line": "jobs.md#steps",
    "no-reply": _NO_LOADER,
    "noise": "wiring.md#serial-lines",
    "not-a-serial-port": _NO_PORT,
    "port-busy": "troubleshooting.md#modemmanager",
    "port-denied": _NO_PORT,
    "port-not-back": "connecting.md#native-usb",
    "port-not-found": _NO_PORT,
    "report-columns": "jobs.md#the-report",
    "report-locked": "jobs.md#the-report",
    "reset-sequence": "connecting.md#custom-reset-sequences",
    "spi-busy": "wiring.md#flash-pins",
    "stub-running": "connecting.md#a-stub-that-is-still-running",
    "unverified": "troubleshooting.md#other-sectors-were-erased",
    "verify": "troubleshooting.md#the-flash-differs",
    "write-timeout": "troubleshooting.md#the-transfer-fails-midway",
    "wrong-baud-noise": "boot-log.md#reading-it",
    "wrong-boot-mode": _PINS,
    "wrong-erase": "troubleshooting.md#other-sectors-were-erased",
}


def linked(code: str, text: str) -> str:
    """Append a link to the guide if there is one for ``code``."""
    return f"{text} ([guide](guide/{LINKS[code]}))" if code in LINKS else text
