"""The same command lines through esptool 5.6.0 and through us: same flash, same files, same verdict.

Each runs on a virtual chip of its own, of the same kind and with the same contents. Where the two differ on purpose,
``INTENDED`` says so, an example proves it, and docs/differences.md tells the user. That espwire keeps what shares a sector
with a file is switched off here: see test_write_flash_peer.py.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from both_programs import End, find_differences, run_ours, run_theirs
from line_files import make_files
from line_generator import Drawer, Line

from espwire.cli.context import Context
from espwire.cli.main import main
from espwire.cli.program import Program

CI_LINES, FULL_LINES = 40, 300
WORKERS = 2
DIFFERENCES = Path(__file__).resolve().parents[2] / "docs/differences.md"
NOT_IMAGES = (
    "odd1.bin",
    "odd5.bin",
    "odd4095.bin",
    "odd4097.bin",
    "page.bin",
    "five.bin",
    "zeros.bin",
    "one.hex",
)
HEADER = re.compile(r"-f[mfs]|--flash[-_](mode|freq|size)")


@dataclass(frozen=True)
class Difference:
    """One way in which we differ on purpose. ``told``: what docs/differences.md says of it, in these words."""

    told: str
    example: Line
    theirs: bool  # accepted by esptool
    ours: bool
    code: str = ""  # the id of our refusal
    fits: Callable[[Line], bool] = lambda line: True

    def explains(self, line: Line, theirs: End, ours: End) -> bool:
        """Whether a line's ends differ in just this way."""
        verdicts = (theirs.accepted, ours.accepted) == (self.theirs, self.ours)
        return verdicts and (self.ours or ours.code == self.code) and self.fits(line)


def has(*words: str) -> Callable[[Line], bool]:
    """A test whether one of the words stands on the line."""
    return lambda line: any(word in (*line.words, *line.then) for word in words)


def changes_header(line: Line) -> bool:
    return any(HEADER.match(word) for word in (*line.words, *line.then))


def line(chip: str, text: str, **keywords: object) -> Line:
    return Line(chip, tuple(text.split()), **keywords)  # type: ignore[arg-type]


INTENDED = {
    "frequency that the chip lacks": Difference(
        "a flash frequency that the chip does not have",
        line("esp32c6", "write-flash -ff 26m 0x40000 odd5.bin"),
        True,
        False,
        "flash-frequency",
        changes_header,
    ),
    "size that the chip lacks": Difference(
        "a flash size that the chip's header cannot express",
        line("esp32s2", "write-flash -fs 512KB 0x40000 odd5.bin"),
        True,
        False,
        "flash-size",
        changes_header,
    ),
    "broken hex": Difference(
        "an Intel HEX file with a broken record",
        line("esp32c3", "write-flash 0x1000 bad.hex"),
        True,
        False,
        "hex-record",
        has("bad.hex"),
    ),
    "hex after its end": Difference(
        "an Intel HEX file that continues after its end record",
        line("esp32c3", "write-flash 0x1000 after.hex"),
        True,
        False,
        "hex-record",
        has("after.hex"),
    ),
    "damaged boot image": Difference(
        "a damaged image where the chip boots from",
        line("esp32c3", "write-flash 0x0 esp32c3-broken.bin", options="revision=0.4"),
        True,
        False,
        "image-damaged",
        has("esp32c3-broken.bin", "esp32-torn.bin"),
    ),
    "not an image where the chip boots from": Difference(
        "a file that is not an image where the chip boots from",
        line("esp32c3", "write-flash 0x0 odd5.bin"),
        True,
        False,
        "not-an-image",
        has(*NOT_IMAGES),
    ),
    "bootloader at another chip's offset": Difference(
        "a bootloader or merged file at another chip's offset",
        line("esp32c3", "write-flash 0x1000 esp32c3-boot.bin", options="revision=0.4"),
        True,
        False,
        "wrong-offset",
        lambda line: any(word.endswith("-boot.bin") for word in (*line.words, *line.then)),
    ),
    "decimal address that is likely hexadecimal": Difference(
        "a decimal address that is not a multiple of the sector size",
        line("esp32c3", "write-flash 10000 odd5.bin"),
        True,
        False,
        "usage",
        lambda line: any(word.isdecimal() for word in (*line.words, *line.then)),
    ),
    "reading nothing": Difference(
        "reading or erasing 0 bytes",
        line("esp32c3", "read-flash 0x10000 0 out.bin"),
        True,
        False,
        "usage",
        has("0"),
    ),
    "erasing nothing": Difference(
        "reading or erasing 0 bytes",
        line("esp32s3", "erase-region 0x40000 0"),
        True,
        False,
        "unaligned",
        has("0"),
    ),
    "verifying past the end": Difference(
        "`verify-flash` past the end of the flash",
        line("esp32c3", "verify-flash -fs 4MB 0x200000 odd5.bin", preset=((0, "odd5.bin"),)),
        True,
        False,
        "past-flash-end",
        has("-fs", "--flash-size", "--flash_size"),
    ),
    "address with a unit": Difference(
        "addresses with `k` or `M`",
        line("esp32c3", "write-flash 64k odd5.bin"),
        False,
        True,
        fits=has("64k"),
    ),
    "all from an address on": Difference(
        "`ALL` from an address other than 0",
        line("esp32c3", "erase-region 0x9000 ALL", preset=((0x9000, "page.bin"),)),
        False,
        True,
        fits=has("ALL", "all"),
    ),
    "compressing for a loader that cannot unpack": Difference(
        "`--compress` with a loader that cannot unpack",
        line("esp8266", "write-flash -z 0x10000 esp8266-boot.bin"),
        False,
        True,
        fits=has("-z", "--compress"),
    ),
    "abbreviation": Difference(
        "abbreviated options of versions 1 to 4",
        line("esp32c3", "write-flash --flash-mod dio 0x40000 odd5.bin"),
        False,
        True,
        fits=has("--flash-mod", "--erase-al"),
    ),
    "empty variable": Difference(
        "an empty environment variable",
        line("esp32c3", "write-flash 0x40000 odd5.bin", environment={"ESPTOOL_FM": ""}),
        False,
        True,
        fits=lambda line: "" in line.environment.values(),
    ),
    "erasing all with a ROM loader": Difference(
        "erasing the whole flash without a stub",
        line("esp32c3", "erase-flash", preset=((0x9000, "page.bin"),)),
        False,
        True,
        fits=has("erase-flash", "-e", "--erase-all", "--erase-al"),
    ),
}
# both accept, and the results differ as described
ACCEPTED_DIFFERENTLY = {
    "memory that is no multiple of 4": (
        "`dump-mem` of a size that is not a multiple of 4",
        line("esp32", "dump-mem 0x3ffb8000 18 out.bin"),
        lambda theirs, ours: (
            (len(ours.files["out.bin"]), len(theirs.files["out.bin"]) % 4) == (18, 0)
        ),
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    return folder


def run_without_keeping(words: list[str]) -> int:
    return main(words, Context(Program(keep=False)))


@dataclass
class Comparison:
    """What became of many lines."""

    counts: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)


def compare(
    lines: Iterable[Line],
    esptool: str,
    place: Path,
    files: Path,
    run: Callable[[list[str]], int] = run_without_keeping,
) -> Comparison:
    """Run all lines through both; theirs beside ours."""
    result, todo = Comparison(), []
    with ThreadPoolExecutor(WORKERS) as pool:
        for number, each in enumerate(lines):
            folder = place / str(number)
            folder.mkdir()
            todo.append((each, folder, pool.submit(run_theirs, esptool, each, folder, files)))
        for each, folder, future in todo:
            ours, theirs = run_ours(each, folder, files, run), future.result()
            differences = find_differences(theirs, ours)
            kind = judge(each, theirs, ours, differences)
            result.counts[kind] += 1
            if kind == "different":
                said = [" | ".join(end.text.strip().splitlines()[-2:]) for end in (theirs, ours)]
                result.found.append(
                    f"{each}\n  {differences}\n  esptool: {said[0]}\n  here:    {said[1]}"
                )
            for path in folder.glob("*.flash"):
                path.unlink()
    return result


def judge(line: Line, theirs: End, ours: End, differences: list[str]) -> str:
    """Under what a line counts."""
    if "Traceback" in ours.text or ours.code == "bug":
        return "different"
    if not differences:
        return "accepted by both" if ours.accepted else "refused by both"
    if any(difference.explains(line, theirs, ours) for difference in INTENDED.values()):
        return "intended difference"
    if theirs.accepted and ours.accepted and theirs.flash == ours.flash:
        for _, example, test in ACCEPTED_DIFFERENTLY.values():
            name = example.words[0]
            if line.words[0].replace("_", "-") == name and test(theirs, ours):
                return "intended difference"
    return "different"


def check(result: Comparison, count: int) -> None:
    print(
        f"{count} lines: "
        + ", ".join(f"{number} {kind}" for kind, number in sorted(result.counts.items()))
    )
    assert not result.found, "\n".join(result.found)
    assert result.counts["accepted by both"] * 2 >= count
    assert result.counts["refused by both"] * 10 >= count


def test_both_programs_do_the_same(esptool: str, files: Path, tmp_path: Path) -> None:
    drawer = Drawer(1)
    check(compare((drawer.draw() for _ in range(CI_LINES)), esptool, tmp_path, files), CI_LINES)


@pytest.mark.soak
def test_full_size(esptool: str, files: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("ESPWIRE_SEED", "1000"))
    print(f"seed {seed}")
    drawer = Drawer(seed)
    check(compare((drawer.draw() for _ in range(FULL_LINES)), esptool, tmp_path, files), FULL_LINES)


def test_intended_differences_are_as_described(esptool: str, files: Path, tmp_path: Path) -> None:
    told = " ".join(DIFFERENCES.read_text("utf-8").split())
    folders = [tmp_path / str(number) for number in range(len(INTENDED))]
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = []
        for folder, difference in zip(folders, INTENDED.values(), strict=True):
            folder.mkdir()
            futures.append(pool.submit(run_theirs, esptool, difference.example, folder, files))
    for folder, future, (name, difference) in zip(folders, futures, INTENDED.items(), strict=True):
        theirs = future.result()
        ours = run_ours(difference.example, folder, files, run_without_keeping)
        assert difference.explains(difference.example, theirs, ours), (
            name,
            theirs.text[-300:],
            ours.text[-300:],
        )
        assert difference.told in told, name


@pytest.mark.parametrize("name", ACCEPTED_DIFFERENTLY)
def test_what_both_accept_and_do_differently(
    name: str, esptool: str, files: Path, tmp_path: Path
) -> None:
    text, example, test = ACCEPTED_DIFFERENTLY[name]
    theirs, ours = run_theirs(esptool, example, tmp_path, files), run_ours(example, tmp_path, files)
    assert theirs.accepted
    assert ours.accepted
    assert test(theirs, ours)
    assert text in " ".join(DIFFERENCES.read_text("utf-8").split())


class TestTheComparisonNotices:
    """With a fault switched on, the comparison must fail."""

    WRITE = (line("esp32c3", "write-flash 0x10000 five.bin"),)

    def test_a_byte_that_is_not_written(
        self, esptool: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from espwire.blob import Blob
        from espwire.cli.commands import flash

        whole = flash.read_inputs

        def short(*arguments: object, **keywords: object) -> list[Blob]:
            read: list[Blob] = whole(*arguments, **keywords)  # type: ignore[arg-type]
            return [Blob(part.address, part.data[:-1], part.name) for part in read]

        monkeypatch.setattr(flash, "read_inputs", short)
        result = compare(self.WRITE, esptool, tmp_path, files)
        assert result.counts["different"] == 1
        assert "flash differs" in result.found[0]

    def test_a_verdict_that_is_turned_round(
        self, esptool: str, files: Path, tmp_path: Path
    ) -> None:
        lines = (*self.WRITE, line("esp32c3", "write-flash 0x10000 nothing.bin"))
        result = compare(lines, esptool, tmp_path, files, run=lambda words: int(main(words) == 0))
        assert result.counts["different"] == 2
