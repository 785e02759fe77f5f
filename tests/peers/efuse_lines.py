"""Random states of eFuses and random chained command lines, for comparisons with espefuse."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from espwire.efuse.model import Block, Field
from espwire.efuse.state import FuseState
from espwire.efuse.store import VirtualStore
from espwire.efuse.tables import Layout, find_layout, load_fuses
from espwire.efuse.token import Token, build_token
from espwire.errors import CONSENTS

VERSION_FIELDS = ("WAFER_VERSION", "CHIP_VER_REV", "CODING_SCHEME")

# random lines burn what is dangerous as well
ALLOW_ALL = [word for name in CONSENTS if name.startswith("efuse-") for word in ("--allow", name)]


def build_random_state(chip: str, seed: int, revision: int = 0) -> str:
    """A token with random bits, zeros where RD_DIS hides words, and the given revision."""
    dice, data = random.Random(f"{chip} {seed}"), load_fuses(chip)
    blocks = [dice.getrandbits(block.bits) for block in data.blocks]
    if seed % 3 == 0:
        blocks = [value & dice.getrandbits(600) & dice.getrandbits(600) for value in blocks]
    layout = find_layout(chip, revision)
    for field in layout.fields:
        versioned = revision and field.name.startswith("WAFER_VERSION")
        # the peer's tokens ignore this bit of the revision
        if versioned or field.name in ("CODING_SCHEME", "WAFER_VERSION_MINOR_HI"):
            blocks[field.block] &= ~field.mask
        if seed % 2 and field.name == "RD_DIS":
            blocks[field.block] &= ~field.mask
    if seed % 3 == 2 and isinstance(scheme := layout.find("CODING_SCHEME"), Field):
        blocks[0] |= 1 << scheme.start
        blocks = [blocks[0], *(value & ((1 << 192) - 1) for value in blocks[1:])]
    full = FuseState(chip, blocks)
    visible = [
        value & ~full.hidden_mask(block) for value, block in zip(blocks, data.blocks, strict=True)
    ]
    token = Token("EFSR", chip, revision, tuple(visible))
    return build_token(token, [4 * block.words for block in data.blocks])


class LineGenerator:
    """Command lines for one chip. Files that they name are written to ``folder``.

    Left out are lines on which the programs differ on purpose; docs/differences.md lists them.
    """

    def __init__(self, chip: str, folder: Path, seed: int, revision: int = 0) -> None:
        self.dice = random.Random(f"line {chip} {seed} {revision}")
        self.data, self.folder = load_fuses(chip), folder
        self.layout: Layout = find_layout(chip, revision)
        self.by_name = any(purpose.block is not None for purpose in self.data.key_purposes)
        self.files = 0
        self.used: set[int] = set()  # blocks of this line: the peer mixes the data of two commands
        self.purposed = (
            False  # this line burns a purpose by itself: the peer ignores it in burn-key
        )

    def build_line(self) -> list[str]:
        """One to four commands."""
        line: list[str] = []
        self.used.clear()
        self.purposed = False
        commands = [
            self.burn_efuse,
            self.burn_efuse,
            self.burn_efuse,
            self.burn_bit,
            self.burn_block_data,
            self.burn_key,
            self.burn_key,
            self.burn_custom_mac,
        ]
        # the peer reads neither the names of a lock nor trailing options if another command follows
        last = (self.write_protect, self.burn_key_with_options, self.burn_part_of_block)
        if self.dice.random() < 0.15:  # these look at the eFuses as they are before the line
            return self.read_protect()
        if self.data.flash_voltage is not None and self.dice.random() < 0.1:
            return self.set_flash_voltage()
        for _ in range(self.dice.choice((0, 1, 2, 2, 3))):
            line += self.dice.choice(commands)()
        if not line or self.dice.random() < 0.5:
            line += self.dice.choice(last)()
        return line or self.build_line()

    def burn_efuse(self) -> list[str]:
        words = ["burn-efuse"]
        for _ in range(self.dice.choice((1, 1, 2, 3))):
            field = self.dice.choice([f for f in self.layout.fields if f.name not in words])
            if field.group or field.name in ("WR_DIS", "RD_DIS", "CODING_SCHEME"):
                continue
            if any(part in field.name for part in VERSION_FIELDS) or field.format == "mac":
                continue
            if field.block and field.block in self.used:
                continue
            self.used.add(field.block)
            if field.kind == "bytes":
                value = f"0x{self.dice.getrandbits(field.bits):0{field.bits // 4}x}"
            elif field.format == "key_purpose":
                value = self._choose_purpose(field)
                self.purposed = True
            else:
                value = str(self.dice.randrange(1, min(1 << field.bits, 1 << 16)))
            words += [field.name, value]
        return words if len(words) > 1 else ["burn-efuse", *self._any_flag()]

    def _choose_purpose(self, field: Field) -> str:
        names = [purpose.name for purpose in self.data.key_purposes if purpose.value >= 0]
        slots = [block.purpose_field for block in self.data.blocks if block.purpose_field]
        if field.name == slots[-1]:  # the peer refuses these, and has no consent
            names = [name for name in names if name not in self.data.slot5_forbidden]
        return self.dice.choice(names)

    def _choose_block(self) -> Block | None:
        free = [block for block in self.data.blocks[2:] if block.id not in self.used]
        if not free:
            return None
        block = self.dice.choice(free)
        self.used.add(block.id)
        return block

    def _any_flag(self) -> list[str]:
        flags = [f for f in self.layout.fields if f.kind == "flag" and not (f.format or f.group)]
        usable = [f for f in flags if not any(part in f.name for part in VERSION_FIELDS)]
        return [self.dice.choice(usable).name, "1"]

    def burn_bit(self) -> list[str]:
        if (block := self._choose_block()) is None:
            return []
        name = block.name if self.by_name else self.dice.choice((block.name, *block.alias))
        bits = [str(self.dice.randrange(block.bits)) for _ in range(self.dice.randrange(1, 4))]
        return ["burn-bit", name, *bits]

    def burn_block_data(self) -> list[str]:
        if (block := self._choose_block()) is None:
            return []
        size = 4 * block.words
        return ["burn-block-data", block.name, self._file(size)]

    def burn_part_of_block(self) -> list[str]:
        if (block := self._choose_block()) is None:
            return []
        length = self.dice.randrange(1, 2 * block.words)
        offset = self.dice.randrange(1, 4 * block.words - length)
        return ["burn-block-data", "-o", str(offset), block.name, self._file(length)]

    def burn_key_with_options(self) -> list[str]:
        line = self.burn_key()
        if not line:
            return []
        every = (
            ["--no-protect-key"] if self.by_name else ["--no-write-protect", "--no-read-protect"]
        )
        return [*line, *self.dice.sample(every, self.dice.randrange(len(every) + 1))]

    def burn_key(self) -> list[str]:
        names = [n for n in self.data.key_blocks if self.layout.block(n).id not in self.used]
        if not names or self.purposed:
            return []
        block = self.dice.choice(names)
        self.used.add(self.layout.block(block).id)
        if self.by_name:
            return ["burn-key", block, self._file(32)]
        purposes = [p for p in self.data.key_purposes if "ECDSA" not in p.name]
        keys = {self.layout.block(name).id for name in self.data.key_blocks}
        # the peer puts a second half into a block that another command names
        if len(keys & self.used) > 1:
            purposes = [p for p in purposes if not p.splits_into]
        purpose = self.dice.choice(purposes)
        if purpose.splits_into:  # with another name, the peer takes the block for a free one
            block = self.layout.block(block).name
            self.used |= keys
        size = (purpose.bytes or 32) * max(len(purpose.splits_into), 1)
        if self.dice.random() < 0.05:
            size += 1
        return ["burn-key", block, self._file(size), purpose.name]

    def burn_custom_mac(self) -> list[str]:
        block = self.layout.field("CUSTOM_MAC").block
        if block in self.used:
            return []
        self.used.add(block)
        mac = self.dice.randbytes(6)
        return ["burn-custom-mac", mac.hex(":").upper()]

    def write_protect(self) -> list[str]:
        fields = [field for field in self.layout.fields if field.group in ("", "key_block")]
        return ["write-protect-efuse", self.dice.choice(fields).name]

    def read_protect(self) -> list[str]:
        fields = [field for field in self.layout.fields if field.rd_dis and not field.group]
        keys = [field for field in self.layout.fields if field.format == "key_block"]
        hideable = [field for field in (*fields, *keys) if field.rd_dis]
        return ["read-protect-efuse", self.dice.choice(hideable).name]

    def set_flash_voltage(self) -> list[str]:
        return ["set-flash-voltage", self.dice.choice(("1.8V", "3.3V", "OFF"))]

    def _file(self, size: int) -> str:
        self.files += 1
        path = self.folder / f"{self.data.id}-{self.files}-{self.dice.getrandbits(32):08x}.bin"
        path.write_bytes(self.dice.randbytes(size))
        return str(path)


def read_blocks(store: VirtualStore) -> Iterator[str]:
    """The words of each block as software reads them."""
    for block, value in zip(store.data.blocks, store.read().blocks, strict=True):
        yield f"{block.name}: {value:x}"
