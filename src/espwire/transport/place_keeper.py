"""The process that holds a labgrid place, as long as its standard input is open, or lists places (see place.py).

It prints one line of JSON: the serial port of the place, the list, or an error. It needs labgrid; nothing else of
espwire is imported.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CONNECT_S = 5.0
SESSION_S = (
    60.0  # for everything until the place is acquired; the coordinator waits 10 s for each resource
)
RELEASE_S = 20.0
MOST_NAMED = 20
SERIAL = "NetworkSerialPort"  # what exporters make of RawSerialPort and USBSerialPort, too
SCHEMES = {"rfc2217": "rfc2217", "raw": "socket"}

Path = tuple[str, str, str, str]  # of a resource: exporter, group, class, name


class KeeperError(Exception):
    """``code`` and ``hint`` of the error that place.py raises."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code, self.hint = code, hint


class Session:
    """A client of the coordinator, known as ``user``."""

    def __init__(self, address: str) -> None:
        import grpc
        from labgrid.remote.generated import labgrid_coordinator_pb2 as messages
        from labgrid.remote.generated.labgrid_coordinator_pb2_grpc import CoordinatorStub

        self.address, self._messages, self._grpc = address, messages, grpc
        self.user = find_user()
        self.places: dict[str, Any] = {}
        self.resources: dict[tuple[str, str, str], Any] = {}
        self._channel = grpc.insecure_channel(add_port(address))
        with self._naming():
            grpc.channel_ready_future(self._channel).result(timeout=CONNECT_S)
        self._stub = CoordinatorStub(self._channel)
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._incoming = self._stub.ClientStream(iter(self._outgoing.get, None), timeout=SESSION_S)
        self._syncs = 0
        self._begin()

    def _begin(self) -> None:
        from importlib.metadata import version

        message = self._messages.ClientInMessage()
        message.startup.version, message.startup.name = version("labgrid"), self.user
        self._outgoing.put(message)
        for what in ("all_places", "all_resources"):
            message = self._messages.ClientInMessage()
            setattr(message.subscribe, what, True)
            self._outgoing.put(message)
        self.sync()

    def sync(self) -> None:
        """Receive every change up to now."""
        self._syncs += 1
        message = self._messages.ClientInMessage()
        message.sync.id = self._syncs
        self._outgoing.put(message)
        with self._naming():
            for answer in self._incoming:
                for update in answer.updates:
                    self._take(update)
                if answer.HasField("sync") and answer.sync.id == self._syncs:
                    return
        raise self._unreachable()

    def _take(self, update: Any) -> None:
        from labgrid.remote.common import Place, ResourceEntry

        kind = update.WhichOneof("kind")
        if kind == "place":
            self.places[update.place.name] = Place.from_pb2(update.place)
        elif kind == "del_place":
            self.places.pop(update.del_place, None)
        elif kind in ("resource", "del_resource"):
            path = update.resource.path if kind == "resource" else update.del_resource
            key = (path.exporter_name, path.group_name, path.resource_name)
            if kind == "resource":
                self.resources[key] = ResourceEntry(ResourceEntry.data_from_pb2(update.resource))
            else:
                self.resources.pop(key, None)

    def paths(self) -> list[Path]:
        """The resources that exist now."""
        return [
            (exporter, group, entry.cls, name)
            for (exporter, group, name), entry in self.resources.items()
        ]

    def acquire(self, place: str) -> None:
        """
        :raises KeeperError: code ``place-failed``
        """
        request = self._messages.AcquirePlaceRequest(placename=place)
        with self._naming(place):
            self._stub.AcquirePlace(request, timeout=SESSION_S)

    def release(self, place: str) -> None:
        """Release the place, if this user has acquired it."""
        request = self._messages.ReleasePlaceRequest(placename=place, fromuser=self.user)
        with self._naming(place):
            self._stub.ReleasePlace(request, timeout=RELEASE_S)

    def close(self) -> None:
        """End the session."""
        self._outgoing.put(None)
        self._incoming.cancel()
        self._channel.close()

    @contextmanager
    def _naming(self, place: str = "") -> Iterator[None]:
        """Name coordinator and place in errors of gRPC."""
        try:
            yield
        except self._grpc.FutureTimeoutError:
            raise self._unreachable() from None
        except self._grpc.RpcError as error:
            gone = self._grpc.StatusCode.UNAVAILABLE, self._grpc.StatusCode.CANCELLED
            if not place or error.code() in gone:
                raise self._unreachable() from None
            raise KeeperError(
                "place-failed",
                f"the labgrid coordinator refuses the place {place}: {error.details()}",
                f"Look at it with `labgrid-client -p {place} show`.",
            ) from None

    def _unreachable(self) -> KeeperError:
        return KeeperError(
            "no-coordinator",
            f"the labgrid coordinator {self.address} does not answer",
            "Set LG_COORDINATOR to HOST:PORT, or add ?coordinator=HOST:PORT to the port.",
        )


def add_port(address: str) -> str:
    """``address`` with labgrid's port number, if it has none.

    >>> [add_port(address) for address in ("lab", "lab:1", "[::1]", "[::1]:1")]
    ['lab:20408', 'lab:1', '[::1]:20408', '[::1]:1']
    """
    return address if address.rpartition(":")[2].isdigit() else f"{address}:20408"


def find_user() -> str:
    """``host/user``, as labgrid-client uses it."""
    from getpass import getuser
    from socket import gethostname

    host = os.environ.get("LG_HOSTNAME") or gethostname()
    return f"{host}/{os.environ.get('LG_USERNAME') or getuser()}"


def hold(session: Session, request: dict[str, Any], print_line: Callable[[Any], None]) -> None:
    """Acquire the place, print its port, wait for the end of standard input, release the place.

    :raises KeeperError: it cannot be acquired, or has no suitable port
    """
    place = find_place(session, request["place"])
    name = place.name
    if place.acquired:
        if not (request["acquired"] and session.user in (place.acquired, *place.allowed)):
            raise KeeperError(
                "place-busy",
                f"the place {name} is acquired by {place.acquired}",
                "If you acquired it yourself, add ?acquired=yes to the port: it then stays acquired."
                if place.acquired == session.user
                else f"Wait until it is released; `labgrid-client -p {name} show` shows its state.",
            )
        print_line({"url": find_url(session, name, request["resource"])})
        sys.stdin.buffer.read()
        return
    check_matches(session, place)
    try:
        session.acquire(name)
        session.sync()
        print_line({"url": find_url(session, name, request["resource"])})
        sys.stdin.buffer.read()
    finally:
        release(session, name)


def release(session: Session, name: str) -> None:
    """Release the place; a new session if this one has ended, for example with the coordinator."""
    try:
        session.release(name)
    except KeeperError:
        fresh = Session(session.address)
        try:
            fresh.release(name)
        finally:
            fresh.close()


def find_place(session: Session, name: str) -> Any:
    """
    :raises KeeperError: code ``no-place``
    """
    for place in session.places.values():
        if name == place.name or name in place.aliases:
            return place
    raise no_place(session, f"no place is called {name}")


def no_place(session: Session, message: str) -> KeeperError:
    """The error that lists the existing places."""
    names = sorted(session.places)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    listed = f"The places are: {', '.join(names[:MOST_NAMED])}{more}." if names else ""
    return KeeperError(
        "no-place",
        f"{message} at the labgrid coordinator {session.address}",
        listed or "Create one with `labgrid-client create` and `labgrid-client add-match`.",
    )


def check_matches(session: Session, place: Any) -> None:
    """
    :raises KeeperError: code ``place-unavailable``: an exporter is not connected
    """
    missing = place.unmatched(session.paths())
    if missing is not None:
        raise KeeperError(
            "place-unavailable",
            f"the place {place.name} is incomplete: nothing is exported for {missing!r}",
            f"Start the exporter {missing.exporter}, or correct the match of the place.",
        )


def find_url(session: Session, name: str, resource: str) -> str:
    """The URL of a serial port of the acquired place.

    :param resource: its name; empty: the only one
    :raises KeeperError: codes ``place-unavailable``, ``place-resource``
    """
    place = session.places[name]
    ports: dict[str, Any] = {}
    for exporter, group, kind, own in (tuple(path) for path in place.acquired_resources):
        entry = session.resources.get((exporter, group, own))
        match = place.getmatch((exporter, group, kind, own))
        if entry is not None and entry.cls == SERIAL:
            ports[(match.rename if match is not None else "") or own] = entry
    chosen = [entry for each, entry in ports.items() if resource in ("", each)]
    if len(chosen) != 1:
        names = ", ".join(sorted(ports)) or "none"
        raise KeeperError(
            "place-resource",
            f"the place {name} has no serial port {resource}; its serial ports: {names}"
            if resource or not ports
            else f"the place {name} has several serial ports: {names}",
            "Name one with ?resource=NAME."
            if ports
            else "Add a match for a NetworkSerialPort, RawSerialPort or USBSerialPort to the place.",
        )
    return build_url(name, chosen[0])


def build_url(place: str, entry: Any) -> str:
    """The URL for an exported serial port.

    :raises KeeperError: codes ``place-unavailable``, ``place-proxy``
    """
    args = entry.args
    scheme = SCHEMES.get(str(args.get("protocol") or "rfc2217"))
    if not entry.avail or not args.get("port") or scheme is None:
        why = f"unknown protocol {args.get('protocol')}" if scheme is None else "not available"
        raise KeeperError(
            "place-unavailable",
            f"the serial port of the place {place} cannot be used: {why}",
            f"Check that the board is connected to {args.get('host')}, and the log of the exporter.",
        )
    if entry.extra.get("proxy_required") or os.environ.get("LG_PROXY"):
        raise KeeperError(
            "place-proxy",
            f"the serial port of the place {place} needs an SSH proxy, which espwire does not support",
            "Forward its port with `ssh -L`, or use the drivers of espwire.labgrid in labgrid.",
        )
    host = str(args["host"])
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{args['port']}"


def choose(session: Session, pattern: str) -> list[str]:
    """The places whose name fits a shell pattern.

    :raises KeeperError: code ``no-place``
    """
    from fnmatch import fnmatchcase

    names = sorted(name for name in session.places if fnmatchcase(name, pattern))
    if not names:
        raise no_place(session, f"no place fits {pattern}")
    return names


def main() -> None:
    """Carry out the request of the command line, JSON: ``pattern``, or ``place``, ``resource`` and ``acquired``."""
    # Ctrl-C and a closed terminal reach the process that uses the place, and its end reaches this one
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    request = json.loads(sys.argv[-1])

    def print_line(data: Any) -> None:
        sys.stdout.write(json.dumps(data) + "\n")
        sys.stdout.flush()

    try:
        try:
            session = Session(request["coordinator"])
        except ImportError as error:
            raise KeeperError(
                "no-labgrid",
                f"labgrid cannot be imported: {error}",
                "Install it in an environment of its own: pip install 'espwire[lab]'.",
            ) from None
        try:
            if "pattern" in request:
                print_line({"places": choose(session, request["pattern"])})
            else:
                hold(session, request, print_line)
        finally:
            session.close()
    except KeeperError as error:
        print_line({"code": error.code, "message": str(error), "hint": error.hint})
        sys.exit(1)
    except BrokenPipeError:  # nobody waits any longer; the place is released
        sys.exit(1)
