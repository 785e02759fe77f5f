"""The messages of espwire://: proofs of a token, refusals, identities; all from an untrusted other side."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.errors import PortBusy, PortDenied, TransportError, UsageError
from espwire.transport.base import TransportInfo
from espwire.transport.handshake import (
    LEAST_TOKEN,
    build_identity,
    build_proof,
    build_refusal,
    check_token,
    is_proof,
    parse_identity,
    parse_refusal,
)
from espwire.transport.remote import read_token

TOKEN, ONE, OTHER = b"0123456789abcdef", bytes(16), bytes(range(16))


def test_a_proof_is_an_hmac_over_side_and_nonces_and_the_token_is_not_in_it():
    proof = build_proof(TOKEN, "client", ONE, OTHER)
    message = b"espwire port 1 client\0" + ONE + OTHER
    assert proof == hmac.new(TOKEN, message, hashlib.sha256).digest()
    wrong = [
        build_proof(TOKEN, "server", ONE, OTHER),
        build_proof(TOKEN, "client", OTHER, ONE),
        build_proof(TOKEN, "client", ONE, ONE),
        build_proof(TOKEN[:-1] + b"x", "client", ONE, OTHER),
        b"",
        proof[:-1],
    ]
    assert is_proof(proof, proof)
    assert not any(is_proof(other, proof) for other in wrong)


@pytest.mark.parametrize("text", ["", "short", "x" * (LEAST_TOKEN - 1), "x" * 5000])
def test_a_token_has_a_sensible_length(text):
    with pytest.raises(UsageError) as caught:
        check_token(text, "the URL")
    assert caught.value.code == "bad-token"
    assert text not in str(caught.value) or not text


def test_a_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_bytes(TOKEN + b"\r\n")
    monkeypatch.setenv("LAB_TOKEN", TOKEN.decode())
    assert read_token("token-file", str(file)) == TOKEN
    assert read_token("token-env", "LAB_TOKEN") == TOKEN
    with pytest.raises(UsageError, match="NO_TOKEN is not set"):
        read_token("token-env", "NO_TOKEN")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("port-busy", PortBusy),
        ("wrong-token", PortDenied),
        ("token-needed", PortDenied),
        ("address-not-allowed", PortDenied),
        ("something-new", TransportError),
    ],
)
def test_a_refusal_becomes_the_clients_error(code, kind):
    error = parse_refusal(build_refusal(code, "it is\x1b[2J in use by 10.0.0.7:5000"), "x")
    assert type(error) is kind
    assert "in use by 10.0.0.7:5000" in str(error)
    assert "\x1b" not in str(error)
    assert error.code == (code if code != "something-new" else "server-refused")


def test_a_long_name_of_a_port_does_not_hide_its_holder():
    port = "/dev/serial/by-id/usb-Silicon_Labs_CP2102_USB_to_UART_Bridge_Controller_0001-if00-port0"
    text = f"{port} is in use by 192.168.1.20:50312 since 14:03:11"
    assert text in str(parse_refusal(build_refusal("port-busy", text), "x"))


@given(st.binary(max_size=700))
def test_any_bytes_are_a_refusal_or_an_invalid_identity(data):
    assert isinstance(parse_refusal(data, "x"), TransportError)
    with pytest.raises(TransportError) as caught:
        parse_identity(data, "x", 0.0)
    assert caught.value.code == "bad-server"


def test_an_identity_survives_the_way():
    info = TransportInfo(name="/dev/ttyACM0", kind="usb-jtag", vid=0x303A, pid=0x1001, serial="AA")
    parsed = parse_identity(build_identity(info), "espwire://h:1", 0.05)
    assert (parsed.kind, parsed.vid, parsed.pid, parsed.serial) == (
        "usb-jtag",
        0x303A,
        0x1001,
        "AA",
    )
    assert (parsed.name, parsed.remote, parsed.round_trip) == ("espwire://h:1", True, 0.05)


@pytest.mark.parametrize(
    "change",
    [{"kind": "modem"}, {"vid": "1"}, {"pid": 1.5}, {"vid": True}, {"kind": []}],
)
def test_an_identity_with_other_types_is_refused(change):
    info = json.loads(build_identity(TransportInfo(name="x", kind="uart"))) | change
    with pytest.raises(TransportError) as caught:
        parse_identity(json.dumps(info).encode(), "x", 0.0)
    assert caught.value.code == "bad-server"
