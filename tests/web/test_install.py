"""The install button in a page with a strict policy and the double of Web Serial: no board was touched."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from observed import BUILT, DOUBLE, START_MS, Observed
from serial_bridge import Bridge
from test_page import build_image

from espwire.web import server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

DATA = {name: random.Random(name).randbytes(5000) for name in ("esp32", "esp32c3", "other")}
HOSTILE = "<img src=x onerror=self.broken=1>\x1b[31m"
PAGE = """<!doctype html><html lang="en"><title>Firmware</title><script type="module"
src="/espwire/install.mjs"></script><h1>Firmware</h1><main><{name} manifest="{manifest}"></{name}></main>"""
FRAME = """<!doctype html><html lang="en"><title>Frame</title><iframe title="inner" src="/page/one"
allow="serial 'none'"></iframe>"""
SLOTS = PAGE.replace("></{name}>", "><b slot=unsupported>use another browser</b></{name}>")

Files = dict[str, bytes]


def part(path: str, offset: int = 0x10000) -> dict[str, object]:
    return {"path": path, "offset": offset}


def build_manifests(port: int) -> dict[str, dict[str, Any]]:
    """The manifests by name; ``localhost`` is another site than 127.0.0.1."""
    other = f"http://localhost:{port}"
    c3, esp32 = {"chipFamily": "ESP32-C3"}, {"chipFamily": "ESP32"}
    signed = f"other.bin?signature={'x' * 300}"  # longer than a file name can be
    both = [
        {**esp32, "parts": [part("esp32.bin"), part("other.bin", 0x20000)]},
        {**c3, "improv": True, "parts": [part("esp32c3.bin"), part(signed, 0x30000)]},
    ]
    return {
        "both": {"name": "Two", "version": "1.2", "home_assistant_domain": "two", "builds": both},
        "esp32": {"name": HOSTILE, "builds": [{**esp32, "parts": [part("esp32.bin")]}]},
        "menu": {
            "name": HOSTILE,
            "new_install_skip_erase": True,
            "builds": [
                {**c3, "parts": [part("esp32c3.bin", 0x40000)]},
                {**c3, "name": HOSTILE, "parts": [part("other.bin", 0x50000)]},
                {**c3, "serialType": "cdc", "parts": [part("esp32.bin", 0x60000)]},
            ],
        },
        "wrong-image": {"name": "Wrong", "builds": [{**c3, "parts": [part("esp32-app.bin", 0)]}]},
        "foreign": {"name": "F", "builds": [{**c3, "parts": [part(f"{other}/page/a.bin")]}]},
        "allowed": {"name": "A", "builds": [{**esp32, "parts": [part(f"{other}/open/a.bin")]}]},
        "missing": {"name": "M", "builds": [{**c3, "parts": [part("nothing.bin")]}]},
        "offset": {"name": "O", "builds": [{**c3, "parts": [part("esp32.bin", -1)]}]},
        "text": {"builds": [{**c3, "parts": [{"path": "esp32.bin", "offset": "0x1000"}]}]},
        "itself": {"builds": [{**c3, "parts": [part("#")]}]},
        "no-path": {"builds": [{**c3, "parts": [part(" ")]}]},
        "disk": {"builds": [{**c3, "parts": [part("C:\\build\\a.bin")]}]},
        "same": {"builds": [{**c3, "parts": [part("esp32.bin"), part("other.bin")]}]},
        "web-page": {"builds": [{**c3, "parts": [part("one")]}]},
        "pointer": {"builds": [{**c3, "parts": [part("pointer.bin")]}]},
        "cdc": {"builds": [{**c3, "serialType": "cdc", "parts": [part("esp32.bin")]}]},
        "empty": {"name": "E"},
    }


class Host:
    """A project's site with the built folder of espwire, and a page in Chromium that shows it."""

    def __init__(self, page: Page, address: str, observed: Observed) -> None:
        self.page, self.address, self.observed = page, address, observed
        self.notes: list[str] = []
        page.on("console", lambda message: self.notes.append(message.text))

    def show(self, manifest: str, name: str = "espwire-install") -> None:
        """Put a button for ``manifest`` on the page, which keeps its running Python."""
        self.page.evaluate(
            """([name, manifest]) => {
              const button = document.createElement(name);
              button.manifest = manifest;
              document.querySelector("main").replaceChildren(button);
              self.board.port.opened = [];
            }""",
            [name, f"/page/{manifest}.json"],
        )

    def click(self, manifest: str, **options: str) -> Locator:
        """Show a button and use it; the dialog."""
        if self.page.locator("dialog").count():  # that a failed test has left
            self.page.reload()
        self.show(manifest, **options)
        self.page.get_by_role("button", name="Install").click()
        return self.page.locator("dialog:has([role=status])")

    def choose(self, **options: str) -> Locator:
        """The dialog with the choices."""
        dialog = self.page.locator("dialog:has(form)")
        dialog.wait_for(timeout=START_MS)
        for name, value in options.items():
            dialog.locator(f"[name={name}]").select_option(value)
        return dialog

    def close(self, dialog: Locator) -> None:
        dialog.get_by_role("button", name="Close").wait_for()
        self.page.keyboard.press("Escape")
        dialog.wait_for(state="detached")

    def opened(self) -> list[int]:
        rates: list[int] = self.page.evaluate("() => self.board.port.opened")
        return rates


@pytest.fixture(scope="module")
def flash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of the virtual chip's flash."""
    return tmp_path_factory.mktemp("install") / "flash.bin"


@pytest.fixture(scope="module")
def host(chromium: str, browser: Browser, flash: Path) -> Iterator[Host]:
    files: Files = {f"espwire/{n}": data for n, data in server.find_files(BUILT).items()}
    site = server.PageServer(files)
    bridge = Bridge("esp32c3", "--flash", str(flash), "--profile", "instant")
    policy = server.POLICY.replace(
        "connect-src 'self'",
        f"connect-src 'self' ws://127.0.0.1:{bridge.port} http://localhost:{site.server_port}/open/",
    ).replace("frame-ancestors 'none'", "frame-src 'self'")
    fill(files, site.server_port)
    with pytest.MonkeyPatch.context() as patch, serving(site):
        patch.setitem(server.HEADERS, "Content-Security-Policy", policy)
        patch.setitem(server.HEADERS, "Access-Control-Allow-Origin", "*")
        patch.setitem(server.TYPES, "", "text/html")
        page = browser.new_context().new_page()
        page.add_init_script(DOUBLE.read_text("utf-8").replace("SERIAL_PORT", str(bridge.port)))
        observed = Observed(page)
        host = Host(page, site.address, observed)
        page.goto(f"{site.address}page/one")
        yield host
        page.context.close()
        bridge.close()


def fill(files: Files, port: int) -> None:
    """The project's own pages, manifests and firmware."""

    def add(name: str, content: bytes) -> None:
        files[name] = content

    for name in ("espwire-install", "esp-web-install-button"):
        page = PAGE.format(name=name, manifest="both.json")
        add(f"page/{'one' if name.startswith('espwire') else 'two'}", page.encode())
    add("page/frame", FRAME.encode())
    add("page/slots", SLOTS.format(name="esp-web-install-button", manifest="both.json").encode())
    for name, manifest in build_manifests(port).items():
        add(f"page/{name}.json", json.dumps(manifest).encode())
    for name, data in DATA.items():
        add(f"page/{name}.bin", data)
    add("page/esp32-app.bin", build_image("esp32"))
    add("page/a.bin", b"a")
    add("page/pointer.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    add("page/comma.json", b'{"builds": [],}')
    add("open/a.bin", b"a")


@contextlib.contextmanager
def serving(site: server.PageServer) -> Iterator[None]:
    thread = threading.Thread(target=site.serve_forever, daemon=True)
    thread.start()
    yield
    site.shutdown()
    site.server_close()


def test_the_build_for_the_connected_chip_is_installed_after_its_plan(
    host: Host, flash: Path
) -> None:
    dialog = host.click("both")
    choices = host.choose()
    assert "The board has an ESP32-C3." in choices.inner_text()
    assert not choices.locator("[name=erase]").is_checked()
    choices.locator("button[type=submit]").click()
    plan = host.page.locator("dialog .plan")
    plan.wait_for()
    assert "esp32c3.bin" in plan.inner_text()
    host.page.locator("dialog:has(.plan) button[type=submit]").click()
    dialog.locator(".message.good").wait_for()
    assert "Two 1.2 is installed." in dialog.inner_text()
    content = flash.read_bytes()
    assert content[0x10000:][:5000] == DATA["esp32c3"]
    assert content[0x30000:][:5000] == DATA["other"]
    assert content[0x20000:][:5000] == b"\xff" * 5000  # the other chip's second part
    host.close(dialog)
    assert any("home_assistant_domain, improv" in note for note in host.notes)


def test_a_board_without_a_build_is_reported_and_nothing_is_written(
    host: Host, flash: Path
) -> None:
    before = flash.read_bytes()
    dialog = host.click("esp32", name="esp-web-install-button")
    error = dialog.locator(".message.error")
    error.wait_for(timeout=START_MS)
    assert "no build for the ESP32-C3" in error.inner_text()
    assert "It has builds for: ESP32." in error.inner_text()
    assert error.locator("a").get_attribute("href") == (
        f"{host.address}espwire/guide/web.md#a-button-for-your-own-site"
    )
    assert host.page.locator("dialog form").count() == 0
    assert flash.read_bytes() == before
    # the manifest's name is text
    assert HOSTILE.replace("\x1b", "") in dialog.inner_text().replace("\x1b", "")
    assert host.page.evaluate("() => self.broken") is None
    host.close(dialog)


def test_several_builds_for_the_chip_give_a_menu(host: Host, flash: Path) -> None:
    dialog = host.click("menu")
    choices = host.choose(build="1")
    labels = choices.locator("option").all_text_contents()
    assert labels == ["esp32c3.bin", HOSTILE]  # the one for native USB does not fit a bridge
    assert choices.locator("[name=erase]").count() == 0
    choices.locator("button[type=submit]").click()
    host.page.locator("dialog:has(.plan) button[type=submit]").click()
    dialog.locator(".message.good").wait_for()
    content = flash.read_bytes()
    assert content[0x50000:][:5000] == DATA["other"]
    assert content[0x40000:][:5000] == b"\xff" * 5000
    assert host.page.evaluate("() => self.broken") is None


def test_an_image_for_another_chip_needs_consent(host: Host) -> None:
    dialog = host.click("wrong-image")
    host.choose().locator("button[type=submit]").click()
    findings = host.page.locator("dialog .findings")
    findings.wait_for()
    assert "is an image for esp32, not for esp32c3" in findings.inner_text()
    host.page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


@pytest.mark.parametrize(
    ("manifest", "code", "text"),
    [
        ("foreign", "other-site", "/page/a.bin is on another site, localhost:"),
        ("offset", "manifest", "esp32.bin has no valid offset"),
        ("empty", "manifest", "it has no builds"),
        ("comma", "manifest", "it is not JSON ("),
        ("text", "manifest", 'esp32.bin is the text "0x1000", but must be a number'),
        ("itself", "manifest", 'the path "#" is the address of the manifest itself'),
        ("no-path", "manifest", "a part has no path"),
        ("disk", "manifest", "C:\\build\\a.bin is not an address that a browser can load"),
        ("same", "manifest", "esp32.bin and other.bin have the same offset"),
        ("none", "not-loaded", "none.json answers 404"),
    ],
)
def test_what_cannot_be_installed_is_reported_before_the_port_is_opened(
    host: Host, manifest: str, code: str, text: str
) -> None:
    dialog = host.click(manifest)
    error = dialog.locator(".message.error")
    error.wait_for()
    assert text in error.inner_text()
    assert error.locator("code").inner_text() == code
    assert host.opened() == []
    if code == "other-site":
        assert "host the file next to the page" in error.inner_text()


def test_a_part_of_a_listed_site_is_allowed(host: Host) -> None:
    dialog = host.click("allowed")
    error = dialog.locator(".message.error")
    error.wait_for(timeout=START_MS)
    assert "no build for the ESP32-C3" in error.inner_text()  # and not "other-site"
    assert host.opened() != []


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        ("missing", "nothing.bin cannot be loaded"),
        ("web-page", "/page/one is a web page, not firmware."),
        ("pointer", "/page/pointer.bin is a Git LFS pointer, not firmware."),
    ],
)
def test_a_part_that_is_missing_or_not_firmware_is_reported_before_anything_is_written(
    host: Host, flash: Path, manifest: str, text: str
) -> None:
    before = flash.read_bytes()
    dialog = host.click(manifest)
    host.choose().locator("button[type=submit]").click()
    error = dialog.locator(".message.error")
    error.wait_for()
    assert text in error.inner_text()
    assert flash.read_bytes() == before


def test_a_build_for_another_connection_is_listed_with_it(host: Host) -> None:
    dialog = host.click("cdc")
    error = dialog.locator(".message.error")
    error.wait_for(timeout=START_MS)
    assert "It has builds for: ESP32-C3 (serialType cdc)." in error.inner_text()


def test_escape_cancels_the_work_and_then_closes_the_dialog(host: Host) -> None:
    host.page.route("**/both.json", lambda route: None)  # it never answers
    dialog = host.click("both")
    dialog.wait_for()
    host.page.keyboard.press("Escape")
    dialog.locator(".message").wait_for()
    assert "Cancelled." in dialog.inner_text()
    assert host.opened() == []
    host.page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    host.page.unroute("**/both.json")


def test_removing_the_button_cancels_and_another_button_works(host: Host) -> None:
    host.click("menu")
    host.choose()
    host.page.evaluate("() => document.querySelector('main').replaceChildren()")
    dialog = host.click("esp32")
    error = dialog.locator(".message.error")
    error.wait_for(timeout=START_MS)
    assert "no build for the ESP32-C3" in error.inner_text()
    host.close(dialog)


def test_axe_finds_no_serious_violation_in_the_dialogs(host: Host) -> None:
    axe = (BUILT.parent / "web-npm/node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")
    host.page.evaluate(axe)
    dialog = host.click("menu")
    host.choose()
    for scheme in ("light", "dark"):
        host.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = host.page.evaluate("async () => (await axe.run()).violations")
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == []
    host.page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def test_the_page_reports_no_violation_of_its_policy(host: Host) -> None:
    unexpected = [
        each
        for each in host.observed.problems
        if "localhost" not in each and "404" not in each and "/page/" not in each
    ]
    assert unexpected == []


@pytest.mark.parametrize(
    ("path", "script", "text"),
    [
        ("page/two", "delete Navigator.prototype.serial", "This browser cannot use serial ports."),
        ("page/slots", "delete Navigator.prototype.serial", "use another browser"),
        ("page/frame", "", 'This frame may not use serial ports. It needs allow="serial".'),
    ],
)
def test_a_page_without_serial_ports_gives_the_reason(
    browser: Browser, host: Host, path: str, script: str, text: str
) -> None:
    from playwright.sync_api import expect

    page = browser.new_context().new_page()
    page.add_init_script(script)
    page.goto(f"{host.address}{path}")
    inside = page.frames[-1]
    button = inside.locator("espwire-install, esp-web-install-button")
    expect(button).to_have_attribute("install-unsupported", "")
    expect(inside.get_by_text(text)).to_be_visible()
    assert inside.get_by_role("button").count() == 0
    page.context.close()
