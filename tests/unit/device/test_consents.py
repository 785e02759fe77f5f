"""Consents: every guard names one that exists, and nothing else can be consented to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import espwire
from espwire.efuse.danger import load_common
from espwire.efuse.tables import fuse_chip_ids, load_fuses
from espwire.errors import CONSENTS, UsageError, check_consents

SOURCES = Path(espwire.__file__).parent


def test_an_unknown_name_is_answered_with_those_there_are():
    assert check_consents(["plaintext", "plaintext"]) == {"plaintext"}
    with pytest.raises(UsageError, match="'all'") as caught:
        check_consents(["plaintext", "all"])
    assert caught.value.code == "unknown-consent"
    assert all(name in caught.value.hint for name in CONSENTS)


def test_every_safety_check_names_a_known_consent():
    asked = set()
    for folder in ("flash", "device", "efuse"):
        for path in SOURCES.glob(f"{folder}/*.py"):
            source = path.read_text("utf-8")
            asked |= set(re.findall(r'consent="([^"]+)"', source))
            asked |= set(
                re.findall(r'build_fatal\(\s*"([^"]+)", text(?:, by_name_only=True)?\)', source)
            )
    rules = [
        *load_common(),
        *(rule for chip in fuse_chip_ids() for rule in load_fuses(chip).danger),
    ]
    asked |= {rule.name for rule in rules if not rule.note}
    assert asked | {
        *("status-lock", "outside-build", "unverified", "overwrite-key", "efuse-unproven"),
        "efuse-other-digest",
        "unproven-key",
        "aggressive-revoke",
    } == set(CONSENTS)
