"""What can be known before a port is opened: files that cannot be read or written, a broken stub file.

A command that fails for such a reason must fail before it resets a board, and not after minutes of work.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from espwire.cli.parts import STDIN

if TYPE_CHECKING:
    from espwire.cli.session import Session
    from espwire.device.stub_image import StubImage


class _Enough(Exception):
    """Ends the attempt to write, so that the file keeps its old content."""


def check_output(path: str) -> None:
    """Begin to write ``path`` and take it back: whatever is there stays. A device or a pipe is left alone.

    :raises FileError: it cannot be written
    """
    from espwire.files import open_output

    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return
    try:
        with open_output(path, durable=False):
            raise _Enough
    except _Enough:
        pass


def check_inputs(paths: Iterable[str]) -> None:
    """Read each file once. Standard input and pipes can be read once only, and are left to the command.

    :raises FileError: one cannot be read
    """
    from espwire.files import read_file

    for path in paths:
        if path != STDIN and (
            os.path.isfile(path) or not os.path.exists(path) or os.path.isdir(path)
        ):
            read_file(path)


def read_stub_file(session: Session) -> StubImage | None:
    """The stub in the file of ``--stub``; None: no such file is to be used.

    :raises FileError, DataError: the file
    """
    if session.stub is None or session.no_stub:
        return None
    from espwire.device.stub_image import parse_vendor_stub
    from espwire.files import read_file

    return parse_vendor_stub(read_file(session.stub), os.path.basename(session.stub))
