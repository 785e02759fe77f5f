// The flash map as a picture: a column to scale. Each area can be selected with mouse or keyboard.
import { formatSize, hex, make, makeSvg } from "./dom.mjs";

const WIDTH = 320, BAR_X = 92, BAR_WIDTH = 72, TEXT_X = 176, ROW = 22, TOP = 8;
const NAMES = { bootloader: "bootloader", table: "partition table", app: "application", data: "data", image: "image", free: "free" };

export const nameArea = (area) => area.name || NAMES[area.kind] || area.kind;

/** Draw `map` (the data of `image map --json`) into `target`; `select(area)` is called for a chosen area. */
export function drawMap(target, map, select) {
  const height = Math.max(260, map.areas.length * ROW + 8);
  const at = (address) => TOP + (height * Math.min(address, map.flash_size)) / map.flash_size;
  const picture = makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${height + 2 * TOP}`, class: "map", role: "group", "aria-label": "Flash map" });
  let below = TOP - ROW / 2; // of the last label
  map.areas.forEach((area, index) => {
    const top = at(area.offset);
    const size = Math.max(1.5, at(area.offset + area.size) - top);
    // labels keep their order and do not overlap; those that follow still fit
    const lowest = TOP + height - (map.areas.length - 1 - index) * ROW - ROW / 2;
    const middle = Math.min(Math.max(top + size / 2, below + ROW), lowest);
    below = middle;
    const used = area.size ? Math.min(1, area.used / area.size) : 0;
    const group = makeSvg(
      "g",
      { class: `area ${area.kind}`, role: "button", tabindex: "0", "aria-pressed": "false", "aria-label": describeArea(area) },
      makeSvg("rect", { class: "blank", x: BAR_X, y: top, width: BAR_WIDTH, height: size }),
      makeSvg("rect", { class: "used", x: BAR_X, y: top, width: BAR_WIDTH * used, height: size }),
      makeSvg("path", { class: "line", d: `M${BAR_X + BAR_WIDTH} ${top + size / 2} L${TEXT_X - 4} ${middle}` }),
      makeSvg("rect", { class: "hit", x: TEXT_X - 4, y: middle - ROW / 2, width: WIDTH - TEXT_X + 4, height: ROW }),
      makeSvg("text", { x: TEXT_X, y: middle + 4 }, `${nameArea(area)}${area.boots ? " ▶" : ""}`),
    );
    const choose = () => {
      for (const other of picture.querySelectorAll(".area")) other.setAttribute("aria-pressed", String(other === group));
      select(area);
    };
    group.addEventListener("click", choose);
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        choose();
      }
    });
    // outside of the group, whose name begins with its visible text
    picture.append(group, makeSvg("text", { class: "address", x: BAR_X - 8, y: middle + 4 }, hex(area.offset)));
  });
  target.replaceChildren(picture);
}

export function describeArea(area) {
  const range = `${hex(area.offset)} to ${hex(area.offset + area.size)}, ${formatSize(area.size)}`;
  const filled = area.kind === "free" ? "" : `, ${Math.round((100 * area.used) / (area.size || 1))} % used`;
  return `${nameArea(area)}: ${range}${filled}${area.boots ? ", boots" : ""}`;
}

/** What there is to know of an area, as a list. */
export function listArea(area) {
  const rows = [
    ["Range", `${hex(area.offset)} to ${hex(area.offset + area.size)}`],
    ["Size", formatSize(area.size)],
    ["Used", `${area.used.toLocaleString("en")} bytes`],
  ];
  if (area.detail) rows.push(["Content", area.detail]);
  if (area.overlaps.length) rows.push(["Overlaps", area.overlaps.join(", ")]);
  return make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}
