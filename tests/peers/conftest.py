"""Programs we did not write, run from outside: unmodified esptool from PyPI, in an environment of its own.

``ESPWIRE_PEER`` names esptool's executable; without it these tests skip, unless ``ESPWIRE_REQUIRE_PEERS`` is set.
"""

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the harness modules of this folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` leaves these tests out: they need other programs, and minutes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def esptool():
    path = os.environ.get("ESPWIRE_PEER")
    if not path:
        if os.environ.get("ESPWIRE_REQUIRE_PEERS"):
            pytest.fail("ESPWIRE_REQUIRE_PEERS is set, but ESPWIRE_PEER does not name esptool")
        pytest.skip("needs esptool from PyPI: set ESPWIRE_PEER to its executable")
    assert Path(path).exists(), path
    return path


class Served:
    """An ``espwire virtual serve`` process."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "espwire", "virtual", "serve", *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        lines = queue.Queue()
        threading.Thread(
            target=lambda: lines.put(self.process.stdout.readline()), daemon=True
        ).start()
        line = lines.get(timeout=30)
        if not line.startswith("listening on "):
            self.process.kill()
            raise AssertionError(line + self.process.communicate()[1])
        self.port = line.removeprefix("listening on ").strip()

    def close(self):
        self.process.terminate()
        rest, errors = self.process.communicate(timeout=20)
        return self.process.returncode, rest, errors


@pytest.fixture
def serve():
    running = []

    def start(*arguments):
        running.append(Served(*arguments))
        return running[-1]

    yield start
    for served in running:
        if served.process.poll() is None:
            served.close()
