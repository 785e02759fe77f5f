"""Shared by all tests: an empty home folder, hypothesis profiles, the soak and slow tests, and the skips that CI accepts."""

from __future__ import annotations

import os
import secrets
import signal
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from espwire.cli.config import SETTINGS

SKIPS = Path(__file__).parent / "skips.txt"
LEFT_OUT = pytest.StashKey[Counter[str]]()  # slow tests that were not run, by file
SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("dev", max_examples=60, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.register_profile(
    "ci",
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=SLOW_IS_FINE,
)
settings.register_profile(
    "soak", max_examples=5000, deadline=None, database=None, suppress_health_check=SLOW_IS_FINE
)
# a shell starts what it puts into the background with these ignored, and so would every program that a test starts
for _number, _default in (
    (signal.SIGINT, signal.default_int_handler),
    (getattr(signal, "SIGQUIT", None), signal.SIG_DFL),
):
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") == "true" else "dev")
)


@pytest.fixture(autouse=True)
def _stubs_of_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """ESPWIRE_STUBS=FOLDER: what tools/make_stub.py --out wrote there stands in for the packed stubs."""
    if folder := os.environ.get("ESPWIRE_STUBS"):
        monkeypatch.setattr("espwire.device.stub_image._packed", lambda: Path(folder))


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's files, and none depends on the user's environment."""
    home = str(tmp_path_factory.getbasetemp())
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, home)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(Path(home, name.lower())))
    variables = {"CFGFILE", *(setting.variable for setting in SETTINGS.values())} - {""}
    for name in list(os.environ):
        ours = name.startswith("ESPWIRE_") and name.removeprefix("ESPWIRE_") in variables
        if name.startswith("ESPTOOL_") or ours or name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_settings(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test takes the user's espwire.toml; Windows does not ask the environment where such files go."""
    place = tmp_path_factory.getbasetemp() / "settings" / secrets.token_hex(8) / "espwire.toml"
    monkeypatch.setattr("espwire.cli.config_files.find_user_file", lambda: str(place))


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test remembers for itself; Windows does not ask the environment where such files go."""
    place = tmp_path_factory.getbasetemp() / "state" / secrets.token_hex(8) / "state.json"
    monkeypatch.setattr("espwire.cli.state.find_state_file", lambda: place)


@pytest.fixture(autouse=True)
def _no_ports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the boards of whoever runs it: one alone would be chosen, and reset. Conformance names its own."""
    if "conformance" in request.path.parts:
        return
    from serial.tools import list_ports

    monkeypatch.setattr(list_ports, "comports", lambda include_links=False: [])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect soak tests unless selected by marker or by name, and slow ones with --fast; count both by file."""
    if "soak" in (config.option.markexpr or "") or any("::" in name for name in config.args):
        return
    markers = ("soak", "slow") if config.getoption("--fast") else ("soak",)
    kept, left_out = [], []
    for item in items:
        marked = any(item.get_closest_marker(name) for name in markers)
        (left_out if marked else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    config.stash[LEFT_OUT] = Counter(
        f"{item.path.parent.name}/{item.path.stem.removeprefix('test_')}"
        for item in left_out
        if not item.get_closest_marker("soak")
    )
    items[:] = kept


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist passes on what it left out; all workers collect the same tests."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left out"] = dict(session.config.stash.get(LEFT_OUT, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the numbers of a worker."""
    node.config.stash[LEFT_OUT] = Counter(getattr(node, "workeroutput", {}).get("left out", {}))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Report which slow tests did not run."""
    if counts := config.stash.get(LEFT_OUT, Counter()):
        files = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        terminalreporter.write_line(
            f"left out {counts.total():,} slow tests; `make test-all` runs them: {files}"
        )


class SkipWatch:
    """Collects skips on the process that reports; with CI=true, one that is not listed fails the run."""

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped[report.nodeid] = _reason(report)

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped[report.nodeid] = _reason(report)

    def unlisted(self) -> dict[str, str]:
        """The skips that skips.txt does not have."""
        listed = list_skips(SKIPS.read_text("utf-8"))
        return {
            name: reason
            for name, reason in self.skipped.items()
            if not any(_fits(name, where) and _fits(reason, why) for where, why in listed)
        }

    @pytest.hookimpl
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if os.environ.get("CI") == "true" and self.unlisted() and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if os.environ.get("CI") == "true" and (unlisted := self.unlisted()):
            terminalreporter.section("skips that tests/skips.txt does not list", red=True)
            for name, reason in sorted(unlisted.items()):
                terminalreporter.write_line(f"{name}: {reason}")


def list_skips(text: str) -> list[tuple[str, str]]:
    """Patterns of test id and reason, from skips.txt."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [
        (where.strip(), why.strip()) for where, _, why in (line.partition(" | ") for line in lines)
    ]


def _fits(text: str, pattern: str) -> bool:
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(said).removeprefix("Skipped: ")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out tests marked as slow")


def pytest_configure(config: pytest.Config) -> None:
    """Only the process that reports watches: xdist's workers send it their reports."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipWatch(), "skip-watch")
