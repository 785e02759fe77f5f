"""Figures of the page for docs/evidence: start from the browser's cache, throughput, long tasks. By hand: `-m soak -s`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from observed import Observed

pytestmark = pytest.mark.soak

FLASH = """async () => {
  const { Engine } = await import("./engine.mjs");
  const engine = new Engine();
  await engine.ready;
  const port = "virtual:esp32c3?profile=instant";
  const data = new Uint8Array(1 << 20);
  for (let at = 0; at < data.length; at += 65536) crypto.getRandomValues(data.subarray(at, at + 65536));
  const { path } = await engine.store("data.bin", data);
  const tasks = [];
  const observer = new PerformanceObserver((list) => tasks.push(...list.getEntries().map((each) => each.duration)));
  observer.observe({ entryTypes: ["longtask"] });
  const times = [];
  let events = 0;
  engine.addEventListener("event", () => events++);
  for (let run = 0; run < 3; run++) {
    const start = performance.now();
    const outcome = await engine.run(["-p", port, "write-flash", "0x10000", path]);
    if (outcome.code) throw new Error(outcome.error.message);
    const at = (event, task) => outcome.events.find((each) => each.event === event && (!task || each.task === task)).time;
    times.push({ all: performance.now() - start, write: at("Finished", "write") - at("PlanReady") });
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  return { times, tasks, events };
}"""


def test_start_from_the_cache(observed: Observed) -> None:
    page = observed.page
    for _ in range(3):
        page.reload()
        page.wait_for_selector("body[data-ready]", timeout=120_000)
        figures = json.loads(page.evaluate("() => document.body.dataset.ready"))
        print(
            {name: round(value) for name, value in figures.items()}, "ms, load", os.getloadavg()[0]
        )
    assert figures["usable"] <= figures["python"] + 1500


def test_throughput_and_long_tasks(observed: Observed) -> None:
    figures = observed.page.evaluate(FLASH)
    rates = [2**20 / 1000 / each["write"] for each in figures["times"]]
    print([f"{rate:.0f} KB/s" for rate in rates], figures, "load", os.getloadavg()[0])
    assert max(rates) >= 400
    assert max(figures["tasks"], default=0) <= 100
