"""Carries out a plan: burns block by block, reads all blocks back after each, and compares.

A step that the chip did not take is repeated, and so is one that leaves a coding error. What is left then is reported;
nothing after the failed step is burned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from espwire.efuse.check import CodingError, find_errors, has_error
from espwire.efuse.model import Block
from espwire.efuse.plan import BurnPlan, BurnStep
from espwire.efuse.state import FuseState
from espwire.efuse.store import FuseStore, store_from_state
from espwire.errors import DeviceError

ATTEMPTS = 3
OnStep = Callable[[BurnStep, bool], None]  # a step is done; whether its data could be read back


def burn(plan: BurnPlan, store: FuseStore, on_step: OnStep | None = None) -> FuseState:
    """Burn a plan; the state afterwards.

    :raises DeviceError: code ``efuse-changed``: the chip is not in the assumed state; code ``efuse-not-burned``: bits are
        missing after all attempts, or the block has a coding error; code ``efuse-unplanned``: other bits are burned; later
        steps were left out
    """
    custom = plan.before.layout.custom
    state = store.read(custom)
    require_state(plan, state)
    expected, errors = list(state.blocks), find_errors(state)
    for step in plan.steps:
        block = store.data.blocks[step.block]
        if state.blocks[step.block] & step.bits == step.bits and not has_error(state, block):
            continue  # done before an interruption
        expected[step.block] |= step.bits
        for _ in range(ATTEMPTS):
            store.program(block, step.bits)
            state = store.read(custom)
            require_planned(expected, state)
            readable = step.bits & ~state.hidden_mask(block)
            missing = readable & ~state.blocks[step.block]
            wrong = _find_damage(errors, state, block)
            if not missing and not wrong:
                break
        else:
            raise _build_failure(plan, step, missing, wrong)
        if on_step is not None:
            on_step(step, readable == step.bits and store.proves)
    return state


def _find_damage(before: Sequence[CodingError], now: FuseState, block: Block) -> list[CodingError]:
    """The coding errors of a block that was burned, and those of others that are new. Block 0 has no coding."""
    known = {error.block for error in before} - {block.id}
    return [error for error in find_errors(now) if error.block and error.block not in known]


def require_planned(expected: Sequence[int], now: FuseState) -> None:
    """Make sure that no bits are burned but these: a damaged command may burn another block.

    :raises DeviceError: code ``efuse-unplanned``
    """
    found = [
        f"{extra.bit_count()} in {block.name}"
        for block, want, have in zip(now.data.blocks, expected, now.blocks, strict=True)
        if (extra := have & ~want)
    ]
    if found:
        raise DeviceError(
            f"bits are burned that were not planned: {', '.join(found)}; later steps were left out",
            hint="Show what the chip holds now with the command summary.",
            code="efuse-unplanned",
        )


def require_state(plan: BurnPlan, now: FuseState) -> None:
    """Make sure that the eFuses are as the plan assumes, or a part of it is burned already.

    :raises DeviceError: code ``efuse-changed``
    """
    for block, old, new, found in zip(
        now.data.blocks, plan.before.blocks, plan.after, now.blocks, strict=True
    ):
        hidden = now.hidden_mask(block)
        if found & ~new & ~hidden or old & ~found & ~hidden:
            raise DeviceError(
                f"{block.name} does not hold what the plan assumes",
                hint="Make a new plan for this chip.",
                code="efuse-changed",
            )


def rehearse(plan: BurnPlan) -> FuseState:
    """Burn a plan on a virtual copy of the chip's eFuses; the state afterwards.

    :raises DeviceError: the plan does not end as wanted
    """
    state = burn(plan, store_from_state(plan.before))
    if state.blocks != plan.state_after.blocks:
        raise DeviceError(
            "the rehearsal of the burn does not end as planned; nothing was burned",
            hint="Burn the eFuses one after the other.",
            code="efuse-rehearsal",
        )
    return state


def recover(store: FuseStore) -> FuseState:
    """Burn the blocks with coding errors again, with what they hold; the state afterwards.

    A block that cannot be corrected does not hold its data any more: it stays as it is.

    :raises DeviceError: the controller refuses
    """
    state = store.read()
    for error in find_errors(state):
        if not error.failed and state.blocks[error.block]:
            store.program(state.data.blocks[error.block], state.blocks[error.block])
            require_planned(state.blocks, store.read())
    return store.read()


def _build_failure(
    plan: BurnPlan, step: BurnStep, missing: int, wrong: Sequence[CodingError]
) -> DeviceError:
    left = len(plan.steps) - plan.steps.index(step) - 1
    block = plan.before.data.blocks[step.block]
    text = f"{missing.bit_count()} bits of {block.name} did not burn in {ATTEMPTS} attempts"
    if not missing:
        errors = "; ".join(error.text for error in wrong)
        text = f"{block.name} was burned {ATTEMPTS} times, but there are coding errors ({errors})"
    return DeviceError(
        f"{text}; {left} later steps were left out",
        hint="Run check-error, then the same command again.",
        code="efuse-not-burned",
    )
