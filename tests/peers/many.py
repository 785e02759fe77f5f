"""Many command lines of esptool in one process, by its documented ``esptool.main``: starting it costs most."""

import json
import subprocess
from pathlib import Path

PROGRAM = """
import contextlib, io, json, sys
import esptool
for line in sys.stdin:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            esptool.main(json.loads(line))
        end = ""
    except SystemExit as error:
        end = f"exit {error.code}" if error.code else ""
    except BaseException as error:
        end = f"{type(error).__name__}: {error}"
    print(json.dumps([end, said.getvalue()]), flush=True)
"""


def run_many(esptool, lines, folder):
    """For each line ``(how it failed, or nothing; what it printed)``."""
    python = str(Path(esptool).parent / "python")
    words = "\n".join(json.dumps([str(word) for word in line]) for line in lines)
    done = subprocess.run(
        [python, "-c", PROGRAM],
        input=words,
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        encoding="utf-8",
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(lines), done.stderr[-2000:]
    return answers
