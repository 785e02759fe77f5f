"""The page with virtual chips: flash, map, consents, read back, inspect, console, cancel, hostile names."""

from __future__ import annotations

import io
import json
import urllib.request
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from espwire.chips.registry import load_chip
from espwire.image.codec import build, create_image
from espwire.image.model import Segment
from espwire.image.partition_table import Partition, PartitionTable, build_table

if TYPE_CHECKING:
    from observed import Observed
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
BUILDS = ROOT / "tests/data/builds"
RAM = {"esp32c3": 0x40380000, "esp32": 0x40080000, "esp8266": 0x40100000}


def build_image(chip: str, size: int = 512) -> bytes:
    model = load_chip(chip)
    return build(create_image([Segment(RAM[chip], bytes(size))], RAM[chip], chip=model))


def file(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def build_merged(chip: str, names: tuple[str, str, str] = ("nvs", "factory", "data")) -> bytes:
    """A merged image of boot loader, partition table and application."""
    model = load_chip(chip)
    table = build_table(
        PartitionTable(
            (
                Partition(names[0], 1, 2, 0x9000, 0x6000),
                Partition(names[1], 0, 0, 0x10000, 0x100000),
                Partition(names[2], 1, 0x82, 0x110000, 0x10000),
            )
        )
    )
    image = build_image(chip)
    start = model.flash.bootloader_offset
    merged = bytearray(b"\xff" * (0x10000 + len(image)))
    for offset, data in ((start, image), (0x8000, table), (0x10000, image)):
        merged[offset : offset + len(data)] = data
    return bytes(merged)


def build_uf2(data: bytes, address: int, family: int) -> bytes:
    """As the format's specification describes it; written here, not by espwire."""
    chunks = [data[at : at + 256] for at in range(0, len(data), 256)]
    blocks = []
    for number, chunk in enumerate(chunks):
        words = (0x0A324655, 0x9E5D5157, 0x2000, address + 256 * number, len(chunk))
        words = (*words, number, len(chunks), family)
        head = b"".join(word.to_bytes(4, "little") for word in words)
        blocks.append(head + chunk.ljust(476, b"\0") + (0x0AB16F30).to_bytes(4, "little"))
    return b"".join(blocks)


def build_zip(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.writestr(path.relative_to(folder).as_posix(), path.read_bytes())
    return content.getvalue()


def use_chip(page: Page, chip: str, size: str = "4MB") -> None:
    page.select_option("#virtual-chip", chip)
    page.select_option("#virtual-size", size)
    page.click("#use-virtual")


def choose(page: Page, name: str, data: bytes) -> None:
    from playwright.sync_api import expect

    page.click("#tab-flash")
    page.fill("#address", "")
    page.set_input_files("#firmware", file(name, data))
    expect(page.locator("#chosen")).to_have_text(f"Chosen: {name}")
    expect(page.locator("#job")).to_be_hidden()


def flash(page: Page) -> str:
    """Show the plan and carry it out; the text of the plan."""
    page.click("#flash")
    dialog = page.locator("dialog")
    plan = dialog.inner_text()
    dialog.locator("button[type=submit]").click()
    page.wait_for_selector(".message.good")
    return plan


def read_map(page: Page) -> list[str]:
    """Read the map; the labels of its areas."""
    page.click("#tab-map")
    page.click("#read-map")
    page.wait_for_selector("#map svg")
    from playwright.sync_api import expect

    expect(page.locator("#job")).to_be_hidden()
    return page.locator("#map .area text").all_text_contents()


def read_area(page: Page, index: int) -> bytes:
    page.locator("#map .area").nth(index).press("Enter")
    with page.expect_download() as download:
        page.locator("#area button", has_text="Download").click()
    return Path(download.value.path()).read_bytes()


def test_a_merged_image_is_flashed_after_its_plan_and_read_back(page: Page) -> None:
    use_chip(page, "esp32c3")
    assert read_map(page) == ["free"]
    data = build_merged("esp32c3")
    choose(page, "merged.bin", data)
    assert "merged.bin" in flash(page)
    labels = read_map(page)
    assert [label for label in labels if label != "free"] == [
        *("bootloader", "partition table", "nvs", "factory ▶", "data")
    ]
    got = read_area(page, labels.index("factory ▶"))
    assert got[: len(data) - 0x10000] == data[0x10000:]
    assert set(got[len(data) - 0x10000 :]) == {0xFF}


def test_a_uf2_file_is_flashed_to_an_esp32(page: Page) -> None:
    use_chip(page, "esp32", "1MB")
    data = build_image("esp32")
    choose(page, "app.uf2", build_uf2(data, 0x10000, load_chip("esp32").image.uf2_family or 0))
    assert "0x10000" in flash(page)
    assert read_map(page) == [
        "free"
    ]  # without a partition table, an application belongs to nothing
    assert read_area(page, 0)[0x10000:][: len(data)] == data


def test_a_zip_of_a_build_is_flashed_to_an_esp8266(page: Page) -> None:
    use_chip(page, "esp8266", "1MB")
    folder = BUILDS / "arduino-esp8266"
    choose(page, "build.zip", build_zip(folder))
    plan = flash(page)
    assert "Blink.ino.bin" in plan
    (binary,) = folder.rglob("*.bin")
    read_map(page)
    assert read_area(page, 0)[: binary.stat().st_size] == binary.read_bytes()


def test_the_wrong_chip_is_refused_until_the_user_consents(page: Page) -> None:
    use_chip(page, "esp32c3", "2MB")
    choose(page, "other.bin", build_merged("esp32"))
    page.click("#flash")
    dialog = page.locator("dialog")
    assert "other.bin is for esp32, not for esp32c3" in dialog.inner_text()
    for consent in ("wrong-chip-image", "wrong-offset"):
        dialog.locator(f"input[value={consent}]").check()
    dialog.locator("button[type=submit]").click()
    page.wait_for_selector("dialog .plan")
    page.locator("dialog button[type=submit]").click()
    page.wait_for_selector(".message.good")


def test_a_build_is_verified_without_the_address_of_the_example(page: Page) -> None:
    from playwright.sync_api import expect

    use_chip(page, "esp32c3", "8MB")
    page.click("#tab-flash")
    page.click("#example")
    expect(page.locator("#address")).to_have_value("0x0")
    page.set_input_files("#firmware", file("build.zip", build_zip(BUILDS / "esp-idf")))
    expect(page.locator("#address")).to_have_value("")
    page.click("#verify")
    missing = page.locator(".message.error")
    missing.wait_for()
    assert "hello_world.bin at 0x10000, 160 bytes" in missing.inner_text()
    flash(page)
    page.click("#verify")
    expect(page.locator(".message.good")).to_contain_text("the flash contains build.zip")


def test_hints_do_not_name_options_of_the_command_line(page: Page) -> None:
    from playwright.sync_api import expect

    use_chip(page, "esp32c3", "8MB")
    choose(page, "app.bin", build_image("esp32c3"))
    page.click("#flash")
    expect(page.locator(".message.error")).to_contain_text("enter its address")
    choose(page, "other.uf2", build_uf2(build_image("esp32"), 0x10000, 0x1C5F21B0))
    page.click("#flash")
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("Use a build for esp32c3")
    assert "--" not in dialog.inner_text()
    page.keyboard.press("Escape")


def test_the_result_of_an_erase_stays_when_the_map_is_read_again(page: Page) -> None:
    from playwright.sync_api import expect

    use_chip(page, "esp32c3", "8MB")
    labels = read_map(page)
    page.locator("#map .area").nth(len(labels) - 1).press("Enter")
    page.locator("#area button", has_text="Erase").click()
    page.locator("dialog button[type=submit]").click()
    expect(page.locator("#area")).to_be_empty()  # the map was read
    expect(page.locator(".message.good")).to_contain_text("erased")


def test_a_backup_is_restored_to_another_chip_after_consent(page: Page) -> None:
    from playwright.sync_api import expect

    use_chip(page, "esp32c3", "1MB")
    data = build_image("esp32c3")
    choose(page, "app.bin", data)
    page.fill("#address", "0x20000")
    flash(page)
    page.click("#tab-backup")
    with page.expect_download() as download:
        page.click("#backup")
    backup = Path(download.value.path()).read_bytes()
    expect(page.locator(".message.good")).to_contain_text("saved in backup-esp32c3.zip")
    use_chip(page, "esp32", "1MB")
    page.set_input_files("#restore", file("mine.zip", backup))
    expect(page.locator(".message.error")).to_contain_text("the backup is of an esp32c3")
    page.set_input_files("#restore", file("mine.zip", b"PK"))
    expect(page.locator(".message.error")).to_contain_text("mine.zip is not a usable backup")
    use_chip(page, "esp32c3", "8MB")
    page.set_input_files("#restore", file("mine.zip", backup))
    page.locator("dialog input[value=other-chip]").check()
    page.locator("dialog button[type=submit]").click()
    page.wait_for_selector("dialog .plan")
    page.locator("dialog button[type=submit]").click()
    expect(page.locator(".message.good")).to_contain_text("restored and verified")
    read_map(page)
    assert read_area(page, 0)[0x20000:][: len(data)] == data


def test_the_focus_returns_and_messages_are_in_view_on_a_narrow_screen(page: Page) -> None:
    from playwright.sync_api import expect

    page.set_viewport_size({"width": 375, "height": 600})
    use_chip(page, "esp32c3", "2MB")
    choose(page, "merged.bin", build_merged("esp32c3"))
    page.focus("#flash")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog .plan")
    page.locator("dialog button[type=submit]").press("Enter")
    expect(page.locator(".message.good")).to_be_in_viewport()
    expect(page.locator("#flash")).to_be_focused()
    page.set_viewport_size({"width": 1200, "height": 900})


def test_a_file_is_inspected_without_a_board(page: Page) -> None:
    from playwright.sync_api import expect

    page.click("#tab-inspect")
    page.set_input_files("#inspect", file("image.bin", build_image("esp32c3")))
    expect(page.locator("#inspected")).to_contain_text("Image for ESP32-C3")


def test_an_error_has_a_hint_and_a_link(page: Page) -> None:
    use_chip(page, "esp32c3", "1MB")
    page.click("#tab-partitions")
    page.click("#show-partitions")
    message = page.locator(".message.error")
    message.wait_for()
    assert "no-partition-table" in message.inner_text()
    assert "Flash a build that contains a partition table first" in message.inner_text()


def test_the_console_explains_the_boot_and_stops(page: Page) -> None:
    from playwright.sync_api import expect

    use_chip(page, "esp32c3", "8MB")
    page.click("#tab-console")
    page.click("#watch")
    expect(page.locator("#console")).to_contain_text("boot:0xd (SPI_FAST_FLASH_BOOT)")
    expect(page.locator("#console .note").first).to_have_text("— virtual:esp32c3 at 115200 baud\n")
    expect(page.locator("#console .note", has_text="start from flash")).to_be_visible()
    page.click("#watch")
    expect(page.locator("#watch")).to_have_text("Start")


def test_hostile_names_and_output_are_only_text(observed: Observed) -> None:
    page = observed.page
    use_chip(page, "esp32c3", "4MB")
    choose(page, "merged.bin", build_merged("esp32c3", ("<b>x</b>", "<i>\x1b[31m", "'\"&<svg>")))
    flash(page)
    labels = read_map(page)
    assert "<b>x</b>" in labels
    assert page.locator("#map b, #area b, #map img").count() == 0
    assert "\x1b" not in page.inner_text("#log")


def test_a_job_is_cancelled_without_shared_memory(page: Page) -> None:
    from playwright.sync_api import expect

    assert page.evaluate("() => self.crossOriginIsolated") is False
    page.evaluate(
        """async () => {
          const { Engine } = await import("./engine.mjs");
          self.second = new Engine();
          await self.second.ready;
        }"""
    )
    code = page.evaluate(
        """async () => {
          const port = "virtual:esp32c3?profile=slow&pace=1";
          const running = self.second.run(["-p", port, "erase-flash"]);
          setTimeout(() => self.second.cancel(), 700);
          const outcome = await running;
          return [outcome.code, outcome.error.code];
        }"""
    )
    assert code == [130, "cancelled"]
    expect(page.locator("#job")).to_be_hidden()


def test_the_page_requests_nothing_from_elsewhere(observed: Observed, address: str) -> None:
    foreign = [url for url in observed.requests if not url.startswith((address, "blob:", "data:"))]
    assert foreign == []
    assert observed.problems == []


def test_the_tabs_work_with_the_keyboard(page: Page) -> None:
    page.focus("#tab-flash")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("() => document.activeElement.id") == "tab-log"
    assert page.is_visible("#panel-log")
    assert json.loads(page.evaluate("() => document.body.dataset.ready"))["python"] > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 375])
def test_axe_finds_no_serious_violation(page: Page, scheme: Any, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    axe = (ROOT / "build/web-npm/node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")
    page.evaluate(axe)  # the debugger's protocol, which the policy of the page does not concern
    for tab in page.locator("[role=tab]").all():
        tab.click()
        found = page.evaluate("async () => (await axe.run()).violations")
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_the_first_visit_transfers_10_megabytes_at_most(observed: Observed, address: str) -> None:
    total = 0
    for url in sorted({url for url in observed.requests if url.startswith(address)}):
        request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request) as reply:
            total += len(reply.read())
    assert 8_000_000 < total <= 10_000_000
