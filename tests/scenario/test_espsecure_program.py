"""The program ``espsecure.py``: spellings of versions 2 to 5, its lines, its exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from espwire.secure.flash_encryption import encrypt_esp32, encrypt_xts

DATA = bytes(range(256)) * 20


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    program = pytest.importorskip("espwire_compat.espsecure")
    monkeypatch.chdir(tmp_path)
    Path("app.bin").write_bytes(DATA)

    def run(line: str, code: int = 0) -> list[str]:
        assert program.main(line.split()) == code, capsys.readouterr()
        shown = capsys.readouterr()
        return (shown.err if code else shown.out).splitlines()

    return run


def test_the_lines_that_scripts_search_for(run: Any) -> None:
    assert run("generate_signing_key --version 2 --scheme ecdsa256 key.pem") == [
        'ECDSA NIST256p private key in PEM format written to "key.pem".'
    ]
    assert run("sign_data --version 2 --keyfile key.pem --output signed.bin app.bin") == [
        "Padding data contents by 3072 bytes so signature sector aligns at sector boundary.",
        'Signed 8192 bytes of data from "app.bin". Signature sector now has 1 signature blocks.',
    ]
    assert run("verify_signature --version 2 --keyfile key.pem signed.bin") == [
        "Signature block 0 is valid (ECDSA).",
        "Signature block 0 verification successful using the supplied key (ECDSA).",
    ]
    assert run("digest_sbv2_public_key -k key.pem -o digest.bin") == [
        'Writing the public key digest of "key.pem" to "digest.bin".'
    ]
    digest = Path("digest.bin").read_bytes().hex(" ")
    assert run("signature_info_v2 signed.bin") == [
        "Signature block 0 is valid (ECDSA).",
        f"Public key digest for block 0: {digest}",
        "Signature block 1 absent/invalid.",
        "Signature block 2 absent/invalid.",
    ]
    assert run("digest_rsa_public_key -k key.pem -o digest.bin")
    assert run("extract_public_key -v 2 -k key.pem public.pem") == [
        '"key.pem" public key extracted to "public.pem".'
    ]
    assert run("generate_flash_encryption_key --keylen 512 flash.key") == [
        'Writing 512 random bits to key file "flash.key".'
    ]
    assert run("digest_private_key -k key.pem -l 192 boot.key") == [
        'SHA-256 digest of private key "key.pem" (truncated to 192 bits) written to "boot.key".'
    ]
    assert run("sign_data -v 1 -k key.pem -o v1.bin app.bin") == [
        'Signed 5120 bytes of data from "app.bin".'
    ]
    assert run("verify_signature -v 1 -k key.pem v1.bin") == ["Signature is valid."]
    assert run("generate-sdc-certificate -k key.pem --mac 001122334455") == [
        'SDC certificate generated successfully: "sdc_cert.bin"',
        "Certificate size: 468 bytes",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "sign_data -v 2 -k a.pem b.pem -o out.bin app.bin",
        "sign_data --version 2 --keyfile a.pem b.pem --output out.bin app.bin",
        "sign_data --vers 2 --key a.pem b.pem --out out.bin app.bin",
        "sign-data --version=2 app.bin --output=out.bin -k a.pem b.pem",
        "sign-data -v 2 -o out.bin -k a.pem -k b.pem app.bin",
        "sign-data -v2 -oout.bin -k a.pem b.pem app.bin",
    ],
)
def test_several_keys_after_one_option(run: Any, line: str) -> None:
    for name in ("a", "b"):
        run(f"generate_signing_key -v 2 -s ecdsa192 {name}.pem")
    assert "Signature sector now has 2 signature blocks." in run(line)[-1]
    run("verify_signature -v 2 -k b.pem out.bin")


def test_without_an_option_data_is_encrypted_for_an_esp32(run: Any) -> None:
    run("generate_flash_encryption_key k.bin")
    key = Path("k.bin").read_bytes()
    run("encrypt_flash_data -k k.bin -o out.bin --addr 0x1000 --flash_crypt_conf 0x3 app.bin")
    assert Path("out.bin").read_bytes() == encrypt_esp32(DATA, 0x1000, key, 3)
    run("encrypt_flash_data --aes_xts -k k.bin -o out.bin -a 4096 app.bin")
    assert Path("out.bin").read_bytes() == encrypt_xts(DATA, 0x1000, key)
    run("decrypt_flash_data -x -k k.bin -o back.bin -a 4096 out.bin")
    assert Path("back.bin").read_bytes() == DATA
    run("generate_flash_encryption_key -l 512 long.bin")
    assert "[key-size]" in run("encrypt_flash_data -k long.bin -o x.bin -a 0 app.bin", 2)[0]


def test_a_wrong_key_is_reported_in_espsecure_s_words(run: Any) -> None:
    for name in ("a", "b"):
        run(f"generate_signing_key {name}.pem")
    for version, words in (
        (1, "Signature is not valid."),
        (2, "Signature could not be verified with the provided key."),
    ):
        run(f"sign_data -v {version} -k a.pem -o out.bin app.bin")
        lines = run(f"verify_signature -v {version} -k b.pem out.bin", 2)
        assert lines[0].startswith(f"A fatal error occurred: {words}")


def test_errors_end_with_2_and_keep_files(run: Any) -> None:
    run("generate_signing_key key.pem")
    before = Path("key.pem").read_bytes()
    for line in (
        "generate_signing_key key.pem",
        "generate_flash_encryption_key key.pem",
        "verify_signature -v 2 -k key.pem app.bin",
        "sign_data -k key.pem app.bin",
        "no-such-command",
        "app.bin",
        "",
    ):
        assert run(line, 2) or not line
    assert Path("key.pem").read_bytes() == before
    assert run("--help")[0] == "Usage: espsecure.py [OPTIONS] COMMAND [ARGS]..."
    assert not any("--baud" in line for line in run("--help"))
