"""Many command lines of espefuse by its ``espefuse.main``, each in a fork of one process: importing it costs most."""

import json
import subprocess
from pathlib import Path

PROGRAM = """
import contextlib, io, json, os, sys
import espefuse
with contextlib.redirect_stdout(io.StringIO()):
    espefuse.main(json.loads(sys.argv[1]))  # loads the chip's tables
for line in sys.stdin:
    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        with os.fdopen(read) as answer:
            text = answer.read()
        os.waitpid(child, 0)
        print(text, flush=True)
        continue
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            espefuse.main(json.loads(line))
        end = ""
    except SystemExit as error:
        end = f"exit {error.code}" if error.code else ""
    except BaseException as error:
        end = f"{type(error).__name__}: {error}"
    with os.fdopen(write, "w") as answer:
        answer.write(json.dumps([end, said.getvalue()]))
    os._exit(0)
"""


def run_many(esptool, chip, lines, folder):
    """For each line ``(how it failed, or nothing; what it printed)``. ``chip``: of most of them."""
    python = str(Path(esptool).parent / "python")
    done = subprocess.run(
        [python, "-c", PROGRAM, json.dumps(["--chip", chip, "--virt", "dump"])],
        input="\n".join(json.dumps([str(word) for word in line]) for line in lines),
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        encoding="utf-8",
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(lines), done.stderr[-2000:]
    return answers
