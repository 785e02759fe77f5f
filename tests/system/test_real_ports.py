"""Real ports that do not open or go away: held by another process, forbidden, no serial port at all, vanished."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from espwire.errors import PortBusy, PortDenied, PortNotFound, TransportLost
from espwire.transport.url import open_transport

if sys.platform == "win32":
    pytest.skip("pseudo terminals and modes are of POSIX", allow_module_level=True)

NOBODY = 65534  # any user without rights will do
WAIT_S = 20
HOLD = """
import serial, sys
port = serial.Serial(sys.argv[1], exclusive=True)
print("held", flush=True)
sys.stdin.read()
"""
# as another user: everything is imported before, for that user may not be allowed to read our files
TRY = """
import json, os, sys
from espwire.errors import TransportError
from espwire.transport.url import open_transport
def attempt(name):
    try:
        open_transport(name).close()
    except TransportError as error:
        return {"class": type(error).__name__, "code": error.code, "text": str(error), "hint": error.hint, **error.details}
    return {}
attempt("/nonexistent/port")
import grp, pwd
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
print(json.dumps(attempt(sys.argv[1])))
"""


@pytest.fixture
def terminal():
    """Both ends of a pseudo terminal: the master as a file, the slave's path."""
    master, slave = os.openpty()
    path = os.ttyname(slave)
    os.close(slave)  # or this process would be the first that has the port open
    with open(master, "rb+", buffering=0) as end:
        yield end, path


def test_a_port_held_by_another_process_names_the_process(terminal):
    _, path = terminal
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline().strip() == "held"
        with pytest.raises(PortBusy) as caught:
            open_transport(path)
        assert caught.value.code == "port-busy"
        if sys.platform == "linux":
            assert caught.value.details["pid"] == child.pid
            assert caught.value.details["process"]
            assert f"(process {child.pid})" in str(caught.value)
    finally:
        child.communicate("", timeout=WAIT_S)
    open_transport(path).close()


def test_a_port_that_this_program_has_open_already(terminal):
    _, path = terminal
    transport = open_transport(path)
    try:
        with pytest.raises(PortBusy) as caught:
            open_transport(path)
        assert caught.value.code == "port-busy"
        if sys.platform == "linux":
            assert caught.value.details["pid"] == os.getpid()
            assert "already" in str(caught.value)
    finally:
        transport.close()
    open_transport(path).close()


def attempt(path, mode):
    """What a user without rights is told: another user where we may become one, else the owner shut out."""
    os.chmod(path, mode)
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRY, path, str(NOBODY)],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=True,
        )
    finally:
        os.chmod(path, 0o620)
    return json.loads(done.stdout)


def test_a_port_that_its_group_may_open_names_the_group(terminal):
    import grp

    _, path = terminal
    error = attempt(path, 0o060)
    group = grp.getgrgid(os.stat(path).st_gid).gr_name
    assert (error["class"], error["code"], error["group"]) == (
        PortDenied.__name__,
        "port-denied",
        group,
    )
    assert group in error["text"]
    assert f"group {group}" in error["hint"]
    assert "log in again" in error["hint"]


def test_a_port_that_nobody_may_open_does_not_send_the_user_to_a_group(terminal):
    _, path = terminal
    error = attempt(path, 0o000)
    assert error["code"] == "port-denied"
    assert "---------" in error["hint"]
    assert "usermod" not in error["hint"]


def test_paths_that_are_not_serial_ports(tmp_path):
    file, folder, pipe = tmp_path / "firmware.bin", tmp_path / "folder", tmp_path / "pipe"
    file.write_bytes(b"\xe9" * 100)
    folder.mkdir()
    os.mkfifo(pipe)
    kinds = {
        file: "a regular file",
        folder: "a directory",
        pipe: "a pipe",
        "/dev/null": "a device of another kind",
    }
    for path, kind in kinds.items():
        with pytest.raises(PortNotFound, match=kind) as caught:
            open_transport(str(path))
        assert caught.value.code == "not-a-serial-port"
    assert file.read_bytes() == b"\xe9" * 100


def test_a_port_that_does_not_exist():
    with pytest.raises(PortNotFound) as caught:
        open_transport("/dev/ttyUSB-none")
    assert caught.value.code == "port-not-found"


def test_a_port_that_vanishes_while_open_and_after(terminal):
    master, path = terminal
    transport = open_transport(path)
    master.write(b"hello")
    assert transport.read(5.0) == b"hello"
    master.close()
    with pytest.raises(TransportLost) as caught:
        transport.read(5.0)
    assert caught.value.code == "link-lost"
    transport.close()
    with pytest.raises(PortNotFound) as gone:
        open_transport(path)
    assert gone.value.code == "port-not-found"


def test_the_command_line_gives_the_code_and_exits_with_3(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("no port")
    done = subprocess.run(
        [sys.executable, "-m", "espwire", "--json", "--port", str(file), "flash-id"],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["code"] == "not-a-serial-port"
