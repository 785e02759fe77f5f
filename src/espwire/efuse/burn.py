"""Carries out a plan: burns block by block, reads each back, and compares.

A step that the chip did not take is repeated: bits of a block without coding, and of a coded block only if its data did not
arrive at all. What is left then is reported; nothing after the failed step is burned.
"""

from __future__ import annotations

from collections.abc import Callable

from espwire.efuse.check import find_errors, has_error
from espwire.efuse.plan import BurnPlan, BurnStep
from espwire.efuse.state import FuseState
from espwire.efuse.store import FuseStore, store_from_state
from espwire.errors import DeviceError

ATTEMPTS = 3
OnStep = Callable[[BurnStep, bool], None]  # a step is done; whether its data could be read back


def burn(plan: BurnPlan, store: FuseStore, on_step: OnStep | None = None) -> FuseState:
    """Burn a plan; the state afterwards.

    :raises DeviceError: code ``efuse-changed``: the chip is not in the assumed state; code ``efuse-not-burned``: bits are
        missing after all attempts, and later steps were left out
    """
    custom = plan.before.layout.custom
    require_state(plan, store.read(custom))
    for step in plan.steps:
        block = store.data.blocks[step.block]
        state = store.read(custom)
        if state.blocks[step.block] & step.bits == step.bits:
            continue  # done before an interruption
        for _ in range(ATTEMPTS):
            store.program(block, step.bits)
            state = store.read(custom)
            readable = step.bits & ~state.hidden_mask(block)
            missing = readable & ~state.blocks[step.block]
            if not missing and not (block.id and has_error(state, block)):
                break
        else:
            raise _build_failure(plan, step, missing)
        if on_step is not None:
            on_step(step, readable == step.bits and store.proves)
    return store.read(custom)


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
    return store.read()


def _build_failure(plan: BurnPlan, step: BurnStep, missing: int) -> DeviceError:
    left = len(plan.steps) - plan.steps.index(step) - 1
    block = plan.before.data.blocks[step.block]
    return DeviceError(
        f"{missing.bit_count()} bits of {block.name} did not burn in {ATTEMPTS} attempts;"
        f" {left} later steps were left out",
        hint="Run check-error, then the same command again.",
        code="efuse-not-burned",
    )
