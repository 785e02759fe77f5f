"""Signing by a key in a security module: SoftHSM2, from Debian's package softhsm2."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from espwire.cli.main import main
from espwire.errors import UsageError
from espwire.secure.hsm import parse_config
from espwire.secure.secure_boot import read_blocks

LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)
LIBRARY = next((path for path in LIBRARIES if os.path.exists(path)), None)
PIN = "48151623"
CURVES = {"p192": "secp192r1", "p256": "secp256r1", "p384": "secp384r1"}
needs_softhsm = pytest.mark.skipif(LIBRARY is None, reason="needs SoftHSM2 (Debian: softhsm2)")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A token with an RSA key and one of each curve; the settings that name it."""
    pkcs11 = pytest.importorskip("pkcs11")
    from pkcs11 import Attribute, KeyType
    from pkcs11.util.ec import encode_named_curve_parameters

    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("SOFTHSM2_CONF", str(config))
    create = ["softhsm2-util", "--init-token", "--free", "--label", "test", "--so-pin", PIN]
    subprocess.run([*create, "--pin", PIN], check=True, capture_output=True)
    found = pkcs11.lib(LIBRARY).get_token(token_label="test")
    with found.open(user_pin=PIN, rw=True) as session:
        session.generate_keypair(KeyType.RSA, 3072, store=True, label="rsa")
        session.generate_keypair(KeyType.RSA, 2048, store=True, label="short")
        for label, name in CURVES.items():
            parameters = {Attribute.EC_PARAMS: encode_named_curve_parameters(name)}
            domain = session.create_domain_parameters(KeyType.EC, parameters, local=True)
            domain.generate_keypair(store=True, label=label)
            if label == "p192":
                domain.generate_keypair(store=True, label="twice")
                domain.generate_keypair(store=True, label="twice")
    slot = found.slot.slot_id
    yield {"pkcs11_lib": LIBRARY, "credentials": PIN, "slot": slot, "label": "p256"}
    monkeypatch.undo()


def write_config(settings: dict[str, Any]) -> None:
    lines = [f"{key} = {value}" for key, value in settings.items() if value is not None]
    Path("hsm.ini").write_text("\n".join(["[hsm_config]", *lines]))


SIGN = "secure sign-data -v 2 --hsm --hsm-config hsm.ini -o signed.bin app.bin"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("app.bin").write_bytes(bytes(range(256)) * 20)
    return tmp_path


@needs_softhsm
@pytest.mark.parametrize("label", ["rsa", "p192", "p256", "p384"])
def test_a_key_in_a_token_signs(folder: Path, token: dict[str, Any], label: str) -> None:
    write_config(token | {"label": label, "label_pubkey": label})
    assert main(SIGN.split()) == 0
    assert read_blocks(Path("signed.bin").read_bytes())[0].state == "valid"
    assert (
        main(
            [
                "secure",
                "verify-signature",
                "-v",
                "2",
                "--hsm",
                "--hsm-config",
                "hsm.ini",
                "signed.bin",
            ]
        )
        == 0
    )
    write_config(token | {"label": "p256" if label != "p256" else "p384"})
    assert (
        main(
            [
                "secure",
                "verify-signature",
                "-v",
                "2",
                "--hsm",
                "--hsm-config",
                "hsm.ini",
                "signed.bin",
            ]
        )
        == 6
    )


@needs_softhsm
def test_the_token_is_found_by_its_label_and_the_pin_in_the_environment(
    folder: Path, token: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPWIRE_HSM_PIN", PIN)
    write_config(token | {"slot": None, "token_label": "test", "credentials": None})
    assert main(SIGN.split()) == 0
    write_config(token)
    assert (
        main(
            [
                "secure",
                "digest-sdc-public-key",
                "--hsm",
                "--hsm-config",
                "hsm.ini",
                "-o",
                "digest.bin",
            ]
        )
        == 0
    )
    line = "secure generate-sdc-certificate --hsm --hsm-config hsm.ini --mac 001122334455 --enable-jtag"
    assert main(line.split()) == 0
    certificate = Path("sdc_cert.bin").read_bytes()
    digest = hashlib.sha256(certificate[276:340]).digest()[::-1]
    assert Path("digest.bin").read_bytes() == digest


@needs_softhsm
@pytest.mark.parametrize(
    ("changes", "code", "name"),
    [
        ({"credentials": "0000"}, "hsm-pin", "PIN"),
        ({"slot": 12345}, "hsm-slot", "slot 12345"),
        ({"slot": None, "token_label": "none"}, "hsm-slot", "token_label 'none'"),
        ({"label": "none", "label_pubkey": "p256"}, "hsm-label", "private key"),
        ({"label_pubkey": "none"}, "hsm-label", "public key"),
        ({"label_pubkey": "twice"}, "hsm-label", "more than one"),
        ({"label": "short"}, "hsm-label", "not one for secure boot"),
        ({"label_pubkey": "p384"}, "signature-invalid", "does not fit its public key"),
        ({"pkcs11_lib": "missing.so"}, "hsm-library", "missing.so"),
    ],
)
def test_an_error_names_the_wrong_setting(
    folder: Path,
    token: dict[str, Any],
    changes: dict[str, Any],
    code: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_config(token | changes)
    assert main(SIGN.split()) == (6 if code == "signature-invalid" else 2)
    error = capsys.readouterr().err
    assert f"[{code}]" in error
    assert name in error
    assert PIN not in error
    assert not Path("signed.bin").exists()


def test_a_wrong_pin_is_sent_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pkcs11 = pytest.importorskip("pkcs11")
    tried = []

    class Token:
        def open(self, **more: Any) -> None:
            tried.append(more)
            raise errors.pop(0)

    monkeypatch.setattr("espwire.secure.hsm._find_token", lambda config: Token())
    write_config({"pkcs11_lib": "a.so", "label": "a", "slot": 1, "credentials": PIN})
    for error, text in (
        (pkcs11.PinIncorrect(), "the PIN is wrong"),
        (pkcs11.PinLocked(), "the token is locked"),
        (pkcs11.TokenNotPresent(), "cannot be opened"),
    ):
        errors = [error]
        assert main(SIGN.split()) == 2
        assert text in capsys.readouterr().err
        assert len(tried) == 1
        tried.clear()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not an INI file"),
        ("[other]\nslot=1", "not an INI file"),
        ("[hsm_config]\nlabel=a\nslot=1", "pkcs11_lib is missing"),
        ("[hsm_config]\npkcs11_lib=a\nslot=1", "label is missing"),
        ("[hsm_config]\npkcs11_lib=a\nlabel=b", "either slot or token_label"),
        (
            "[hsm_config]\npkcs11_lib=a\nlabel=b\nslot=1\ntoken_label=x",
            "either slot or token_label",
        ),
        ("[hsm_config]\npkcs11_lib=a\nlabel=b\nslot=x", "slot must be a number"),
        ("[hsm_config]\npkcs11_lib=a\nlabel=b\nslot=1\npin=5", "unknown setting 'pin'"),
        ("[hsm_config]\n= \x00\n[", "not an INI file"),
    ],
)
def test_settings_are_checked(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        parse_config(text, "hsm.ini")
    assert caught.value.code == "hsm-config"


def test_a_pin_may_have_any_characters_and_is_not_printed() -> None:
    text = "[hsm_config]\npkcs11_lib=/a.so\nlabel=key\nslot=7\ncredentials=12%34;#"
    config = parse_config(text, "hsm.ini")
    assert config.pin == "12%34;#"
    assert (config.slot, config.label, config.public_label) == (7, "key", "key")
    assert "12%34" not in repr(config)


def test_without_the_extra_one_line_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pkcs11", None)
    write_config({"pkcs11_lib": "a.so", "label": "a", "slot": 1, "credentials": "1"})
    assert main(SIGN.split()) == 5
    error = capsys.readouterr().err
    assert "[needs-pkcs11]" in error
    assert 'pip install "espwire[hsm]"' in error
    assert main(SIGN.replace(" --hsm-config hsm.ini", "").split()) == 2
