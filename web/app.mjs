// The page: its controls run command lines of espwire in the engine, and show the events.
import { download, find, formatSize, hex, make } from "./dom.mjs";
import { Engine, Outcome, makeError } from "./engine.mjs";
import { askForPort, describe, describeFigures, explainError } from "./events.mjs";
import { drawMap, listArea, nameArea } from "./flash-map.mjs";
import { runPlanned } from "./plan.mjs";
import { SerialPorts, findObstacle } from "./serial.mjs";

const MOST_LINES = 5000; // of log and console
const MOST_BYTES = 256 * 1024 * 1024; // of a file; the engine accepts no more
const began = performance.now();
const serial = new SerialPorts();
const engine = new Engine(serial);
let board = null; // {port, name, chip, number, options}
let chosen = null; // {path, name}: what the user wants to flash
let ofExample = false; // the address is that of the example, not of the user
let links = {};
let watching = false;

// ---- messages, log, progress ----

function showMessage(kind, ...content) {
  const close = make("button", { class: "close", onclick: () => box.remove(), "aria-label": "Close this message" }, "✕");
  const box = make("div", { class: `message ${kind}` }, close, ...content);
  find("messages").append(box);
  box.scrollIntoView({ block: "nearest" });
  return box;
}

const showError = (error) => showMessage("error", ...explainError(error, links[error.code]));

function addLine(target, text, kind = "") {
  const end = target.scrollTop + target.clientHeight >= target.scrollHeight - 8;
  target.append(kind ? make("span", { class: kind }, text) : text);
  while (target.childNodes.length > MOST_LINES) target.firstChild.remove();
  if (end) target.scrollTop = target.scrollHeight;
}

engine.addEventListener("event", ({ detail: event }) => {
  if (event.event === "Output") addLine(find("console"), event.text);
  else if (event.event === "ConsoleNote") addLine(find("console"), `— ${event.text}\n`, "note");
  else if (event.event === "Progress") showProgress(event);
  else {
    const text = describe(event);
    if (text) addLine(find("log"), `${text}\n`);
    if (text && event.event !== "Result" && event.event !== "PlanReady") find("job-text").textContent = text;
  }
});

function showProgress(event) {
  const bar = find("job-progress");
  if (event.percent !== null) bar.value = event.percent;
  find("job-text").textContent = describe(event);
  find("job-figures").textContent = describeFigures(event);
}

// ---- jobs ----

function update() {
  const busy = engine.busy;
  for (const element of document.querySelectorAll("main button, main input, main select")) {
    if (element.closest("[role=tablist], dialog, #job, #messages")) continue;
    if (["console-clear", "console-line", "console-send", "save-log", "disconnect"].includes(element.id)) continue;
    element.disabled = (busy && element.id !== "watch") || (element.dataset.board !== undefined && !board) || (element.dataset.file !== undefined && !chosen);
  }
  find("watch").disabled = !board || (busy && !watching);
  find("disconnect").disabled = busy;
  if (!busy) find("connect").disabled = Boolean(findObstacle());
}

/** Run a task of the engine with the progress bar; errors are shown. */
async function perform(title, work, { consents = false, keep = false } = {}) {
  if (!keep) find("messages").replaceChildren();
  find("job-title").textContent = title;
  find("job-text").textContent = "";
  find("job-figures").textContent = "";
  find("job-progress").removeAttribute("value");
  const focused = document.activeElement; // is disabled by update, and loses the focus
  const running = work();
  find("job").hidden = false;
  find("job").scrollIntoView({ block: "nearest" });
  update();
  try {
    const outcome = await running.catch((error) => new Outcome(makeError("page", error.message, "Choose the file again.")));
    for (const warning of outcome.all?.("Warned") ?? []) showMessage("warning", make("p", {}, warning.text));
    if (outcome.error && !(consents && outcome.needsConsent)) showError(outcome.error);
    return outcome;
  } finally {
    const lost = document.activeElement === document.body || find("job").contains(document.activeElement);
    find("job").hidden = true;
    update();
    if (lost) focused.focus({ preventScroll: true });
  }
}

/** Run a command line on the board. */
const run = (line, title, options) => perform(title, () => engine.run([...portOptions(), ...line]), options);
const runQuietly = (line, title) => run(line, title, { consents: true });

/** Give the engine a file of the user. */
async function store(path, file, options) {
  if (file.size > MOST_BYTES) return new Outcome(makeError("file-size", `${file.name} is too large: ${file.size.toLocaleString("en")} bytes.`, "Choose a file of at most 256 MB."));
  return engine.store(path, new Uint8Array(await file.arrayBuffer()), options);
}

function portOptions() {
  return board ? ["-p", board.port, ...board.options] : [];
}

function showDone(outcome) {
  if (outcome?.result && !outcome.error) showMessage("good", make("p", {}, outcome.result.text));
}

async function planned(line, options) {
  const outcome = await runPlanned(runQuietly, line, options);
  if (outcome?.needsConsent) showError(outcome.error);
  showDone(outcome);
  return outcome;
}

function showText(id, outcome) {
  const target = find(id);
  target.hidden = !outcome.result;
  target.textContent = outcome.result?.text ?? "";
}

// ---- the board ----

function useBoard(next) {
  board = next;
  find("board").hidden = false;
  find("board-name").textContent = board.name;
  find("details").hidden = true;
  find("map").replaceChildren(make("p", { class: "hint" }, "The map shows what each part of the flash contains."));
  find("area").replaceChildren();
  update();
}

find("virtual-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const chip = find("virtual-chip").value, size = find("virtual-size").value;
  const name = find("virtual-chip").selectedOptions[0].textContent;
  useBoard({ port: `virtual:${chip}?flash=/boards/${chip}-${size}.flash&size=${size}`, name: `Virtual ${name}, ${size}`, chip, options: [] });
});

async function choosePort(number) {
  try {
    const port = await serial.choose(number);
    const ids = port.vid === null ? "" : ` (USB ${hex(port.vid)}:${hex(port.pid)})`;
    const baud = find("serial-baud").value;
    const options = baud ? ["-b", baud] : [];
    return { port: `webserial:${port.number}`, name: `Serial port ${port.number}${ids}`, chip: "", number: port.number, options };
  } catch (error) {
    if (error.name !== "NotFoundError") showError({ message: error.message, code: "port", hint: findObstacle() || "Choose the port again." });
    return null; // no port was chosen
  }
}

find("connect").addEventListener("click", async () => {
  const next = await choosePort();
  if (next) useBoard(next);
});

serial.addEventListener("away", ({ detail: { number } }) => {
  if (find("choose-again")) return;
  const box = showMessage("warning", ...askForPort(() => choosePort(number).then(() => box.remove())));
});

serial.addEventListener("back", () => find("choose-again")?.closest(".message").remove());

find("disconnect").addEventListener("click", async () => {
  await serial.disconnect();
  board = null;
  find("board").hidden = true;
  update();
});

find("show-details").addEventListener("click", async () => {
  const outcome = await run(["chip-info"], "Reading chip details");
  if (outcome.result) board.chip = outcome.result.data.chip;
  showText("details", outcome);
});
find("reset-board").addEventListener("click", async () => showDone(await run(["reset"], "Resetting the board")));

function cancel() {
  engine.cancel();
  if (!engine.suspends) showMessage("warning", make("p", {}, "Cancelled. This browser had to start Python again: virtual chips are erased. Choose the file again."));
}
find("cancel").addEventListener("click", cancel);

// ---- flash ----

async function takeFiles(files, address = "") {
  const list = [...files].map((file) => ({ file, name: file.path ?? (file.webkitRelativePath || file.name) }));
  if (!list.length) return;
  chosen = null;
  if (address || ofExample) find("address").value = address;
  ofExample = address !== "";
  await perform("Reading files", async () => {
    await engine.clear();
    let outcome, first;
    for (const { file, name } of list) {
      outcome = await store(name, file);
      if (outcome.error) return outcome;
      first ??= outcome.path;
    }
    const path = list.length === 1 ? first : findBuild(list.map(({ name }) => name));
    chosen = { path, name: list.length === 1 ? list[0].name : `${list.length} files` };
    return outcome;
  });
  if (list.length > 1 || /\.zip$/i.test(list[0].name)) find("address").value = ""; // a build has its own addresses
  showChosen();
  find("chosen").scrollIntoView({ block: "nearest" });
}

function showChosen() {
  find("chosen").textContent = chosen ? `Chosen: ${chosen.name}` : "No file is chosen.";
  update();
}

engine.addEventListener("restart", () => {
  chosen = null;
  showChosen();
});

/** The folder of a build: that of its flasher_args.json, else the one that contains all files. */
function findBuild(names) {
  const args = names.filter((name) => name.endsWith("flasher_args.json")).sort((a, b) => a.length - b.length)[0];
  if (args) return `/files/${args}`;
  const top = names[0].split("/")[0];
  return names.every((name) => name.startsWith(`${top}/`)) ? `/files/${top}` : "/files";
}

async function* walk(entry, path = "") {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    yield Object.assign(file, { path: path + entry.name });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return;
    for (const each of entries) yield* walk(each, `${path}${entry.name}/`);
  }
}

async function takeDropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [];
  for (const entry of entries) for await (const file of walk(entry)) files.push(file);
  await takeFiles(files.length ? files : transfer.files);
}

const drop = find("drop");
for (const [kind, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", over);
    if (kind === "drop" && !engine.busy) takeDropped(event.dataTransfer);
  });
}
// beside it, a dropped file would replace the page
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
for (const id of ["firmware", "folder"]) {
  find(id).addEventListener("change", async (event) => {
    await takeFiles(event.target.files);
    event.target.value = "";
  });
}
find("example").addEventListener("click", async () => {
  const reply = await fetch(new URL("esp32c3-hello.bin", import.meta.url));
  await takeFiles([new File([await reply.arrayBuffer()], "esp32c3-hello.bin")], "0x0");
});

function firmwareLine(raw, file) {
  const address = find("address").value.trim();
  return address ? [raw, address, chosen.path] : [file, chosen.path];
}

find("flash").addEventListener("click", async () => {
  const more = find("erase-all").checked ? ["--erase-all"] : [];
  await planned([...firmwareLine("write-flash", "flash"), ...more], { title: `Flash ${chosen.name}`, action: "Flash" });
});
find("verify").addEventListener("click", async () => {
  const build = !find("address").value.trim(); // whose plan lists what the flash does not hold
  const outcome = await run([...firmwareLine("verify-flash", "flash"), ...(build ? ["--dry-run"] : [])], "Verifying");
  if (!build || !outcome.result || outcome.error) return showDone(outcome);
  const missing = outcome.all("PlanReady").flatMap((plan) => plan.actions).filter(({ kind }) => kind === "write" || kind === "erase");
  if (!missing.length) return showMessage("good", make("p", {}, `Done: the flash contains ${chosen.name}.`));
  const list = missing.map(({ address, size, name }) => make("li", {}, `${name ?? "erased flash"} at ${hex(address)}, ${formatSize(size)}`));
  showMessage("error", make("p", {}, make("strong", {}, `The flash does not contain ${chosen.name}. These parts differ:`)), make("ul", {}, ...list));
});

// ---- flash map ----

async function readMap(options) {
  const outcome = await run(["image", "map"], "Reading the flash map", options);
  if (outcome.result) drawMap(find("map"), outcome.result.data, showArea);
  find("area").replaceChildren();
}
find("read-map").addEventListener("click", () => readMap());

/** Run a command that changes the flash, then read the map; the messages of both are shown. */
async function change(line, options) {
  if (await planned(line, options)) await readMap({ keep: true });
}

find("erase-flash").addEventListener("click", async () => {
  await change(["erase-flash"], { title: "Erase the whole flash", action: "Erase", danger: true });
});

function showArea(area) {
  const range = [hex(area.offset), hex(area.size)];
  const name = nameArea(area);
  const picker = make("input", { type: "file" });
  picker.addEventListener("change", async () => {
    const [file] = picker.files;
    picker.value = "";
    if (!file) return;
    const { path, error } = await perform(`Reading ${file.name}`, () => store(`area/${file.name}`, file, { unpack: false }));
    if (error) return;
    await change(["write-flash", range[0], path], { title: `Write ${file.name} to ${name}`, action: "Write" });
  });
  const read = make("button", {}, "Download");
  read.onclick = async () => {
    const path = "/read.bin";
    const outcome = await run(["read-flash", ...range, path], `Reading ${name}`);
    if (outcome.result) download(`${name}-${range[0]}.bin`.replace(/[^\w.-]+/g, "-"), await engine.load(path));
  };
  const erase = make("button", { class: "danger" }, "Erase…");
  erase.onclick = async () => {
    await change(["erase-region", ...range], { title: `Erase ${name}`, action: "Erase", danger: true });
  };
  find("area").replaceChildren(
    make("h3", {}, name),
    listArea(area),
    make("p", { class: "row" }, read, make("label", { class: "file" }, "Write a file…", picker), erase),
  );
}

// ---- backup, partitions, security ----

find("backup").addEventListener("click", async () => {
  const path = `backup-${board.chip || "board"}.zip`;
  const outcome = await run(["backup", path], "Backing up the flash");
  if (!outcome.result) return;
  download(path, await engine.load(path));
  showDone(outcome);
});
find("restore").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  const { path, error } = await perform(`Reading ${file.name}`, () => store(`restore/${file.name}`, file, { unpack: false }));
  if (!error) await planned(["restore", path], { title: `Restore ${file.name}`, action: "Restore" });
});
find("show-partitions").addEventListener("click", async () => showText("partitions", await run(["partitions", "show"], "Reading the partition table")));
find("show-ota").addEventListener("click", async () => showText("partitions", await run(["ota", "status"], "Reading the OTA data")));
find("ota-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const slot = find("slot").value.trim();
  await planned(["ota", "switch", slot], { title: `Boot ${slot} next`, action: "Select" });
});
find("show-security").addEventListener("click", async () => showText("security", await run(["secure", "status"], "Reading the security status")));
find("show-efuses").addEventListener("click", async () => showText("security", await run(["efuse", "summary"], "Reading the eFuses")));

// ---- console ----

find("watch").addEventListener("click", async () => {
  if (watching) {
    cancel();
    return;
  }
  watching = true;
  find("watch").textContent = "Stop";
  for (const id of ["console-line", "console-send"]) find(id).disabled = false;
  const options = { baud: Number(find("console-baud").value), reset: find("console-reset").checked, chip: board.chip };
  find("messages").replaceChildren();
  const running = engine.watch(board.port, options);
  update();
  const outcome = await running;
  watching = false;
  find("watch").textContent = "Start";
  for (const id of ["console-line", "console-send"]) find(id).disabled = true;
  if (outcome.error) showError(outcome.error);
  update();
});
find("console-clear").addEventListener("click", () => find("console").replaceChildren());
find("console-form").addEventListener("submit", (event) => {
  event.preventDefault();
  engine.type(`${find("console-line").value}\r`);
  find("console-line").value = "";
});

// ---- inspector, log ----

find("inspect").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  const outcome = await perform(`Inspecting ${file.name}`, async () => {
    const stored = await store(`inspect/${file.name}`, file);
    return stored.error ? stored : engine.run(["image-info", stored.path]);
  });
  showText("inspected", outcome);
});
find("save-log").addEventListener("click", () => download("espwire-log.txt", new TextEncoder().encode(find("log").textContent)));

// ---- tabs ----

const tabs = [...document.querySelectorAll("[role=tab]")];
function showTab(tab) {
  for (const each of tabs) {
    const selected = each === tab;
    each.setAttribute("aria-selected", String(selected));
    each.tabIndex = selected ? 0 : -1;
    find(each.getAttribute("aria-controls")).hidden = !selected;
  }
}
for (const tab of tabs) tab.addEventListener("click", () => showTab(tab));
find("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
  next.focus();
  showTab(next);
});

// ---- start ----

window.addEventListener("beforeunload", (event) => {
  if (engine.busy && !watching) event.preventDefault(); // the browser asks whether to leave
});

async function start() {
  const obstacle = findObstacle();
  if (obstacle) find("serial-hint").textContent = obstacle;
  const state = find("engine-state");
  try {
    links = await fetch(new URL("links.json", import.meta.url)).then((reply) => reply.json());
    const started = await engine.ready;
    const chips = await engine.run(["chips"]);
    find("virtual-chip").replaceChildren(
      ...chips.result.data.chips.map((chip) => make("option", { value: chip.id, ...(chip.id === "esp32c3" ? { selected: true } : {}) }, chip.name)),
    );
    find("version").textContent = started.version;
    state.textContent = "Ready.";
    const usable = performance.now() - began;
    document.body.dataset.ready = JSON.stringify({ python: started.python, espwire: started.espwire, usable });
    update();
  } catch (error) {
    state.textContent = "";
    showError({ message: `The page could not be started: ${error.message}`, code: "start", hint: "Reload the page, or use a newer browser." });
  }
}
update();
start();
