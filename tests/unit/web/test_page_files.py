"""Facts that the page's files repeat, because a browser reads them without the engine."""

from __future__ import annotations

import re
from pathlib import Path

from espwire.chips.index import OTG_PRODUCTS
from espwire.transport.serial import ESPRESSIF, SERIAL_JTAG_PRODUCT
from espwire.web.server import POLICY

WEB = Path(__file__).resolve().parents[3] / "web"


def test_the_policy_in_the_page_is_that_of_the_server() -> None:
    text = (WEB / "index.html").read_text(encoding="utf-8")
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert found is not None
    # a page cannot restrict the frames that it is in
    assert f"{found[1]}; frame-ancestors 'none'" == POLICY


def test_the_install_button_knows_the_ports_of_chips_with_native_usb() -> None:
    text = (WEB / "manifest.mjs").read_text(encoding="utf-8")
    products = re.search(r"NATIVE_USB = new Set\(\[(.*?)\]\)", text)
    assert products is not None
    assert {int(each, 0) for each in products[1].split(", ")} == {
        *OTG_PRODUCTS,
        SERIAL_JTAG_PRODUCT,
    }
    assert f"ESPRESSIF = {ESPRESSIF:#x};" in text
