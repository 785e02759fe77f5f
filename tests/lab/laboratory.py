"""A labgrid laboratory on loopback: coordinator, exporters, and virtual chips in threads."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from espwire.serve.server import PortSource, ServeOptions, serve_ports
from espwire.transport.base import CancelToken
from espwire.transport.place_keeper import Session
from espwire.virtual.live import LiveTransport

BIN = Path(sys.executable).parent
START_S = 60.0


class Chip:
    """A virtual chip behind ``espwire serve-port``. ``port``: of TCP."""

    def __init__(self, url: str = "virtual:esp32c3?profile=instant&size=2MB") -> None:
        self._token, started = CancelToken(), threading.Event()
        self.port = 0

        def announce(name: str, address: str) -> None:
            self.port = int(address.rpartition(":")[2])
            started.set()

        source = PortSource(url, lambda baud: LiveTransport(url, CancelToken()))
        self._thread = threading.Thread(
            target=serve_ports,
            args=([source], ServeOptions(first=0)),
            kwargs={"announce": announce, "note": lambda text: None, "stop": self._token},
            daemon=True,
        )
        self._thread.start()
        assert started.wait(START_S)

    def kill(self) -> None:
        """Close the server and every connection."""
        self._token.cancel()
        self._thread.join(START_S)
        assert not self._thread.is_alive()

    def export(self) -> dict[str, object]:
        """The resource for an exporter."""
        return {
            "NetworkSerialPort": {"host": "127.0.0.1", "port": self.port, "protocol": "rfc2217"}
        }


class Laboratory:
    """``groups``: exporter → group → resources. Each group is also a place, named ``exporter-group``."""

    def __init__(self, folder: Path, groups: dict[str, dict[str, dict[str, object]]]) -> None:
        self._folder = folder
        places = {
            f"{exporter}-{group}": {
                "matches": [{"exporter": exporter, "group": group, "cls": "*"}],
            }
            for exporter, names in groups.items()
            for group in names
        }
        (folder / "places.yaml").write_text(yaml.dump(places))
        self._processes: list[subprocess.Popen[bytes]] = []
        coordinator = self._start("labgrid-coordinator", "-l", "127.0.0.1:0")
        assert coordinator.stdout is not None
        for line in coordinator.stdout:
            if line.startswith(b"listening on "):
                self.address = line.decode().strip().removeprefix("listening on ")
                break
        self._drain = threading.Thread(target=coordinator.stdout.read, daemon=True)
        self._drain.start()
        os.environ["LG_COORDINATOR"] = self.address
        self.exporters = {name: self._export(name, resources) for name, resources in groups.items()}
        self.wait_for(sum(len(names) for names in groups.values()))

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, BIN / program, *arguments],
            cwd=self._folder,
            stdout=subprocess.PIPE if program.endswith("coordinator") else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process

    def _export(
        self, name: str, resources: dict[str, dict[str, object]]
    ) -> subprocess.Popen[bytes]:
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.dump(resources))
        return self._start("labgrid-exporter", "-c", self.address, "-n", name, str(path))

    def wait_for(self, count: int) -> None:
        """Wait until so many resources are exported."""
        end = time.monotonic() + START_S
        while True:
            with self.session() as session:
                if len(session.paths()) == count:
                    return
            assert time.monotonic() < end
            time.sleep(0.3)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A client of the coordinator."""
        session = Session(self.address)
        try:
            yield session
        finally:
            session.close()

    def find_acquired(self) -> list[str]:
        """The places that somebody has acquired."""
        with self.session() as session:
            return [name for name, place in session.places.items() if place.acquired]

    def close(self) -> None:
        """End all processes."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()
            if process.stdout is not None:
                self._drain.join()
                process.stdout.close()
