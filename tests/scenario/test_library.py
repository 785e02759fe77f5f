"""What docs/guide/library.md promises to programs: the example, the asyncio recipe, how often progress comes."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import espwire
from espwire.device.backends.stub import WriteTransfer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs/examples/two_boards.py"
GUIDE = ROOT / "docs/guide/library.md"


def recipe() -> dict[str, Any]:
    """The names of the asyncio recipe, as it stands in the guide."""
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.S)
        if "to_thr" in block
    )
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile("from __future__ import annotations\n" + code, str(GUIDE), "exec"), names)
    return names


def test_the_recipe_of_streams_does_what_it_says() -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.S)
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if "open_write" in block), names)
    assert names["copy"] == b"".join(bytes([number]) * 4096 for number in range(3))


def test_streams_need_our_stub_and_stop_what_was_left_open() -> None:
    with espwire.connect("virtual:esp32c3", stub=False) as device:
        with pytest.raises(espwire.Unsupported):
            espwire.open_write(device, 0, 4096)
        with pytest.raises(espwire.Unsupported):
            espwire.open_read(device, 0, 4096)
        assert device.use_stub()
        with espwire.open_write(device, 0, 4096, stream_size=20) as transfer:
            transfer.send(b"x")
        assert isinstance(transfer, WriteTransfer)
        assert not transfer.finished
        assert b"".join(espwire.open_read(device, 0, 5000)) == b"\xff" * 5000


def test_the_example_flashes_one_board_and_stops_the_other() -> None:
    assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 60
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    lines = done.stdout.splitlines()
    assert not done.stderr
    assert "virtual:esp32c3 ESP32-C3" in lines[-2]
    assert "is flashed and verified" in lines[-2]
    assert lines[-1] == "virtual:esp32 stopped; its flash is half written"
    assert "virtual:esp32c3: 100 %" in lines
    percents = [int(line.split()[-2]) for line in lines if line.startswith("virtual:esp32: ")]
    assert percents[0] == 0
    assert 50 <= percents[-1] < 70


@pytest.mark.parametrize("baud", [115200, 921600])
@pytest.mark.parametrize("chip", ["esp32c3", "esp8266"])
def test_progress_comes_at_most_twenty_times_a_second_of_the_links_clock(
    chip: str, baud: int
) -> None:
    seen: list[tuple[float, espwire.Progress]] = []
    with espwire.connect(
        f"virtual:{chip}?size=4MB&profile=instant", baud=baud, stub=False
    ) as device:

        def report(event: espwire.Event) -> None:
            if isinstance(event, espwire.Progress) and event.task == "write":
                seen.append((device.transport.now(), event))

        espwire.write_flash(
            device,
            [espwire.Blob(0x10000, b"abcd" * 0x8000)],
            policy=espwire.Policy(compress=False),
            report=report,
        )
    assert (seen[0][1].done, seen[-1][1].done) == (0, seen[-1][1].total)
    between = [at for at, event in seen if 0 < event.done < event.total]
    assert len(between) > 10
    assert min(b - a for a, b in pairwise(between)) >= 1 / 20 - 1e-9


def test_the_asyncio_recipe_flashes_and_hands_over_events() -> None:
    async def main() -> tuple[str, list[espwire.Event]]:
        events: asyncio.Queue[espwire.Event] = asyncio.Queue()
        mac = await recipe()["flash_async"](
            "virtual:esp32c3?mac=24:6f:28:aa:bb:cc", b"abcd" * 1000, events
        )
        return mac, [events.get_nowait() for _ in range(events.qsize())]

    mac, events = asyncio.run(main())
    assert mac == "24:6f:28:aa:bb:cc"
    assert any(isinstance(event, espwire.Finished) for event in events)


def test_a_cancelled_task_stops_the_thread_and_closes_the_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from espwire.virtual.transport import VirtualTransport

    closed: list[VirtualTransport] = []
    close = VirtualTransport.close
    monkeypatch.setattr(
        VirtualTransport, "close", lambda transport: (closed.append(transport), close(transport))
    )

    async def main() -> None:
        events: asyncio.Queue[espwire.Event] = asyncio.Queue()
        port = "virtual:esp32c3?pace=1"  # in real time: it would take many seconds
        task = asyncio.create_task(recipe()["flash_async"](port, bytes(range(256)) * 4000, events))
        while not isinstance(await events.get(), espwire.Progress):
            pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed

    asyncio.run(asyncio.wait_for(main(), 30))
