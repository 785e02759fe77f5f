"""Every error has a hint, an id of its own and the exit code that the tree in errors.py tells."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import espwire.errors as errors
from espwire.errors import ToolError


def tree(cls: type[ToolError] = ToolError) -> Iterator[type[ToolError]]:
    yield cls
    for below in cls.__subclasses__():
        if below.__module__ == "espwire.errors":
            yield from tree(below)


CLASSES = list(tree())


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_has_a_hint_of_one_sentence(cls: type[ToolError]) -> None:
    assert cls.hint
    assert cls.hint.endswith(".")
    assert cls.__doc__


def test_ids_are_unique_and_kebab_case() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", code) for code in codes)


def test_every_class_of_the_module_stands_in_the_tree_of_its_docstring() -> None:
    told = set(re.findall(r"\b[A-Z][A-Za-z]+\b", errors.__doc__ or ""))
    assert {cls.__name__ for cls in CLASSES} <= told


def test_exit_codes_are_those_of_the_docstring() -> None:
    rows = re.findall(r"[├└]─ (\w+) .*?(\d+)$", errors.__doc__ or "", re.MULTILINE)
    told = {name: int(code) for name, code in rows}
    assert len(told) == 8
    for cls in CLASSES:
        if cls is ToolError:
            continue
        branch = next(base for base in cls.__mro__ if base.__name__ in told)
        assert cls.exit_code == told[branch.__name__], cls


def test_data_goes_with_the_error() -> None:
    error = errors.VerifyError("differs", ranges=((0, 4096),))
    assert error.details == {"ranges": [[0, 4096]]}
    failed = errors.CommandFailed("no", command="SYNC", status=0x0105, code="odd")
    assert (failed.code, failed.details) == ("odd", {"command": "SYNC", "status": 0x0105})
