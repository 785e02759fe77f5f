"""Plans of burns in files: what was requested, and digests of the states that the burn goes through.

A plan holds no key bytes. It names the commands, with the key files in them; burning it reads these files again, and the
digests prove that the same bits result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from espwire.efuse.plan import BurnPlan
from espwire.efuse.state import FuseState
from espwire.errors import DataError, DeviceError
from espwire.files import read_file, write_file

FORMAT, VERSION = "espwire-efuse-plan", 1
LIMIT = 1 << 20  # bytes of a file


def write_plan(
    path: str, plan: BurnPlan, commands: Sequence[Sequence[str]], shown: Mapping[str, Any]
) -> None:
    """Write a plan. ``commands``: as typed; ``shown``: what the user sees of the plan.

    :raises FileError: the file cannot be written
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "chip": plan.before.data.id,
        "revision": plan.before.revision,
        "commands": [list(words) for words in commands],
        "states": list_states(plan),
        **shown,
    }
    write_file(path, f"{json.dumps(content, indent=2)}\n".encode())


def read_plan(path: str) -> dict[str, Any]:
    """The content of a plan's file.

    :raises FileError: it cannot be read
    :raises DataError: code ``efuse-plan``: it is not a plan
    """
    try:
        content = json.loads(read_file(path, limit=LIMIT))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _invalid(path, "it is not a plan of a burn")
    if content.get("version") != VERSION:
        raise _invalid(path, f"its version is {content.get('version')!r}, not {VERSION}")
    commands, states = content.get("commands"), content.get("states")
    if not _is_table(commands, str) or not _is_table(states, str):
        raise _invalid(path, "its commands or states are missing")
    return content


def _is_table(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and row and all(isinstance(cell, kind) for cell in row)
        for row in value
    )


def list_states(plan: BurnPlan) -> list[list[str]]:
    """For each block, digests of its contents before the burn and after each step, as they are burned."""
    contents = [[value] for value in plan.before.blocks]
    for step in plan.steps:
        contents[step.block].append(contents[step.block][-1] | step.bits)
    return [
        [_digest(plan.before, block, value) for value in values]
        for block, values in enumerate(contents)
    ]


def require_known_state(content: Mapping[str, Any], state: FuseState) -> None:
    """Make sure that the eFuses are in a state that the plan goes through, as far as software can read them.

    :raises DeviceError: code ``efuse-changed``: another chip, revision or state than the plan assumes
    """
    states: list[list[str]] = content["states"]
    if content.get("chip") != state.data.id or len(states) != len(state.blocks):
        raise _changed(f"the plan is for {content.get('chip')}, not {state.data.id}")
    done = True
    for block, known in zip(state.data.blocks, states, strict=True):
        if state.hidden_mask(block):
            continue
        found = _digest(state, block.id, state.blocks[block.id])
        if found not in known:
            raise _changed(f"{block.name} does not hold what the plan assumes")
        done = done and found == known[-1]
    if not done and content.get("revision") != state.revision:
        raise _changed(f"the plan is for revision {content.get('revision')}, not {state.revision}")


def find_hidden(content: Mapping[str, Any], state: FuseState) -> list[str]:
    """The blocks that the plan burns and that cannot be read now."""
    return [
        block.name
        for block, known in zip(state.data.blocks, content["states"], strict=True)
        if len(known) > 1 and state.hidden_mask(block)
    ]


def require_same(content: Mapping[str, Any], plan: BurnPlan) -> None:
    """Make sure that a plan from the same commands burns the same bits.

    :raises DataError: code ``efuse-plan``: a file that a command names has changed
    """
    pairs = zip(plan.before.data.blocks, content["states"], list_states(plan), strict=True)
    if any(
        known[-1] != new[-1]
        for block, known, new in pairs
        if not plan.before.hidden_mask(block)  # burned before the block was hidden
    ):
        raise DataError(
            "the commands of the plan no longer burn the same bits: the plan was edited, or a key or data file has changed",
            hint="Restore the file that has changed, or make a new plan.",
            code="efuse-plan",
        )


def _digest(state: FuseState, block: int, value: int) -> str:
    text = f"{state.data.id} {block} {value:x}"
    return hashlib.sha256(text.encode()).hexdigest()


def _changed(message: str) -> DeviceError:
    return DeviceError(message, hint="Make a new plan for this chip.", code="efuse-changed")


def _invalid(path: str, reason: str) -> DataError:
    return DataError(
        f"{path!r} cannot be used: {reason}",
        hint="Use a file that --plan has written.",
        code="efuse-plan",
    )
