"""Generate the JSON Schema of the events that ``--json`` prints from the dataclasses in events.py."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from espwire import events

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "docs/events.schema.json"
GOLDEN = ROOT / f"tests/golden/events.v{events.SCHEMA_VERSION}.json"
ABOUT = (
    "One line of standard output with --json. Generated from src/espwire/events.py by `make generate`; do not edit. "
    "Within one v nothing disappears; events and fields may be added, so skip those that you do not know."
)
SIMPLE: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def event_classes() -> Iterator[type[events.Event]]:
    """Every event, in the order of events.py."""
    for value in vars(events).values():
        if (
            isinstance(value, type)
            and issubclass(value, events.Event)
            and value is not events.Event
        ):
            yield value


def render_schema() -> str:
    """docs/events.schema.json."""
    classes = list(event_classes())
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"espwire events, version {events.SCHEMA_VERSION}",
        "description": ABOUT,
        "oneOf": [{"$ref": f"#/$defs/{cls.__name__}"} for cls in classes],
        "$defs": {cls.__name__: _definition(cls) for cls in classes},
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def render_golden() -> str:
    """The names, required fields and their types of this version: what was there before, and what is there now."""
    held: dict[str, dict[str, Any]] = (
        json.loads(GOLDEN.read_text("utf-8")) if GOLDEN.exists() else {}
    )
    for cls in event_classes():
        found = _definition(cls)
        now = {name: found["properties"][name] for name in found["required"]}
        held[cls.__name__] = now | held.get(cls.__name__, {})
    ordered = {name: dict(sorted(held[name].items())) for name in sorted(held)}
    return json.dumps(ordered, indent=1) + "\n"


def _definition(cls: type[events.Event]) -> dict[str, Any]:
    kinds = typing.get_type_hints(cls)
    properties: dict[str, Any] = {
        "v": {"const": events.SCHEMA_VERSION},
        "event": {"const": cls.__name__},
    }
    properties |= {name: _schema_of(kinds[name]) for name in cls._fields}
    properties["seq"] = {"type": "integer", "minimum": 1}
    properties["time"] = {"type": "number", "minimum": 0}
    about = re.sub(r"``\"?(.*?)\"?``", r"\1", " ".join((cls.__doc__ or "").split()))
    return {
        "description": about,
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def _schema_of(kind: Any) -> dict[str, Any]:
    """The schema of a field's type; a type that is not listed here stops the generator."""
    if kind in SIMPLE:
        return {"type": SIMPLE[kind]}
    if kind in (events.PlannedStep, events.PartitionChange):
        kinds = typing.get_type_hints(kind)
        names = kind._fields
        return {
            "type": "object",
            "properties": {n: _schema_of(kinds[n]) for n in names},
            "required": list(names),
        }
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict and inner == (str, Any):
        return {"type": "object"}
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        return {"type": "array", "items": _schema_of(inner[0])}
    if origin is types.UnionType:
        return {
            "anyOf": [{"type": "null"} if one is type(None) else _schema_of(one) for one in inner]
        }
    raise TypeError(f"no JSON schema is known for {kind}")
