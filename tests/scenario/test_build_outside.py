"""A build's list of files can name nothing outside its folder without consent, and not more than a flash holds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.errors import FileError, SafetyStop
from espwire.image.build_dir import read_build
from espwire.image.build_file import BuildRequest

BUILDS = Path(__file__).parents[1] / "data/builds"
ALLOWED = BuildRequest(consents=frozenset({"outside-build"}))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a build folder, and a file beside the folder that is no part of it."""
    folder = tmp_path / "project"
    shutil.copytree(BUILDS / "esp-idf", folder)
    shutil.copy(folder / "build/hello_world.bin", folder / "secret.bin")
    shutil.copy(folder / "build/hello_world.bin", tmp_path / "secret.bin")
    return folder


def name_file(project: Path, path: str) -> None:
    """Make the build's lists name ``path`` for the application."""
    for name in ("flasher_args.json", "flash_args"):
        listed = project / "build" / name
        text = listed.read_text().replace("hello_world.bin", path.replace("\\", "\\\\"))
        listed.write_text(text)


def check_refused(path: Path) -> None:
    with pytest.raises(SafetyStop, match="names a file outside its folder") as caught:
        read_build(path)
    assert caught.value.code == "build-outside"
    assert caught.value.consents == ("outside-build",)
    assert "--allow outside-build" in caught.value.hint
    assert len(read_build(path, ALLOWED).blobs) == 3


@pytest.mark.parametrize("target", ["", "build", "build/flasher_args.json", "build/flash_args"])
@pytest.mark.parametrize(
    "outside", ["../secret.bin", "../../secret.bin", "bootloader/../../secret.bin", "ABSOLUTE"]
)
def test_a_path_that_leads_out_needs_consent(project: Path, target: str, outside: str) -> None:
    name_file(project, str(project / "secret.bin") if outside == "ABSOLUTE" else outside)
    check_refused(project / target)


def test_a_path_that_leads_out_and_in_again_is_inside(project: Path) -> None:
    for inside in (
        "../build/hello_world.bin",
        str(project / "build/hello_world.bin"),
        "./hello_world.bin",
    ):
        folder = project.parent / "again"
        shutil.copytree(project, folder, dirs_exist_ok=True)
        name_file(folder, inside.replace(str(project), str(folder)))
        assert len(read_build(folder).blobs) == 3
        shutil.rmtree(folder)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
@pytest.mark.parametrize("target", ["", "build", "build/flasher_args.json"])
def test_a_link_that_leads_out_needs_consent(project: Path, target: str) -> None:
    app = project / "build/hello_world.bin"
    app.unlink()
    app.symlink_to("../secret.bin")
    check_refused(project / target)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_a_linked_folder_that_leads_out_needs_consent_and_a_linked_build_does_not(
    project: Path, tmp_path: Path
) -> None:
    shutil.move(project / "build/bootloader", tmp_path / "elsewhere")
    (project / "build/bootloader").symlink_to(tmp_path / "elsewhere")
    check_refused(project / "build")
    shutil.copytree(BUILDS / "esp-idf/build", tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert len(read_build(tmp_path / "link").blobs) == 3


def test_the_command_names_the_consent_and_takes_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name_file(project, "../secret.bin")
    port = ["--port", "virtual:esp32c3?profile=instant", "--no-state"]
    assert main([*port, "flash", str(project / "build"), "--force"]) == 8  # by its name only
    told = capsys.readouterr().err
    assert "[build-outside]" in told
    assert "--allow outside-build" in told
    assert main([*port, "flash", str(project / "build"), "--allow", "outside-build"]) == 0


def make_sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def test_one_large_file_named_again_and_again_is_refused_before_it_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse = tmp_path / "sparse.bin"
    make_sparse(sparse, 64 << 20)
    read: list[str] = []

    def count(path: object, *rest: object) -> object:
        read.append(str(path))
        return open(path, *rest)  # type: ignore[call-overload]

    monkeypatch.setattr("espwire.files.open", count, raising=False)
    pairs = [word for number in range(62) for word in (f"{number << 26:#x}", str(sparse))]
    port = ["--port", "virtual:esp32?profile=instant"]
    for words in (
        [*port, "write-flash", *pairs],
        [*port, "verify-flash", *pairs],
        [*port, "write-flash", "0", str(sparse), *["--diff-with"], *[str(sparse)] * 5],
        [*port, "write-flash", "0", str(sparse), "--encrypt-files", *pairs],
        [*port, "write-flash", *[f"nvs={sparse}"] * 62],
        ["merge-bin", "--chip", "esp32", "-o", str(tmp_path / "o.bin"), *pairs],
        [
            "make-image",
            *[word for _ in range(62) for word in ("-f", str(sparse), "-a", "0")],
            str(tmp_path / "o.bin"),
        ],
    ):
        assert main(words) == 6, words[:6]
        assert "[files-too-large]" in capsys.readouterr().err, words[:6]
        assert read == []
    assert not (tmp_path / "o.bin").exists()


def test_the_files_of_a_build_share_one_limit(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espwire.image.build_dir.INPUT_LIMIT", 0x40000)
    make_sparse(project / "build/big.bin", 0x10000)
    files = {f"{number << 20:#x}": "big.bin" for number in range(62)}
    (project / "build/flasher_args.json").write_text(json.dumps({"flash_files": files}))
    with pytest.raises(FileError, match="more than") as caught:
        read_build(project / "build")
    assert caught.value.code == "files-too-large"
