"""``web``: serves the web page on this computer."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import click

from espwire._version import __version__
from espwire.errors import FileError

if TYPE_CHECKING:
    from espwire.cli.context import Context


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@click.option("--no-browser", is_flag=True, help="Do not open the browser.")
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Listen on this TCP port. Default: a free one.",
)
@click.pass_obj
def web(context: Context, file: str | None, no_browser: bool, http_port: int) -> None:
    """FILE is espwire-web-VERSION.zip of the release, or the folder that `make web` builds. The page can be opened on
    this computer only. Ctrl-C quits."""
    from espwire.web.server import PageServer, find_files

    with PageServer(
        find_files(Path(file) if file is not None else find_page()), http_port
    ) as server:
        context.result(
            "web", f"The page is at {server.address} (Ctrl-C quits).", {"address": server.address}
        )
        if not no_browser:
            import webbrowser

            # a browser in the terminal runs until the user quits it, and needs the server meanwhile
            Thread(target=webbrowser.open, args=[server.address], daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def find_page() -> Path:
    """The page of a checkout.

    :raises FileError: code ``no-web-page``: there is none
    """
    built = Path(__file__).resolve().parents[4] / "build/web"
    if (built / "index.html").is_file():
        return built
    name = f"espwire-web-{__version__}.zip"
    raise FileError(
        "the web page is not part of this installation",
        hint=f"Download {name} from the release, then run `espwire web {name}`.",
        code="no-web-page",
    )
