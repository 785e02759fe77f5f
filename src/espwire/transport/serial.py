"""A transport on a serial port of the operating system, opened by pyserial.

pyserial reconfigures the port whenever its ``timeout`` is assigned, so that is done once. Waiting is done here: by
polling the file descriptor on POSIX, by short reads on Windows.

Beyond pyserial, where system and driver support it: both modem lines in one step, the actual baud rate, low latency, and
exclusive use of the port.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
import time
from typing import TYPE_CHECKING

from espwire.chips.index import OTG_PRODUCTS
from espwire.errors import PortNotFound, TransportError, TransportLost
from espwire.streams import wait_ready
from espwire.transport import telnet
from espwire.transport.base import CancelToken, TransportInfo, TransportKind
from espwire.transport.open_errors import naming_pyserial, open_error

if TYPE_CHECKING:
    import serial


SLICE = 0.05  # seconds between checks of the cancel token
CHUNK = 0x10000
DRAIN_LIMIT = 10.0
RATE_TOLERANCE = 0.03  # beyond it, UARTs cannot communicate
# as in chips/data/usb-ids.toml, which takes longer to load than a port to open
ESPRESSIF = 0x303A
SERIAL_JTAG_PRODUCT = 0x1001
POSIX = os.name == "posix"
NO_LINES = (errno.ENOTTY, errno.EINVAL, errno.ENOSYS)  # pseudo-terminals and some adapters
TERMIOS2 = struct.Struct("=4I20x2I")  # flags; line discipline and characters; rates in and out
TCGETS2 = 0x802C542A  # Linux on x86, ARM and RISC-V; the call fails where the number differs
# pseudo-terminals: TIOCEXCL would outlive a client that was killed
SHARED = ("/dev/pts/", "/dev/ttys")

# attribute of pyserial and its values, by option and value of RFC 2217
FORMATS: dict[int, tuple[str, dict[int, int | float | str]]] = {
    telnet.SET_DATA_SIZE: ("bytesize", {5: 5, 6: 6, 7: 7, 8: 8}),
    telnet.SET_PARITY: ("parity", {1: "N", 2: "O", 3: "E", 4: "M", 5: "S"}),
    telnet.SET_STOP_SIZE: ("stopbits", {1: 1, 2: 2, 3: 1.5}),
}


def kind_of(vid: int | None, pid: int | None) -> TransportKind:
    """The kind of a port by its USB ids: the chip's built-in USB, or a UART."""
    if vid == ESPRESSIF and pid == SERIAL_JTAG_PRODUCT:
        return "usb-jtag"
    if vid == ESPRESSIF and pid in OTG_PRODUCTS:
        return "usb-otg"
    return "uart"


class SerialTransport:
    """A serial port, opened exclusively where the system supports it.

    Opening leaves DTR and RTS released, on POSIX both in one step, so that it does not reset a running chip.

    :raises PortNotFound, PortBusy, PortDenied: it cannot be opened
    :raises TransportError: code ``baud-refused``
    """

    def __init__(self, name: str, *, baud: int, cancel: CancelToken) -> None:
        self._cancel = cancel
        self._failures = _failures()
        self._port = _open_port(name, baud)
        self._closed = self._stuck = False
        self._fd = -1
        self._dtr = self._rts = True  # the state after opening
        try:
            if POSIX:
                self._fd = self._port.fileno()
                _keep_lines_on_close(self._fd)
                _set_exclusive(self._fd, name)
            _set_low_latency(self._port)
            self.info = TransportInfo(name=name, kind="uart")
            self.info = _describe_port(name, can_reset=self._set_lines(dtr=False, rts=False))
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """For a selector; -1 where the system has none (Windows)."""
        return self._fd

    def read(self, timeout: float) -> bytes:
        """Return received bytes; empty after ``timeout``."""
        deadline = self.now() + timeout
        while True:
            self._cancel.check()
            left = deadline - self.now()
            data = self._read_some(min(max(left, 0.0), SLICE))
            if data or left <= 0:
                return data

    def write(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``."""
        rest = memoryview(data)
        while rest:
            self._cancel.check()
            rest = rest[self._write_some(rest) :]
            if rest and self.now() >= deadline:
                self._stuck = True
                raise TransportLost(
                    f"{self.info.name} accepts no more data",
                    hint="Check the driver and flow control of the port, and plug the board in again.",
                    code="write-timeout",
                )

    def drain(self) -> None:
        """Wait until everything written has been sent, at most ten seconds."""
        deadline = self.now() + DRAIN_LIMIT
        try:
            while self._port.out_waiting and self.now() < deadline:
                self.sleep(0.001)
        except self._failures as error:
            raise self._lost(error) from None

    def discard_input(self) -> None:
        """Discard received bytes that were not read."""
        try:
            self._port.reset_input_buffer()
        except self._failures as error:
            raise self._lost(error) from None

    def set_baud(self, baud: int) -> None:
        """Change the baud rate.

        :raises TransportError: code ``baud-refused``: the port does not support it, or uses another rate instead
        """
        try:
            self._port.baudrate = baud
            actual = _read_baud(self._fd) if POSIX else None
        except self._failures as error:
            raise _baud_refused(self.info.name, baud) from error
        if actual is not None and abs(actual - baud) > baud * RATE_TOLERANCE:
            raise _baud_refused(self.info.name, baud, f"; it uses {actual} instead")

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem lines, both in one step on POSIX; no effect on a port without them."""
        self._set_lines(dtr=dtr, rts=rts)

    def set_format(self, option: int, value: int) -> int:
        """Set data bits, parity or stop bits; returns what is in use, also if the port refuses the value."""
        attribute, values = FORMATS[option]
        with contextlib.suppress(*self._failures):  # a missing ability is an answer
            if value in values:
                setattr(self._port, attribute, values[value])
        in_use = getattr(self._port, attribute)
        return next(number for number, setting in values.items() if setting == in_use)

    def set_flow_control(self, value: int) -> int:
        """Set the flow control; returns what is in use."""
        with contextlib.suppress(*self._failures):
            if value:
                self._port.xonxoff = value == telnet.XON_XOFF
                self._port.rtscts = value == telnet.HARDWARE
        if self._port.rtscts:
            return telnet.HARDWARE
        return telnet.XON_XOFF if self._port.xonxoff else telnet.NO_FLOW_CONTROL

    def set_break(self, *, on: bool) -> bool:
        """Begin or end a break; whether the port sends one."""
        try:
            self._port.break_condition = on
        except self._failures:
            return False
        return on

    def read_modem_state(self) -> int | None:
        """The signals; None: the port has none, such as a pseudo-terminal."""
        port = self._port
        try:
            return (
                telnet.CTS * port.cts
                | telnet.DSR * port.dsr
                | telnet.RI * port.ri
                | telnet.DCD * port.cd
            )
        except self._failures:
            return None

    def now(self) -> float:
        """The monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        self._cancel.sleep(seconds)

    def close(self) -> None:
        """Close the port; closing it again has no effect."""
        if not self._closed:
            self._closed = True
            if self._stuck or self._cancel.cancelled:
                with contextlib.suppress(*self._failures):
                    # else closing waits up to half a minute for unsent data
                    self._port.reset_output_buffer()
            _unset_exclusive(self._fd)
            with contextlib.suppress(*self._failures):
                self._port.close()

    def _set_lines(self, *, dtr: bool | None, rts: bool | None) -> bool:
        """Whether the port has such lines."""
        self._dtr = self._dtr if dtr is None else dtr
        self._rts = self._rts if rts is None else rts
        try:
            if POSIX and dtr is not None and rts is not None:
                _set_both_lines(self._fd, dtr=dtr, rts=rts)
                return True
            if dtr is not None:
                self._port.dtr = dtr
            if rts is not None:
                self._port.rts = rts
                if not POSIX:  # some Windows drivers apply RTS only with the next change of DTR
                    self._port.dtr = self._dtr
        except self._failures as error:
            if isinstance(error, OSError) and error.errno in NO_LINES:
                return False
            raise self._lost(error) from None
        return True

    def _read_some(self, timeout: float) -> bytes:
        try:
            if not POSIX:
                # limited by pyserial's fixed timeout; shorter timeouts end a little late
                return (
                    self._port.read(max(1, self._port.in_waiting))
                    if timeout or self._port.in_waiting
                    else b""
                )
            if not wait_ready(self._fd, timeout):
                return b""
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return b""
        except self._failures as error:
            raise self._lost(error) from None
        if not data:  # readable and empty
            raise TransportLost(f"{self.info.name} was disconnected")
        return data

    def _write_some(self, data: memoryview) -> int:
        try:
            if not POSIX:
                return self._port.write(bytes(data)) or 0
            if not wait_ready(self._fd, SLICE, write=True):
                return 0
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except self._failures as error:
            raise self._lost(error) from None

    def _lost(self, error: Exception) -> TransportLost:
        reason = getattr(error, "strerror", None) or error
        return TransportLost(f"lost the connection to {self.info.name}: {reason}")


def _failures() -> tuple[type[Exception], ...]:
    """The exceptions of a failing port; termios has its own."""
    if sys.platform != "win32":
        import termios

        return (OSError, ValueError, OverflowError, termios.error)
    else:  # noqa: RET505  a separate branch for the type checker
        return (OSError, ValueError, OverflowError)


def _open_port(name: str, baud: int) -> serial.Serial:
    with naming_pyserial():
        import serial

        serial.Serial  # noqa: B018  another package of this name lacks it
    try:
        # lines keep pyserial's defaults here: changing one after the other would pulse the chip's reset
        return serial.Serial(
            name, baud, timeout=0.02, write_timeout=10.0, exclusive=True if POSIX else None
        )
    except OSError as error:
        raise open_error(name, error) from None
    except (ValueError, OverflowError) as error:
        if isinstance(error, OverflowError) or "baud" in str(error):
            raise _baud_refused(name, baud) from None
        raise PortNotFound(f"cannot open {name}: {error}", code="cannot-open") from None


def _baud_refused(name: str, baud: int, more: str = "") -> TransportError:
    return TransportError(
        f"{name} does not support {baud} baud{more}",
        hint="Choose another rate with --baud.",
        code="baud-refused",
    )


def _describe_port(name: str, *, can_reset: bool) -> TransportInfo:
    from serial.tools import list_ports

    real = os.path.realpath(name)
    port = next((p for p in list_ports.comports() if p.device in (name, real)), None)
    if port is None:
        return TransportInfo(name=name, kind="uart", can_reset=can_reset)
    kind = kind_of(port.vid, port.pid)
    return TransportInfo(
        name=name,
        kind=kind,
        vid=port.vid,
        pid=port.pid,
        serial=port.serial_number or "",
        can_reset=can_reset,
    )


def _set_both_lines(fd: int, *, dtr: bool, rts: bool) -> None:
    if sys.platform != "win32":
        import fcntl
        import termios

        word = struct.unpack("I", fcntl.ioctl(fd, termios.TIOCMGET, struct.pack("I", 0)))[0]
        word &= ~(termios.TIOCM_DTR | termios.TIOCM_RTS)
        word |= (termios.TIOCM_DTR if dtr else 0) | (termios.TIOCM_RTS if rts else 0)
        fcntl.ioctl(fd, termios.TIOCMSET, struct.pack("I", word))


def _keep_lines_on_close(fd: int) -> None:
    """Clear HUPCL, which would pulse the lines when the port is closed and opened again."""
    if sys.platform != "win32":
        import termios

        with contextlib.suppress(termios.error):
            attributes = termios.tcgetattr(fd)
            attributes[2] &= ~termios.HUPCL
            termios.tcsetattr(fd, termios.TCSANOW, attributes)


def _read_baud(fd: int) -> int | None:
    """The rate that the driver set, which may differ from the requested one; None if unknown."""
    if sys.platform == "linux":
        import fcntl

        try:
            rate: int = TERMIOS2.unpack(fcntl.ioctl(fd, TCGETS2, bytes(TERMIOS2.size)))[5]
        except OSError:
            return None
        return rate or None
    else:  # noqa: RET505  a separate branch for the type checker
        return None


def _set_low_latency(port: serial.Serial) -> None:
    """Make the driver deliver each byte immediately, if it can (FTDI otherwise waits 16 ms)."""
    switch = getattr(port, "set_low_latency_mode", None)
    if switch is not None:
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            switch(True)


def _set_exclusive(fd: int, name: str) -> None:
    """Prevent every program from opening the port while it is open here, including programs that ignore locks."""
    if sys.platform != "win32":
        import fcntl
        import termios

        if not os.path.realpath(name).startswith(SHARED):
            with contextlib.suppress(OSError):
                fcntl.ioctl(fd, termios.TIOCEXCL)


def _unset_exclusive(fd: int) -> None:
    """Undo ``_set_exclusive`` before closing: a copy of the descriptor in a child process would keep it in force."""
    if sys.platform != "win32" and fd >= 0:
        import fcntl
        import termios

        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, termios.TIOCNXCL)
