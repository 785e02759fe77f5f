"""The real program over TCP on a line that spoils its bytes: exit code 0 only where everything is right."""

import os
from collections import Counter
from collections.abc import Sequence

import pytest
from bit_sweep import Pair
from fault_proxy import KINDS, LONGEST, Case, Plan, ProxyOutcome, ProxyRig, choose_cases, run_cases

from espwire.virtual.faults import Faults

pytestmark = pytest.mark.slow

CI_RUNS, SOAK_RUNS = 60, 500
# starts the command line with one check less
UNVERIFIED = (
    "import sys, espwire.flash.write as execute\n"
    "execute._Run.verify = lambda self, step: None\n"
    "from espwire.cli.main import main\n"
    "sys.exit(main(sys.argv[1:]))"
)


def find_faults(outcomes: Sequence[ProxyOutcome]) -> list[ProxyOutcome]:
    """What must not be.

    With a ROM, an error may come after flash outside the range was erased: its BEGIN has no checksum (``damaged``).
    """
    return [
        outcome
        for outcome in outcomes
        if (
            outcome.effect
            and not (outcome.effect.startswith("damaged") and outcome.case.loader.startswith("rom"))
        )
        or outcome.seconds > LONGEST
    ]


def check(outcomes: Sequence[ProxyOutcome]) -> None:
    faults = find_faults(outcomes)
    assert not faults, "\n".join(map(str, faults))
    fired = Counter(outcome.case.kind for outcome in outcomes if outcome.fired)
    assert set(fired) == set(KINDS)
    assert fired.total() > len(outcomes) // 2
    ends = Counter(outcome.code for outcome in outcomes if outcome.fired)
    assert ends[0] > fired.total() // 4  # most faults are survived, not just reported
    assert ends.total() > ends[0]


def test_sixty_runs_on_a_spoiled_line(tmp_path):
    outcomes = run_cases(ProxyRig(tmp_path), choose_cases(CI_RUNS))
    assert len(outcomes) == CI_RUNS
    check(outcomes)


@pytest.mark.soak
def test_full_size(tmp_path):
    outcomes = run_cases(
        ProxyRig(tmp_path), choose_cases(SOAK_RUNS, int(os.environ.get("ESPWIRE_SEED", "1000")))
    )
    assert len(outcomes) == SOAK_RUNS
    ends = Counter((outcome.case.kind, outcome.error or "right") for outcome in outcomes)
    for (kind, end), count in sorted(ends.items()):
        print(f"{kind:<10} {end:<20} {count}")
    check(outcomes)


def flips_one_column(pair: Pair, plan: Plan) -> bool:
    """Whether a fault flips the same bit of two bytes of one block: the checksum of the block is the same then."""
    line = pair.lines[True]
    if not (plan.to_chip and plan.spec.once):
        return False
    spoiled = Faults(plan.spec, plan.seed).piece(0.0, line, to_chip=True)[1]
    changed = [at for at, (old, new) in enumerate(zip(line, spoiled, strict=True)) if old != new]
    blocks = (frame for frame in pair.frames[True] if frame.op == "FLASH_DATA")
    inside = any(frame.start + 100 < at < frame.end - 100 for frame in blocks for at in changed[:1])
    return (
        inside
        and len(changed) == 2
        and not {0xC0, 0xDB}
        & {*line[changed[0] : changed[1] + 1], *spoiled[changed[0] : changed[1] + 1]}
    )


def test_the_proxy_notices_a_missing_verification(tmp_path):
    """Two flips in one column of a block fit its checksum: only the verification finds them."""
    rig = ProxyRig(tmp_path, ("-c", UNVERIFIED))
    cases = [Case(number, "rom-esp32c3", "write-flash-u", "flip") for number in range(1000)]
    cases = [
        case
        for case in cases
        if flips_one_column(rig.clean.pair(case.loader, case.job), rig.plan(case))
    ][:4]
    outcomes = run_cases(rig, cases)
    assert any(outcome.effect == "wrong: flash content" for outcome in outcomes)
    assert find_faults(outcomes)
