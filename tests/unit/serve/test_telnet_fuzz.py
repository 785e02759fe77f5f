"""Random Telnet strings, and the proof that the harness notices a missing check."""

from __future__ import annotations

import pytest
import telnet_fuzz

from espwire.serve import client
from espwire.transport import rfc2217_server, telnet


def test_random_telnet_strings():
    seen = telnet_fuzz.run(5000, 19)
    assert all(seen[kind] == 1250 for kind in telnet_fuzz.KINDS)
    assert seen["stranger wrong-token"] > 200
    assert seen["server accepted"] > 300
    assert seen["oversized"] > 50


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_many_random_telnet_strings(seed):
    telnet_fuzz.run(20_000, seed)


def note_without_order(self, value):
    if len(value) >= 2 and value[0] == telnet.COM_PORT and value[1] < telnet.ANSWER:
        self._events.append((value[1], value[2:]))


@pytest.mark.parametrize(
    ("what", "module", "name", "without"),
    [
        ("unbounded memory|not noticed", telnet, "LONGEST_REQUEST", 1 << 30),
        ("a stranger got the port", client, "is_proof", lambda proof, expected: True),
        ("session", telnet.ServerDecoder, "_note_request", note_without_order),
        ("session|holder", rfc2217_server, "MAX_BAUD", 1 << 40),
        ("session", telnet, "IAC", 254),
    ],
)
def test_the_harness_fails_without_a_check(monkeypatch, what, module, name, without):
    monkeypatch.setattr(module, name, without)
    with pytest.raises(AssertionError, match=what):
        telnet_fuzz.run(3000, 19)
