"""The table of commands. To add a command, add a line here and write its function in ``commands/``.

Help and completion read this table only; the module behind a command is imported when that command is run.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Boards(Enum):
    """How many boards a command can work on in one run."""

    ONE = "one"
    SEVERAL = "several"
    NAMED_FILES = "several, if {mac} or {port} in the name of its output file keeps the files apart"


class Entry(NamedTuple):
    """A command: one line of help, and ``module:function`` in ``espwire.cli.commands``; empty for a group of commands.

    ``offline`` commands never use a port and take no options about one. ``boards``: whether it works on several boards.
    """

    help: str
    function: str = ""
    offline: bool = False
    boards: Boards = Boards.ONE


SECTIONS: dict[str, dict[str, Entry]] = {
    "Flash": {
        "flash": Entry(
            "Write a build folder or firmware file to its addresses and verify it.",
            "flash_build:flash",
            boards=Boards.SEVERAL,
        ),
        "write-flash": Entry(
            "Write files to flash and verify them.", "flash:write_flash", boards=Boards.SEVERAL
        ),
        "verify-flash": Entry(
            "Compare flash with files.", "flash:verify_flash", boards=Boards.SEVERAL
        ),
        "read-flash": Entry(
            "Read flash into a file.", "flash:read_flash", boards=Boards.NAMED_FILES
        ),
        "backup": Entry(
            "Save the whole flash in a file.", "backup:backup", boards=Boards.NAMED_FILES
        ),
        "restore": Entry(
            "Write a backup back to flash and verify it.", "backup:restore", boards=Boards.SEVERAL
        ),
        "erase-flash": Entry("Erase the whole flash.", "flash:erase_flash", boards=Boards.SEVERAL),
        "erase-region": Entry(
            "Erase part of the flash.", "flash:erase_region", boards=Boards.SEVERAL
        ),
        "job": Entry(
            "Carry out the steps of a job file, and report the result.",
            "job:job",
            boards=Boards.SEVERAL,
        ),
        "write-flash-status": Entry(
            "Write the flash chip's status registers.",
            "flash_registers:write_flash_status",
            boards=Boards.SEVERAL,
        ),
    },
    "Information": {
        "chip-info": Entry(
            "Show chip, revision, features, flash and security state.",
            "chip:chip_info",
            boards=Boards.SEVERAL,
        ),
        "flash-id": Entry(
            "Show manufacturer, device id and size of the flash chip.",
            "flash_registers:flash_id",
            boards=Boards.SEVERAL,
        ),
        "read-flash-status": Entry(
            "Show the flash chip's status registers.",
            "flash_registers:read_flash_status",
            boards=Boards.SEVERAL,
        ),
        "read-flash-sfdp": Entry(
            "Read the flash chip's SFDP table, raw or decoded.", "flash_registers:read_flash_sfdp"
        ),
        "read-mac": Entry("Show the MAC address.", "chip:read_mac", boards=Boards.SEVERAL),
        "chip-id": Entry(
            "Show the chip id of an ESP8266; other chips have none.",
            "chip:chip_id",
            boards=Boards.SEVERAL,
        ),
        "get-security-info": Entry(
            "Show security flags and key purposes.", "chip:security_info", boards=Boards.SEVERAL
        ),
        "monitor": Entry(
            "Show the chip's serial output and send what you type.", "monitor:monitor"
        ),
        "decode": Entry(
            "Explain the crashes in a saved log, and resolve its addresses.",
            "decode:decode",
            offline=True,
        ),
        "chips": Entry("List the supported chips.", "about:chips", offline=True),
        "ports": Entry(
            "List serial ports and the boards likely connected to them.",
            "about:ports",
            offline=True,
        ),
    },
    "Memory and control": {
        "read-mem": Entry(
            "Read a 32-bit word from memory or a register.",
            "memory:read_mem",
            boards=Boards.SEVERAL,
        ),
        "write-mem": Entry(
            "Write a 32-bit word, or some of its bits.", "memory:write_mem", boards=Boards.SEVERAL
        ),
        "dump-mem": Entry("Read memory into a file.", "memory:dump_mem"),
        "load-ram": Entry(
            "Load a program into RAM and start it.", "memory:load_ram", boards=Boards.SEVERAL
        ),
        "run": Entry(
            "Start the application from the bootloader.", "chip:run", boards=Boards.SEVERAL
        ),
        "reset": Entry(
            "Reset the chip with the port's control lines.", "chip:reset", boards=Boards.SEVERAL
        ),
    },
    "Images": {
        "elf2image": Entry("Convert an ELF file to a bootable image.", "build_image:elf2image"),
        "make-image": Entry("Create an image from raw files.", "build_image:make_image"),
        "image-info": Entry(
            "Show the contents of a firmware file and check it.", "inspect:image_info", offline=True
        ),
        "merge-bin": Entry(
            "Merge files into a single raw, UF2 or Intel HEX file.", "merge:merge_bin", offline=True
        ),
        "split-image": Entry(
            "Split a merged file into bootloader, partition table and partitions.",
            "merge:split_image",
            offline=True,
        ),
        "image-diff": Entry("Compare two firmware files.", "inspect:image_diff", offline=True),
        "partitions": Entry("Show, check, build and read partition tables."),
        "ota": Entry("Show or change which application slot boots."),
        "image": Entry("Draw maps of firmware files and flash."),
    },
    "eFuses and security": {
        "efuse": Entry("Read and burn eFuses.", "efuse_chain:group"),
        "secure": Entry("Sign and encrypt files, manage their keys, and show a chip's security."),
    },
    "More": {
        "demo": Entry(
            "Write firmware to a virtual chip and show the result. Needs no board.",
            "virtual:demo",
            offline=True,
        ),
        "virtual": Entry("Run virtual chips for any flashing tool.", offline=True),
        "serve-port": Entry(
            "Serve serial ports to other computers.", "serve_port:serve_port", offline=True
        ),
        "web": Entry("Serve the web page, and open it in the browser.", "web:web", offline=True),
        "completion": Entry(
            "Print the completion script for bash, zsh or fish.", "about:completion", offline=True
        ),
        "version": Entry("Show the version.", "about:version", offline=True),
    },
}
GROUPS: dict[str, dict[str, Entry]] = {
    "partitions": {
        "show": Entry("Show the partition table of a file or the device.", "partitions:show"),
        "check": Entry("Check a partition table against all rules.", "partitions:check"),
        "build": Entry("Convert a CSV file to a binary partition table.", "partitions:build"),
        "read": Entry(
            "Save the partition table of the device or a dump, as binary or CSV.", "partitions:read"
        ),
    },
    "ota": {
        "status": Entry("Show which application slot boots, and why.", "ota:status"),
        "switch": Entry("Select the application slot that boots next.", "ota:switch"),
    },
    "image": {
        "map": Entry(
            "Draw a map of a dump, a merged file or the device's flash.", "inspect:image_map"
        ),
    },
    "efuse": {
        "summary": Entry("Show the values of eFuses.", "efuse_read:summary"),
        "dump": Entry("Show or save the words of all blocks.", "efuse_read:dump"),
        "get-custom-mac": Entry("Show the custom MAC address.", "efuse_read:custom_mac"),
        "adc-info": Entry("Show the calibration values.", "efuse_read:adc_info"),
        "check-error": Entry("Look for coding errors.", "efuse_read:check_error"),
        "burn-efuse": Entry("Burn eFuses by name.", "efuse_burn:burn_efuse"),
        "burn-bit": Entry("Burn bits of a block.", "efuse_burn:burn_bit"),
        "burn-block-data": Entry("Burn files into blocks.", "efuse_burn:burn_block_data"),
        "burn-key": Entry("Burn keys into key blocks and protect them.", "efuse_burn:burn_key"),
        "burn-key-digest": Entry(
            "Burn the digests of public keys for secure boot.", "efuse_burn:burn_key_digest"
        ),
        "burn-custom-mac": Entry("Burn a custom MAC address.", "efuse_burn:burn_custom_mac"),
        "read-protect-efuse": Entry(
            "Make eFuses unreadable for software.", "efuse_burn:read_protect_efuse"
        ),
        "write-protect-efuse": Entry(
            "Lock eFuses against burning.", "efuse_burn:write_protect_efuse"
        ),
        "burn": Entry("Burn the plan in a file (--plan FILE).", "efuse_burn:burn_plan"),
        "set-flash-voltage": Entry(
            "Fix the flash voltage (ESP32, S2, S3).", "efuse_burn:set_flash_voltage"
        ),
    },
    "secure": {
        "status": Entry(
            "Show the security of a chip, and what is still open.", "secure_device:status"
        ),
        "plan": Entry(
            "Switch on secure boot or flash encryption in rehearsed, proven steps.",
            "secure_plan:plan",
        ),
        "generate-signing-key": Entry(
            "Create a private key for secure boot.",
            "secure_keys:generate_signing_key",
            offline=True,
        ),
        "generate-flash-encryption-key": Entry(
            "Create a flash encryption key.",
            "secure_keys:generate_flash_encryption_key",
            offline=True,
        ),
        "extract-public-key": Entry(
            "Save the public key of a private one.", "secure_keys:extract_public_key", offline=True
        ),
        "digest-sbv2-public-key": Entry(
            "Save the digest of a public key, which is burned into eFuses.",
            "secure_keys:digest_public_key",
            offline=True,
        ),
        "digest-rsa-public-key": Entry(
            "Same as digest-sbv2-public-key; for old scripts.",
            "secure_keys:digest_public_key",
            offline=True,
        ),
        "digest-private-key": Entry(
            "Save the secret key of a reflashable bootloader (version 1).",
            "secure_keys:digest_private_key",
            offline=True,
        ),
        "sign-data": Entry("Sign a file.", "secure_sign:sign_data", offline=True),
        "verify-signature": Entry(
            "Check a signed file, or the images in flash, with a key.",
            "secure_sign:verify_signature",
        ),
        "signature-info": Entry(
            "Show the signatures in a file or in flash.", "secure_sign:signature_info"
        ),
        "signature-info-v2": Entry(
            "Same as signature-info; for old scripts.", "secure_sign:signature_info"
        ),
        "digest-secure-bootloader": Entry(
            "Add the digest of secure boot version 1 to a bootloader.",
            "secure_sign:digest_secure_bootloader",
            offline=True,
        ),
        "encrypt-flash-data": Entry(
            "Encrypt a file for its flash address.", "secure_files:encrypt_flash_data", offline=True
        ),
        "decrypt-flash-data": Entry(
            "Decrypt a file that was read from flash.",
            "secure_files:decrypt_flash_data",
            offline=True,
        ),
        "generate-sdc-certificate": Entry(
            "Create a debug certificate for an ESP32-S31.",
            "secure_debug:generate_certificate",
            offline=True,
        ),
        "digest-sdc-public-key": Entry(
            "Save the digest of the key for debug certificates.",
            "secure_debug:digest_public_key",
            offline=True,
        ),
        "read-sdc-chip-info": Entry(
            "Read what a debug certificate is made for (ESP32-S31).", "secure_debug:read_chip_info"
        ),
        "verify-sdc-certificate": Entry(
            "Open debug interfaces with a certificate (ESP32-S31).",
            "secure_debug:verify_certificate",
        ),
    },
    "virtual": {
        "serve": Entry("Serve a virtual chip over TCP or a pty.", "virtual:serve", offline=True),
    },
}
# these are commands of esptool, where they are not in a group; help does not list them there
UNGROUPED = {
    name: GROUPS["secure"][name] for name in ("read-sdc-chip-info", "verify-sdc-certificate")
}
