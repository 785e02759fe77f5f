"""`espwire secure …` on files: results, permissions, refusals, and that keys appear in no output."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.secure.flash_encryption import encrypt_esp32, encrypt_xts
from espwire.secure.keys import P256, generate_key

DATA = bytes(range(256)) * 20


class Run:
    """Runs command lines in an empty folder."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.printed = capsys, ""

    def __call__(self, line: str, code: int = 0) -> str:
        """What a line prints; ``code``: its exit code."""
        assert main(["secure", *line.split()]) == code, self.capsys.readouterr()
        shown = self.capsys.readouterr()
        self.printed += shown.out + shown.err
        assert "Traceback" not in shown.err
        return shown.err if code else shown.out


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    Path("app.bin").write_bytes(DATA)
    return Run(capsys)


def test_generate_sign_verify(run: Run) -> None:
    run("generate-signing-key -v 2 -s ecdsa256 key.pem")
    if os.name == "posix":
        assert stat.S_IMODE(os.stat("key.pem").st_mode) == 0o600
    assert "already" not in run("sign-data -v 2 -k key.pem -o signed.bin app.bin")
    assert Path("app.bin").read_bytes() == DATA
    run("extract-public-key -v 2 -k key.pem public.pem")
    assert "block 0 is valid" in run("verify-signature -v 2 -k public.pem signed.bin")
    run("digest-sbv2-public-key -k public.pem -o digest.bin")
    digest = Path("digest.bin").read_bytes().hex()
    info = run("signature-info signed.bin").splitlines()
    assert info == [
        "Signature block 0: valid (ECDSA P-256)",
        f"  public key digest {digest}",
        "Signature block 1: absent",
        "Signature block 2: absent",
    ]
    data = json.loads(run("signature-info --json signed.bin").splitlines()[-1])["data"]
    assert data["blocks"][0] == {
        "block": 0,
        "state": "valid",
        "scheme": "ecdsa256",
        "key_digest": digest,
    }
    secret = Path("key.pem").read_text().splitlines()[1]
    assert secret not in run.printed


def test_sign_in_place_and_append(run: Run) -> None:
    for name in ("a", "b"):
        run(f"generate-signing-key -v 2 -s ecdsa192 {name}.pem")
    run("sign-data -v 2 -k a.pem app.bin")
    before = Path("app.bin").read_bytes()
    assert "[already-signed]" in run("sign-data -v 2 -k b.pem app.bin", 8)
    assert Path("app.bin").read_bytes() == before
    run("sign-data -v 2 -a -k b.pem app.bin")
    assert "block 1 is valid" in run("verify-signature -v 2 -k b.pem app.bin")
    Path("app.bin").write_bytes(b"!" + Path("app.bin").read_bytes()[1:])
    error = run("verify-signature -v 2 -k b.pem app.bin", 6)
    assert "block 1 is by this key, but made for other data" in error


def test_signing_a_partition_table_for_version_2_is_a_warning(run: Run) -> None:
    run("generate-signing-key -v 2 -s ecdsa256 key.pem")
    Path("table.bin").write_bytes(b"\xaa\x50" + bytes(94))
    run("sign-data -v 2 -k key.pem table.bin")
    assert "which secure boot version 2 does not check" in run.printed
    run("sign-data -v 1 -k key.pem -o t1.bin app.bin")


def test_version_1(run: Run) -> None:
    run("generate-signing-key key.pem")
    run("sign-data -v 1 -k key.pem -o signed.bin app.bin")
    run("extract-public-key -k key.pem public.bin")
    assert Path("public.bin").stat().st_size == 64
    run("verify-signature -v 1 -k public.bin signed.bin")
    run("digest-private-key -k key.pem boot.key")
    run("digest-private-key -k key.pem --keylen 192 boot192.key")
    assert Path("boot.key").read_bytes()[:24] == Path("boot192.key").read_bytes()
    Path("boot.bin").write_bytes(b"\xe9" + DATA)
    run("digest-secure-bootloader -k boot.key boot.bin")
    made = Path("boot-digest-0x0000.bin").read_bytes()
    assert made[0x1000:].startswith(b"\xe9" + DATA)
    assert "[key-size]" in run("digest-secure-bootloader -k boot192.key boot.bin", 6)
    run("generate-signing-key -v 2 rsa.pem")
    assert "[key-scheme]" in run("sign-data -v 1 -k rsa.pem app.bin", 6)
    assert "[key-scheme]" in run("generate-signing-key -s rsa3072 x.pem", 2)
    assert "[too-many-signatures]" in run("sign-data -v 1 -k key.pem -k key.pem app.bin", 2)


def test_flash_encryption_of_files(run: Run) -> None:
    run("generate-flash-encryption-key key.bin")
    key = Path("key.bin").read_bytes()
    line = "encrypt-flash-data -k key.bin -a 0x10020 -o out.bin app.bin"
    assert "[encryption-scheme]" in run(line, 2)
    run(f"{line} --chip esp32 --flash-crypt-conf 5")
    assert Path("out.bin").read_bytes() == encrypt_esp32(DATA, 0x10020, key, 5)
    run(f"{line} --chip esp32s3")
    encrypted = Path("out.bin").read_bytes()
    assert encrypted == encrypt_xts(DATA, 0x10020, key)
    run("decrypt-flash-data -x -k key.bin -a 0x10020 -o plain.bin out.bin")
    assert Path("plain.bin").read_bytes() == DATA
    for more, error, code in (
        ("--chip esp8266", "[no-encryption]", 5),
        ("--chip esp32 -x", "[encryption-scheme]", 2),
        ("--chip esp32 --flash-crypt-conf 16", "[usage]", 2),
    ):
        assert error in run(f"{line} {more}", code)
    assert "[unaligned]" in run(line.replace("20 -o", "21 -o") + " -x", 2)
    assert Path("out.bin").read_bytes() == encrypted
    run("generate-flash-encryption-key -l 512 long.bin")
    run("encrypt-flash-data -k long.bin -a 0 -o out.bin app.bin")
    assert "[key-size]" in run("generate-flash-encryption-key -l 100 x.bin", 2)
    assert not Path("x.bin").exists()


def test_keys_are_never_replaced_without_consent(run: Run) -> None:
    run("generate-signing-key -v 2 -s ecdsa256 key.pem")
    run("generate-flash-encryption-key flash.key")
    Path("other.bin").write_bytes(b"something")
    kept = {name: Path(name).read_bytes() for name in ("key.pem", "flash.key", "other.bin")}
    for line in (
        "generate-signing-key key.pem",
        "generate-signing-key flash.key",
        "generate-flash-encryption-key key.pem",
        "generate-flash-encryption-key flash.key",
        "generate-flash-encryption-key other.bin",
        "digest-private-key -k key.pem flash.key",
        "digest-sbv2-public-key -k key.pem -o flash.key",
        "extract-public-key -k key.pem -v 2 flash.key",
        "encrypt-flash-data -x -k flash.key -a 0 -o key.pem app.bin",
        "sign-data -v 2 -k key.pem -o flash.key app.bin",
    ):
        assert "[overwrite-key]" in run(line, 8), line
    for line in (
        "extract-public-key -k key.pem key.pem",
        "sign-data -v 2 -k key.pem -o key.pem app.bin",
        "encrypt-flash-data -x -k flash.key -a 0 -o flash.key app.bin",
        "digest-sbv2-public-key -k key.pem -o key.pem",
    ):
        assert "[output-is-input]" in run(line, 2), line
    assert {name: Path(name).read_bytes() for name in kept} == kept
    run("generate-flash-encryption-key --allow overwrite-key flash.key")
    assert Path("flash.key").read_bytes() != kept["flash.key"]
    assert not [name for name in os.listdir() if name not in {*kept, "app.bin"}]


def test_encrypted_keys_take_the_passphrase_from_the_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert "[key-passphrase]" in run("generate-signing-key --passphrase key.pem", 6)
    monkeypatch.setenv("ESPWIRE_KEY_PASSPHRASE", "correct horse")
    run("generate-signing-key -v 2 -s ecdsa256 --passphrase key.pem")
    assert Path("key.pem").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    run("sign-data -v 2 -k key.pem -o signed.bin app.bin")
    for value in ("wrong", ""):
        monkeypatch.setenv("ESPWIRE_KEY_PASSPHRASE", value)
        assert "[key-passphrase]" in run("sign-data -v 2 -k key.pem -o x.bin app.bin", 6)
    monkeypatch.delenv("ESPWIRE_KEY_PASSPHRASE")
    assert "[key-passphrase]" in run("sign-data -v 2 -k key.pem -o x.bin app.bin", 6)
    assert not Path("x.bin").exists()
    assert "correct horse" not in run.printed


def test_a_passphrase_from_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["one", "two", "same", "same", "same"]
    monkeypatch.setattr("getpass.getpass", lambda prompt: answers.pop(0))
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    assert "differ" in run("generate-signing-key --passphrase key.pem", 6)
    run("generate-signing-key --passphrase key.pem")
    run("sign-data -v 1 -k key.pem app.bin")
    assert answers == []


def test_signatures_made_elsewhere(run: Run) -> None:
    key = generate_key(P256)
    Path("key.pub").write_bytes(key.public.pem())
    import hashlib

    padded = DATA.ljust(8192, b"\xff")
    Path("app.sig").write_bytes(key.sign(hashlib.sha256(padded).digest()))
    run("sign-data -v 2 --pub-key key.pub --signature app.sig -o signed.bin app.bin")
    run("verify-signature -v 2 -k key.pub signed.bin")
    Path("app.sig").write_bytes(key.sign(hashlib.sha256(DATA).digest()))
    error = run("sign-data -v 2 --pub-key key.pub --signature app.sig -o x.bin app.bin", 6)
    assert "without padding" in error
    assert "[usage]" in run("sign-data -v 2 --signature app.sig -o x.bin app.bin", 2)
    assert "[usage]" in run("sign-data -v 2 -o x.bin app.bin", 2)
    assert not Path("x.bin").exists()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("verify-signature -v 2 -k key.pem app.bin", 6),
        ("signature-info app.bin", 6),
        ("signature-info --skip-padding app.bin", 6),
        ("sign-data -v 2 -k app.bin -o x.bin app.bin", 6),
        ("sign-data -v 2 -k missing.pem app.bin", 6),
        ("verify-signature -v 2 -k app.bin app.bin", 6),
    ],
)
def test_wrong_files_are_one_error(run: Run, line: str, code: int) -> None:
    run("generate-signing-key -v 2 -s ecdsa256 key.pem")
    assert len(run(line, code).splitlines()) == 2


def test_without_the_extra_one_line_names_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("key.pem").write_bytes(generate_key(P256).pem())
    Path("flash.key").write_bytes(bytes(range(32)))
    for module in ("cryptography", "cryptography.hazmat.primitives.ciphers"):
        monkeypatch.setitem(sys.modules, module, None)
    for line in (
        "generate-signing-key x.pem",
        "sign-data -v 2 -k key.pem app.bin",
        "encrypt-flash-data -x -k flash.key -a 0 -o x.bin app.bin",
    ):
        error = run(line, 5)
        assert "[needs-cryptography]" in error
        assert 'pip install "espwire[secure]"' in error
    assert not Path("x.bin").exists()


def list_secrets(folder: Path) -> dict[str, bytes]:
    """Each form of each secret in the key files of a folder: raw, hexadecimal, Base64."""
    import base64

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    raw: dict[str, bytes] = {"flash.key": (folder / "flash.key").read_bytes()}
    raw["boot.key"] = (folder / "boot.key").read_bytes()
    secrets: dict[str, bytes] = {"passphrase": b"correct horse"}
    for name in ("rsa.pem", "p256.pem", "encrypted.pem"):
        text = (folder / name).read_bytes()
        passphrase = b"correct horse" if name == "encrypted.pem" else None
        key = load_pem_private_key(text, passphrase)
        numbers = key.private_numbers()  # type: ignore[union-attr]
        if isinstance(key, RSAPrivateKey):
            raw |= {
                f"{name} {part}": getattr(numbers, part).to_bytes(384, "big").lstrip(b"\0")
                for part in "dpq"
            }
        else:
            raw[name] = numbers.private_value.to_bytes(32, "big")  # type: ignore[union-attr]
        for number, line in enumerate(text.splitlines()[1:-1]):
            secrets[f"{name} line {number}"] = line[:40]
    for name, value in raw.items():
        secrets[f"{name} raw"] = value
        secrets[f"{name} reversed"] = value[::-1]
        secrets[f"{name} hex"] = value.hex().encode()
        secrets[f"{name} base64"] = base64.b64encode(value)[:40]
        secrets[f"{name} number"] = str(int.from_bytes(value, "big")).encode()
    return secrets


@pytest.mark.parametrize("options", ["", "--json", "--verbose", "--trace"])
def test_secrets_are_in_no_output_and_no_other_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    monkeypatch.setenv("ESPWIRE_KEY_PASSPHRASE", "correct horse")
    monkeypatch.setenv("XDG_STATE_HOME", str(Path.cwd() / "state"))
    Path("boot.bin").write_bytes(b"\xe9" + DATA)
    Path("damaged.pem").write_bytes(b"")
    codes = set()
    for line in (
        "generate-signing-key -v 2 rsa.pem",
        "generate-signing-key p256.pem",
        "generate-signing-key --passphrase encrypted.pem",
        "generate-flash-encryption-key flash.key",
        "digest-private-key -k p256.pem boot.key",
        "generate-signing-key p256.pem",
        "extract-public-key -v 2 -k rsa.pem rsa.pub",
        "extract-public-key -k p256.pem raw.pub",
        "extract-public-key -k encrypted.pem raw2.pub",
        "digest-sbv2-public-key -k rsa.pem -o rsa.digest",
        "sign-data -v 2 -k rsa.pem -o s1.bin app.bin",
        "sign-data -v 2 -k p256.pem -k encrypted.pem -o s2.bin app.bin",
        "sign-data -v 2 -k p256.pem -k rsa.pem -o s3.bin app.bin",
        "sign-data -v 1 -k p256.pem -o s4.bin app.bin",
        "sign-data -v 2 -k flash.key -o s5.bin app.bin",
        "verify-signature -v 2 -k rsa.pem s1.bin",
        "verify-signature -v 2 -k p256.pem s1.bin",
        "signature-info s2.bin",
        "digest-secure-bootloader -k boot.key boot.bin",
        "digest-secure-bootloader -k p256.pem boot.bin",
        "encrypt-flash-data -x -k flash.key -a 0 -o e1.bin app.bin",
        "encrypt-flash-data --chip esp32 -k flash.key -a 0 -o e2.bin app.bin",
        "encrypt-flash-data -x -k rsa.pem -a 0 -o e3.bin app.bin",
        "decrypt-flash-data -x -k flash.key -a 0 -o d1.bin e1.bin",
        "generate-sdc-certificate -k p256.pem --mac 001122334455",
        "digest-sdc-public-key -k p256.pem",
    ):
        codes.add(main(["secure", *line.split(), *options.split()]))
    assert codes == {0, 2, 6, 8}
    shown = run.capsys.readouterr()
    secrets = list_secrets(Path())
    places = {"standard output": shown.out.encode(), "standard error": shown.err.encode()}
    keys = {"rsa.pem", "p256.pem", "encrypted.pem", "flash.key", "boot.key"}
    places |= {
        str(path): path.read_bytes()
        for path in Path().rglob("*")
        if path.is_file() and path.name not in keys
    }
    assert len(places) > 15
    found = [
        (name, place)
        for name, secret in secrets.items()
        for place, content in places.items()
        if secret in content
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("--chip esp32c3 -k long.bin -a 0 app.bin", 6, "512 bits; ESP32-C3 uses 256 bits"),
        ("--chip esp32 -k long.bin -a 0 app.bin", 6, "512 bits; ESP32 uses 192 or 256 bits"),
        ("--chip esp32c3 --flash-crypt-conf 3 -k key.bin -a 0 app.bin", 2, "has no effect"),
        ("-x -k key.bin -a 0 empty.bin", 2, "empty.bin is empty: there is nothing to encrypt"),
        ("-x -k key.bin -a 0xfffff000 app.bin", 2, "exceed the 32-bit flash addresses"),
        ("--chip esp32 -k key.bin -a 0xfffff000 app.bin", 2, "exceed the 32-bit flash addresses"),
        ("-x -k sign.pem -a 0 app.bin", 6, "sign.pem is a signing key, not a flash encryption key"),
    ],
)
def test_what_no_chip_could_decrypt_is_refused(
    run: Run, line: str, code: int, message: str
) -> None:
    Path("key.bin").write_bytes(bytes(range(32)))
    Path("long.bin").write_bytes(bytes(range(64)))
    Path("sign.pem").write_bytes(generate_key(P256).pem())
    Path("empty.bin").write_bytes(b"")
    assert message in run(f"encrypt-flash-data -o out.bin {line}", code)
    assert not os.path.exists("out.bin")


def test_the_last_bytes_of_32_bit_addresses_can_be_encrypted(run: Run) -> None:
    Path("key.bin").write_bytes(bytes(range(32)))
    Path("app.bin").write_bytes(DATA[:4096])
    run("encrypt-flash-data -x -k key.bin -a 0xfffff000 -o out.bin app.bin")
    run("decrypt-flash-data -x -k key.bin -a 0xfffff000 -o plain.bin out.bin")
    assert Path("plain.bin").read_bytes() == DATA[:4096]


def test_a_raw_key_is_not_taken_for_a_der_file(run: Run) -> None:
    Path("raw.bin").write_bytes(b"\x30\x03\x02" + bytes(range(29)))
    for line in (
        "sign-data -v 2 -k raw.bin -o s.bin app.bin",
        "digest-sbv2-public-key -k raw.bin -o d.bin",
    ):
        assert "raw.bin does not contain a key" in run(line, 6)


def test_a_debug_certificate_opens_something(run: Run) -> None:
    Path("key.pem").write_bytes(generate_key(P256).pem())
    line = "generate-sdc-certificate -k key.pem --mac 001122334455 -o cert.bin"
    assert "the certificate would open nothing" in run(line, 2)
    run(f"{line} --enable-jtag")
    assert len(Path("cert.bin").read_bytes()) == 468
