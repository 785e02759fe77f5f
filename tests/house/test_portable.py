"""Every module can be imported on a system that lacks what Linux has."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, importlib, pkgutil

class Blocker:
    names = {"termios", "fcntl", "pty", "tty", "resource", "grp", "pwd"}
    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ImportError(f"{name} is blocked")
        return None

for name in Blocker.names:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocker())
import espwire
count = 0
for found in pkgutil.walk_packages(espwire.__path__, "espwire."):
    if found.name not in ("espwire.__main__", "espwire.labgrid"):  # that needs the extra lab
        importlib.import_module(found.name)
        count += 1
blocked = Blocker.names & set(sys.modules)
print(count, sorted(blocked))
"""


def test_every_module_imports_without_termios_fcntl_pty_and_resource() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, blocked = done.stdout.split(maxsplit=1)
    assert int(count) >= 20
    assert blocked.strip() == "[]"
