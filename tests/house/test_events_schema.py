"""The schema of the JSON events is that of today's dataclasses, and within one version nothing disappears from it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from espwire.events import SCHEMA_VERSION

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/events.schema.json").read_text("utf-8"))
GOLDEN = json.loads((ROOT / f"tests/golden/events.v{SCHEMA_VERSION}.json").read_text("utf-8"))


def required() -> dict[str, dict[str, object]]:
    return {
        name: {key: one["properties"][key] for key in one["required"]}
        for name, one in SCHEMA["$defs"].items()
    }


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_within_a_version_no_event_and_no_field_disappears_or_changes_its_type() -> None:
    now = required()
    assert set(GOLDEN) <= set(now)
    for name, held in GOLDEN.items():
        assert held.items() <= now[name].items(), name


def test_what_was_added_is_held_from_now_on() -> None:
    assert required() == GOLDEN, "`make generate` adds it to tests/golden"


def test_every_event_has_version_name_number_time_and_device() -> None:
    for name, held in required().items():
        assert {"v", "event", "seq", "time", "device"} <= set(held), name


def test_the_guide_names_every_event_and_field() -> None:
    guide = (ROOT / "docs/guide/json.md").read_text("utf-8")
    for name, held in required().items():
        missing = [word for word in (name, *held) if f"`{word}`" not in guide]
        assert not missing, (name, missing)
