"""Makes the build folders that tests/data/builds holds: laid out as ESP-IDF, PlatformIO and Arduino lay theirs out.

    python tools/make_build_trees.py            write them
    python tools/make_build_trees.py --check    exit 1 if they are not what this would write

The layout is the tools'; every byte of every file is made here, so there is no licence to mind. Sources of the layouts:
ESP-IDF's build system guide (flasher_args.json), PlatformIO's espressif32 and espressif8266 platforms (file names,
idedata.json), the upload recipes in platform.txt of the Arduino cores for ESP32 and ESP8266.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from espwire.chips.registry import load_chip
from espwire.image.codec import build, create_image
from espwire.image.header import HeaderSettings
from espwire.image.model import Segment
from espwire.image.partition_table import Partition, PartitionTable, build_table

TARGET = Path(__file__).resolve().parent.parent / "tests/data/builds"
SETTINGS = HeaderSettings(mode="dio", size="4MB", frequency="40m")
RAM = {"esp8266": 0x40100000, "esp32": 0x40080000, "esp32s3": 0x40378000, "esp32c3": 0x40380000}
ARDUINO = (
    Partition("nvs", 1, 2, 0x9000, 0x5000),
    Partition("otadata", 1, 0, 0xE000, 0x2000),
    Partition("app0", 0, 0x10, 0x10000, 0x140000),
    Partition("app1", 0, 0x11, 0x150000, 0x140000),
    Partition("spiffs", 1, 0x82, 0x290000, 0x160000),
)
SINGLE_APP = (
    Partition("nvs", 1, 2, 0x9000, 0x6000),
    Partition("phy_init", 1, 1, 0xF000, 0x1000),
    Partition("factory", 0, 0, 0x10000, 0x100000),
)
UF2_BOOT = (  # as boards with a UF2 boot loader in the factory slot have it
    Partition("nvs", 1, 2, 0x9000, 0x5000),
    Partition("otadata", 1, 0, 0xE000, 0x2000),
    Partition("ota_0", 0, 0x10, 0x10000, 0x160000),
    Partition("ota_1", 0, 0x11, 0x170000, 0x160000),
    Partition("uf2", 0, 0, 0x2D0000, 0x40000),
)
BOOT_APP0 = bytes.fromhex("01000000" + "ff" * 24 + "9a984347").ljust(0x2000, b"\xff")
ELF_STUB = b"\x7fELF\x01\x01\x01".ljust(52, b"\0")
Tree = dict[str, bytes]


def make_image(chip_id: str, what: str) -> bytes:
    """A small, sound image; ``what`` is its text, so that no two are alike."""
    text = f"{what} for {chip_id}".encode()
    segment = Segment(RAM[chip_id], text.ljust(-(-len(text) // 4) * 4 + 64, b"\0"))
    settings = (
        SETTINGS
        if chip_id != "esp8266"
        else HeaderSettings(mode="dio", size="4MB", frequency="40m")
    )
    return build(create_image((segment,), RAM[chip_id], chip=load_chip(chip_id), settings=settings))


def make_table(rows: tuple[Partition, ...]) -> bytes:
    """A partition table as builds write it: 0xC00 bytes with MD5."""
    return build_table(PartitionTable(rows))


def make_idf(chip_id: str, app: str, *, ota: bool) -> Tree:
    """``build/`` of an ESP-IDF project."""
    boot = load_chip(chip_id).flash.bootloader_offset
    files = {
        boot: "bootloader/bootloader.bin",
        0x8000: "partition_table/partition-table.bin",
        0x10000: f"{app}.bin",
    }
    roles = {"bootloader": boot, "app": 0x10000, "partition-table": 0x8000}
    if ota:
        files[0xE000], roles["otadata"] = "ota_data_initial.bin", 0xE000
    args = {
        "write_flash_args": ["--flash_mode", "dio", "--flash_size", "4MB", "--flash_freq", "40m"],
        "flash_settings": {"flash_mode": "dio", "flash_size": "4MB", "flash_freq": "40m"},
        "flash_files": {f"{at:#x}": name for at, name in files.items()},
        **{
            role: {
                "offset": f"{at:#x}",
                "file": files[at],
                "encrypted": "true" if role == "nvs_keys" else "false",
            }
            for role, at in roles.items()
        },
        "extra_esptool_args": {
            "after": "hard_reset",
            "before": "default_reset",
            "stub": True,
            "chip": chip_id,
        },
    }
    lines = [
        "--flash_mode dio --flash_freq 40m --flash_size 4MB",
        *(f"{at:#x} {name}" for at, name in files.items()),
    ]
    text = ("\n".join(lines) + "\n").encode()
    tree = {
        "flasher_args.json": json.dumps(args, indent=4).encode() + b"\n",
        "flash_args": text,
        "flash_project_args": text,
        "bootloader/bootloader.bin": make_image(chip_id, "boot loader"),
        "partition_table/partition-table.bin": make_table(ARDUINO if ota else SINGLE_APP),
        f"{app}.bin": make_image(chip_id, app),
        f"{app}.elf": ELF_STUB,
        "config/sdkconfig.json": b"{}\n",
    }
    if ota:
        tree["ota_data_initial.bin"] = b"\xff" * 0x2000
    return {f"build/{name}": data for name, data in tree.items()} | {
        "CMakeLists.txt": b"# a project of ESP-IDF\n"
    }


def make_pio(chip_id: str, environment: str, rows: tuple[Partition, ...] | None) -> Tree:
    """``.pio/build/<environment>``; without partitions it is an ESP8266's."""
    tree = {"firmware.bin": make_image(chip_id, "firmware"), "firmware.elf": ELF_STUB}
    if rows is not None:
        tree |= {
            "bootloader.bin": make_image(chip_id, "boot loader"),
            "partitions.bin": make_table(rows),
        }
    below = {f".pio/build/{environment}/{name}": data for name, data in tree.items()}
    return below | {
        ".pio/build/project.checksum": b"0\n",
        "platformio.ini": f"[env:{environment}]\n".encode(),
    }


def make_arduino(chip_id: str, sketch: str, board: str, *, merged_only: bool = False) -> Tree:
    """``build/<board>`` beside a sketch, as "export compiled binary" and arduino-cli write it."""
    stem, app = f"build/{board}/{sketch}.ino", make_image(chip_id, sketch)
    tree = {
        f"{sketch}.ino": b"void setup() {}\nvoid loop() {}\n",
        f"{stem}.elf": ELF_STUB,
        f"{stem}.map": b"\n",
    }
    if chip_id == "esp8266":
        return tree | {f"{stem}.bin": app}
    boot, table = make_image(chip_id, "boot loader"), make_table(ARDUINO)
    if merged_only:
        whole = bytearray(b"\xff" * 0x10000)
        for at, data in (
            (load_chip(chip_id).flash.bootloader_offset, boot),
            (0x8000, table),
            (0xE000, BOOT_APP0),
        ):
            whole[at : at + len(data)] = data
        return {f"{sketch}.ino": tree[f"{sketch}.ino"], f"{stem}.merged.bin": bytes(whole) + app}
    return tree | {
        f"{stem}.bin": app,
        f"{stem}.bootloader.bin": boot,
        f"{stem}.partitions.bin": table,
    }


def make_trees() -> Tree:
    """Every file of every tree by its path."""
    idedata = {
        "prog_path": "/home/me/feather/.pio/build/feather/firmware.elf",
        "extra": {
            "flash_images": [
                {
                    "offset": "0x0000",
                    "path": "C:\\Users\\me\\feather\\.pio\\build\\feather\\bootloader.bin",
                },
                {"offset": "0x8000", "path": "/home/me/feather/.pio/build/feather/partitions.bin"},
            ],
            "application_offset": "0x10000",
        },
    }
    release = {
        "bootloader.bin": make_image("esp32", "boot loader"),
        "partitions.bin": make_table(ARDUINO),
        "boot_app0.bin": BOOT_APP0,
        "sensor-1.2.bin": make_image("esp32", "sensor"),
        "littlefs.bin": b"littlefs".ljust(64, b"\0"),
    }
    trees = {
        "esp-idf": make_idf("esp32c3", "hello_world", ota=False),
        "esp-idf-ota": make_idf("esp32", "native_ota_example", ota=True),
        "platformio-esp32": make_pio("esp32", "esp32dev", ARDUINO),
        "platformio-esp32s3": make_pio("esp32s3", "feather", UF2_BOOT)
        | {".pio/build/feather/idedata.json": json.dumps(idedata).encode()},
        "platformio-esp8266": make_pio("esp8266", "nodemcuv2", None),
        "platformio-two": make_pio("esp32", "esp32dev", ARDUINO)
        | make_pio("esp32c3", "c3mini", ARDUINO),
        "arduino-esp32": make_arduino("esp32c3", "Blink", "esp32.esp32.esp32c3"),
        "arduino-esp32-merged": make_arduino(
            "esp32", "Blink", "esp32.esp32.esp32", merged_only=True
        ),
        "arduino-esp8266": make_arduino("esp8266", "Blink", "esp8266.esp8266.nodemcuv2"),
        "release": release,
        "no-build": {
            "README.md": b"Nothing here.\n",
            "a.bin": b"\x01\x02",
            "sub/b.hex": b":00000001FF\n",
        },
    }
    return {f"{tree}/{name}": data for tree, files in trees.items() for name, data in files.items()}


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    wrong = []
    only_check = parser.parse_args().check
    for name, data in make_trees().items():
        path = TARGET / name
        if only_check and (not path.is_file() or path.read_bytes() != data):
            wrong.append(name)
        elif not only_check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    for name in wrong:
        print(f"{name} is not what {Path(__file__).name} makes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
