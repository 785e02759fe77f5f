"""The ``esptool`` module of espwire-compat, as esptool 5 documents it, on virtual chips. Found by path, not installed."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import espwire

SOURCE = Path(__file__).resolve().parents[2] / "compat/src"
DEMO = Path(espwire.__file__).parent / "demo/esp32c3-hello.bin"


@pytest.fixture(scope="module", autouse=True)
def path() -> Iterator[None]:
    """Other tests must not see this module under esptool's name."""
    before = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "esptool"
    }
    sys.path.insert(0, str(SOURCE))
    yield
    sys.path.remove(str(SOURCE))
    for name in [name for name in sys.modules if name.split(".")[0] == "esptool"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def esptool() -> Any:
    import esptool

    assert Path(esptool.__file__).is_relative_to(SOURCE)
    return esptool


def test_main_runs_a_command_line(
    esptool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert esptool.main(["-p", "virtual:esp32c3", "write_flash", "0x0", str(DEMO)]) is None
    out = capsys.readouterr().out
    assert "Chip is ESP32-C3" in out
    assert "Hash of data verified." in out


def test_main_raises_fatal_error_for_a_failure_and_exits_for_a_broken_line(
    esptool: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(esptool.FatalError) as failed:
        esptool.main(["-p", "virtual:esp32c3", "verify-flash", "0", str(DEMO)])
    assert failed.value.code == "verify"
    assert failed.value.hint
    for line in (["bogus"], ["write-flash", "0"], [], ["--bogus"]):
        with pytest.raises(SystemExit) as ended:
            esptool.main(line)
        assert ended.value.code == 2
    assert "unknown command 'bogus'" in capsys.readouterr().err
    assert issubclass(esptool.FatalError, RuntimeError)


def test_main_takes_a_chip_that_is_connected(
    esptool: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with esptool.cmds.detect_chip("virtual:esp32s3") as esp:
        capsys.readouterr()
        esptool.main(["--after", "no-reset", "read-mac"], esp)
        esptool.main(["--after", "no-reset", "flash-id"], esp)
        assert esp.read_reg(0x60008000) is not None
        assert esp.read_mac() == (0x24, 0x0A, 0xC4, 0x00, 0x01, 0x10)  # it still answers
    out = capsys.readouterr().out
    assert "MAC: 24:0a:c4:00:01:10" in out
    assert "Detected flash size: 4MB" in out
    assert "Hard resetting" not in out


def test_the_documented_workflow_writes_verifies_and_reads_flash(
    esptool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cmds = esptool.cmds
    first, second = os.urandom(5000), os.urandom(3000)
    path, output = tmp_path / "first.bin", tmp_path / "out.bin"
    path.write_bytes(first)
    with cmds.detect_chip("virtual:esp32") as esp:
        assert cmds.run_stub(esp) is esp
        cmds.attach_flash(esp)
        parts = [(0x10000, str(path)), (0x20000, io.BytesIO(second)), (0x30000, b"third")]
        assert cmds.write_flash(esp, parts, no_progress=True) is None
        assert cmds.verify_flash(esp, parts) is None
        assert cmds.read_flash(esp, 0x10000, 5000, no_progress=True) == first
        assert cmds.read_flash(esp, 0x20000, 3000, str(output), no_progress=True) is None
        assert output.read_bytes() == second
        cmds.erase_region(esp, 0x30000, 0x1000)
        assert cmds.read_flash(esp, 0x30000, 8, no_progress=True) == b"\xff" * 8
        with pytest.raises(esptool.FatalError, match=r"differs|not hold"):
            cmds.verify_flash(esp, parts)
        cmds.reset_chip(esp, "hard-reset")
    said = capsys.readouterr()
    assert said.out.count("Hash of data verified.") >= 6
    assert "Hard resetting via RTS pin..." in said.out


def test_functions_that_look_print_and_return_none(
    esptool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cmds = esptool.cmds
    with cmds.connect_esp("virtual:esp32c3", chip="ESP32-C3") as esp:
        assert (
            cmds.chip_id(esp)
            is cmds.read_mac(esp)
            is cmds.get_security_info(esp)
            is cmds.flash_id(esp)
            is None
        )
        assert (
            cmds.read_flash_status(esp)
            is cmds.read_flash_sfdp(esp, 0, 4)
            is cmds.read_mem(esp, 0x60008000)
            is None
        )
        cmds.write_mem(esp, 0x3FC80000, 0x12345678)
        assert cmds.dump_mem(esp, 0x3FC80000, 4) == bytes.fromhex("78563412")
        assert cmds.dump_mem(esp, 0x3FC80000, 4, str(tmp_path / "mem.bin")) is None
        assert esp.read_reg(0x3FC80000) == 0x12345678
        assert esp.get_chip_description().startswith("ESP32-C3")
        assert "(revision v" in esp.get_chip_description()
        assert esp.get_crystal_freq() == 40
        assert esp.get_chip_features()
        assert esp.flash_id() & 0xFF == 0xEF
    assert (tmp_path / "mem.bin").read_bytes() == bytes.fromhex("78563412")
    out = capsys.readouterr().out
    assert "Detected flash size: 4MB" in out


def test_a_class_per_chip_connects_to_that_chip_only(esptool: Any) -> None:
    from esptool import targets

    with targets.ESP32ROM("virtual:esp32") as esp:
        with pytest.raises(esptool.FatalError, match="connect"):
            esp.read_reg(0)
        esp.connect()
        assert esp.CHIP_NAME == "ESP32"
    with targets.ESP32S3ROM("virtual:esp32") as esp, pytest.raises(esptool.FatalError):
        esp.connect(attempts=1)
    assert {f"{name.upper()}ROM" for name in espwire.chip_ids()} == {
        n for n in dir(targets) if n.endswith("ROM")
    }


def test_a_logger_of_ones_own_gets_everything(
    esptool: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from esptool.logger import TemplateLogger, log

    got: list[tuple[str, Any]] = []

    class Mine(TemplateLogger):
        def print(self, *args: Any, **kwargs: Any) -> None:
            got.append(("print", args[0]))

        def note(self, message: str) -> None:
            got.append(("note", message))

        def warning(self, message: str) -> None:
            got.append(("warning", message))

        def error(self, message: str) -> None:
            got.append(("error", message))

        def stage(self, finish: bool = False) -> None:
            got.append(("stage", finish))

        def progress_bar(
            self, cur_iter: int, total_iters: int, *more: Any, **keywords: Any
        ) -> None:
            got.append(("progress", (cur_iter, total_iters)))

        def set_verbosity(self, verbosity: str) -> None:
            got.append(("verbosity", verbosity))

    log.set_logger(Mine())
    try:
        with esptool.detect_chip("virtual:esp32e22") as esp:
            esptool.run_stub(esp)  # there is none for this chip, which is warned of
            esptool.write_flash(esp, [(0x10000, os.urandom(20000))])
            esptool.flash_id(esp)
    finally:
        log.set_logger(log)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    assert ("progress", (20000, 20000)) in got
    assert any(kind == "warning" for kind, _ in got)
    assert any(kind == "print" and "Detected flash size" in text for kind, text in got)


def test_what_is_not_there_says_so_by_name(esptool: Any) -> None:
    with esptool.detect_chip("virtual:esp32") as esp:
        with pytest.raises(esptool.NotSupportedError, match="encrypt"):
            esptool.write_flash(esp, [(0, b"x")], encrypt=True)
        with pytest.raises(esptool.NotSupportedError, match="NAND"):
            esptool.attach_flash(esp, flash_type="nand")
    with pytest.raises(esptool.FatalError) as missing:
        esptool.detect_chip("/dev/no-such-port", connect_attempts=1)
    assert missing.value.code == "port-not-found"


def test_images_are_made_merged_and_shown(
    esptool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cmds = esptool.cmds
    merged = cmds.merge_bin([(0x0, str(DEMO)), (0x10000, b"\x01\x02")], "esp32c3")
    assert merged[: len(DEMO.read_bytes())] == DEMO.read_bytes()
    assert merged[0x10000:] == b"\x01\x02"
    assert (
        cmds.merge_bin([(0x0, str(DEMO))], "esp32c3", str(tmp_path / "m.uf2"), format="uf2") is None
    )
    assert (tmp_path / "m.uf2").read_bytes()[:4] == b"UF2\n"
    assert cmds.image_info(str(DEMO)) is None
    assert "ESP32-C3" in capsys.readouterr().out
    with pytest.raises(esptool.FatalError):
        cmds.image_info(b"not an image")
    with pytest.raises(esptool.FatalError) as bad:
        cmds.elf2image(b"not an ELF file", "esp32c3")
    assert bad.value.code.startswith("elf")


def test_the_versions_agree(esptool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import tomllib

    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == espwire.__version__
    assert project["dependencies"] == [f"espwire=={espwire.__version__}"]
    esptool.version()
    assert capsys.readouterr().out.splitlines()[-1] == esptool.__version__ == "5.6.0"
