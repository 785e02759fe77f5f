"""For the documentation site: `:raises A, B: why` in a docstring becomes one line per error, as its parser expects."""

from __future__ import annotations

import re
from typing import Any

import griffe

RAISES = re.compile(r"^( *):raises (\w+(?:, \w+)+):(.*)$", re.MULTILINE)


class OneErrorPerLine(griffe.Extension):
    """Applied to every object."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite its docstring."""
        if obj.docstring is not None:
            obj.docstring.value = RAISES.sub(_split, obj.docstring.value)


def _split(found: re.Match[str]) -> str:
    indent, names, why = found.groups()
    return "\n".join(f"{indent}:raises {name}:{why}" for name in names.split(", "))
