"""Every error has a hint, an id of its own and the exit code that the tree in errors.py tells."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import espwire
import espwire.errors as errors
from espwire.errors import ToolError


def tree(cls: type[ToolError] = ToolError) -> Iterator[type[ToolError]]:
    yield cls
    for below in cls.__subclasses__():
        if below.__module__ == "espwire.errors":
            yield from tree(below)


CLASSES = list(tree())
SOURCE = Path(espwire.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
DIAGNOSES = ("device/diagnose.py", "device/enter_bootloader.py", "transport/open_errors.py")
CLASS_DIAGNOSES = (
    "wrong-boot-mode",
    "port-not-found",
    "port-busy",
    "port-denied",
    "link-lost",
    "secure-download-mode",
)


def given_codes() -> dict[str, str]:
    """Every id that is spelled out in a call, and one place where."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for word in node.keywords if isinstance(node, ast.Call) else ():
                values = (
                    [word.value.body, word.value.orelse]
                    if isinstance(word.value, ast.IfExp)
                    else [word.value]
                )
                for value in values if word.arg == "code" else ():
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        found[value.value] = f"{path.relative_to(SOURCE)}:{node.lineno}"
    return found


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


def test_every_id_that_the_source_gives_stands_in_the_page_of_errors() -> None:
    page = (ROOT / "docs/errors.md").read_text("utf-8")
    missing = {code: where for code, where in given_codes().items() if f"| `{code}` |" not in page}
    assert not missing, f"run `make generate`: {missing}"
    assert all(f"| `{cls.code}` |" in page for cls in CLASSES if cls is not ToolError)


def test_ids_given_in_the_source_are_kebab_case() -> None:
    assert all(re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", code) for code in given_codes())


def test_every_diagnosis_is_asked_for_by_a_test_that_sets_up_its_cause() -> None:
    """An id that nobody provokes is a guess. The tests named here use the virtual chip or the system, not texts."""
    tests = [
        *(ROOT / "tests/scenario").glob("test_*.py"),
        *(ROOT / "tests/system").glob("test_*.py"),
    ]
    asked = " ".join(path.read_text("utf-8") for path in tests)
    given = {code for code, where in given_codes().items() if where.startswith(DIAGNOSES)}
    unasked = {code for code in given | {"no-reply", *CLASS_DIAGNOSES} if f'"{code}"' not in asked}
    assert not unasked
