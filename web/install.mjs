// <espwire-install manifest="manifest.json">: a button that installs firmware. It is also <esp-web-install-button>, and
// reads the manifests of ESP Web Tools. The engine is loaded when the button is used.
import { make } from "./dom.mjs";
import { Engine } from "./engine.mjs";
import { askForPort } from "./events.mjs";
import { Panel } from "./install-panel.mjs";
import { Refusal, checkSites, findBuilds, listFamilies, loadManifest, loadParts } from "./manifest.mjs";
import { ask, runPlanned } from "./plan.mjs";
import { SerialPorts, findObstacle, listCauses } from "./serial.mjs";

const BAUD = "460800";
const GUIDE = "web.md#a-button-for-your-own-site";
const CODES = ["manifest", "not-loaded", "other-site", "no-build", "install-start"]; // of errors that the guide's section explains
// a constructed style sheet needs no style-src
const style = new CSSStyleSheet();
style.replaceSync(`
:host { display: inline-block; }
[hidden] { display: none; }
button, select { font: inherit; border-radius: 6px; border: 1px solid GrayText; padding: .4rem 1rem; min-height: 2.4rem; max-width: 100%; cursor: pointer; }
button.primary, .install { color: var(--esp-tools-button-text-color, #fff); background: var(--esp-tools-button-color, #0b6b7d); border-color: transparent; }
.install { border-radius: var(--esp-tools-button-border-radius, 6px); }
button.danger { color: #fff; background: #b3261e; border-color: transparent; }
:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
dialog { font: 16px/1.5 system-ui, sans-serif; text-align: start; color: CanvasText; background: Canvas; border: 1px solid GrayText; border-radius: 10px; max-width: min(40rem, calc(100vw - 2rem)); width: 100%; padding: 1rem 1.25rem; box-sizing: border-box; overflow-wrap: anywhere; }
dialog::backdrop { background: #0008; }
h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: .5rem 0 .25rem; }
p { margin: .5rem 0; }
progress { width: 100%; height: 1rem; }
.buttons { display: flex; justify-content: flex-end; gap: .75rem; margin-top: 1rem; }
.message { border: 1px solid GrayText; border-left: 4px solid #b3261e; border-radius: 6px; padding: .25rem 1rem; margin: .75rem 0; }
.message.good { border-left-color: #0b6b7d; }
.message.warning { border-left-color: #a06a00; }
pre { white-space: pre-wrap; max-height: 20rem; overflow: auto; }
pre, code { font-family: ui-monospace, monospace; font-size: .85rem; }
fieldset { border: 1px solid #b3261e; border-radius: 6px; }
label { display: flex; gap: .5rem; align-items: flex-start; margin: .5rem 0; }
`);

const serial = new SerialPorts();
let engine = null;
let panel = null; // of the installation that is under way
let links = null;

async function loadLinks() {
  const reply = await fetch(new URL("links.json", import.meta.url)).catch(() => null);
  const ofEngine = reply?.ok ? await reply.json() : {};
  return { ...ofEngine, ...Object.fromEntries(CODES.map((code) => [code, GUIDE])) };
}

async function startEngine() {
  try {
    if (!engine) {
      engine = new Engine(serial);
      engine.addEventListener("event", ({ detail }) => panel?.show(detail));
    }
    await engine.ready;
    return engine;
  } catch (error) {
    engine = null;
    throw new Refusal(
      "install-start",
      `Python could not be started: ${error.message}`,
      "Reload the page, or use a newer browser. The owner of this page must host the whole folder of espwire on the same site as the page.",
    );
  }
}

function choosePort(number) {
  return serial.choose(number).catch((error) => {
    if (error.name === "NotFoundError") {
      throw new Refusal("no-port", "No port was chosen.", "If the list does not contain your board: use a USB cable that carries data, and install the driver of the board's USB bridge.");
    }
    throw new Refusal("port", error.message, findObstacle() || listCauses());
  });
}

serial.addEventListener("away", ({ detail: { number } }) => {
  if (!panel || panel.home.getElementById("choose-again")) return;
  const box = panel.showMessage("warning", ...askForPort(() => choosePort(number).then(() => box.remove(), () => {})));
});

serial.addEventListener("back", () => panel?.stopAsking());

/** Ask which build to install and whether to erase the flash first: {build, erase}, or null if the user cancelled. */
async function askChoices(home, manifest, builds, chip) {
  if (builds.length === 1 && !manifest.offersErase) return { build: builds[0], erase: false };
  const options = builds.map((build, index) => make("option", { value: String(index) }, build.label));
  const erase = make("label", {}, make("input", { type: "checkbox", name: "erase" }), "Erase the whole flash first. This deletes all settings and data on the board.");
  const content = [
    make("p", {}, `The board has an ${chip}.`),
    ...(builds.length > 1 ? [make("label", {}, "Build", make("select", { name: "build" }, ...options))] : []),
    ...(manifest.offersErase ? [erase] : []),
  ];
  const form = await ask(`Install ${manifest.title}`, content, "Show plan…", { home });
  return form && { build: builds[Number(form.get("build") ?? 0)], erase: form.has("erase") };
}

/** One installation in its dialog. */
class Installation {
  #options = [];

  constructor(shown, port, address, baud) {
    Object.assign(this, { shown, port, address });
    this.#options = ["-p", `webserial:${port.number}`, "-b", baud];
  }

  /** Run a command line; errors are shown, but not those that the user can consent to. */
  async #run(line, title) {
    this.shown.signal.throwIfAborted();
    this.shown.step(title);
    const outcome = await engine.run([...this.#options, ...line]);
    if (!outcome.needsConsent) this.#showEnd(outcome);
    return outcome;
  }

  #showEnd({ error }) {
    if (error?.code === "cancelled") this.shown.cancel();
    else if (error) this.shown.showError(error);
  }

  async #findChip() {
    const outcome = await this.#run(["chip-info"], "Connecting to the board");
    if (!outcome.result || outcome.error) return null;
    const { chip } = outcome.result.data;
    this.#options.push("--chip", chip);
    return { chip, name: outcome.all("ChipFound").at(-1)?.chip ?? chip };
  }

  async #storeParts(build) {
    this.shown.step("Loading the firmware");
    await engine.clear();
    const pairs = [];
    for (const { offset, name, data } of await loadParts(build, this.shown.signal)) {
      const outcome = await engine.store(name, data, { unpack: false });
      if (outcome.error) throw new Refusal(outcome.error.code, outcome.error.message, outcome.error.hint);
      pairs.push(`0x${offset.toString(16)}`, outcome.path);
    }
    return pairs;
  }

  async run() {
    const { shown } = this;
    shown.step("Reading the manifest");
    const manifest = await loadManifest(this.address, shown.signal);
    const title = `Install ${manifest.title}`;
    shown.title = title;
    await checkSites(manifest, shown.signal);
    shown.step("Loading Python. The first visit loads 10 MB.");
    await shown.wait(startEngine());
    shown.signal.addEventListener("abort", () => engine.busy && engine.cancel());
    const found = await this.#findChip();
    if (!found) return;
    const builds = findBuilds(manifest, found.chip, this.port);
    if (!builds.length) {
      throw new Refusal("no-build", `This firmware has no build for the ${found.name} on this board. Nothing was written.`, `It has builds for: ${listFamilies(manifest)}.`);
    }
    const choice = await askChoices(shown.home, manifest, builds, found.name);
    if (!choice) {
      shown.close();
      return;
    }
    const line = ["write-flash", ...(await this.#storeParts(choice.build)), ...(choice.erase ? ["--erase-all"] : [])];
    const outcome = await runPlanned((...values) => this.#run(...values), line, { title, action: "Install", danger: choice.erase, home: shown.home });
    for (const warning of outcome?.all("Warned") ?? []) shown.showMessage("warning", make("p", {}, warning.text));
    if (outcome?.needsConsent) shown.showError(outcome.error);
    if (outcome?.result && !outcome.error) shown.showMessage("good", make("p", {}, `${manifest.title} is installed. `, outcome.result.text));
  }
}

class EspwireInstall extends HTMLElement {
  static isSupported = "serial" in navigator;
  static isAllowed = window.isSecureContext;

  get manifest() {
    return this.getAttribute("manifest") ?? "";
  }

  set manifest(address) {
    this.setAttribute("manifest", address);
  }

  connectedCallback() {
    if (this.shadowRoot) return;
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [style];
    const obstacle = findObstacle();
    this.toggleAttribute(obstacle ? "install-unsupported" : "install-supported", true);
    if (!window.isSecureContext) root.append(make("slot", { name: "not-allowed" }, obstacle));
    else if (!navigator.serial) root.append(make("slot", { name: "unsupported" }, "This browser cannot use serial ports. Use Chrome or Edge on a computer."));
    else if (obstacle) root.append(make("p", {}, obstacle));
    else root.append(make("slot", { name: "activate", onclick: (event) => this.#start(event) }, make("button", { type: "button", class: "install", part: "button" }, "Install")));
  }

  /** The page has removed the button, and its dialogs with it: this cancels the work. */
  disconnectedCallback() {
    for (const dialog of this.shadowRoot?.querySelectorAll("dialog") ?? []) dialog.close();
  }

  async #start(event) {
    event.preventDefault();
    if (panel) return;
    const chosen = await choosePort().catch((error) => ({ error })); // first: the browser demands a click
    if (panel) return;
    links ??= await loadLinks();
    const shown = (panel = new Panel(this.shadowRoot, links));
    try {
      if (chosen.error) throw chosen.error;
      await new Installation(shown, chosen, this.manifest, this.getAttribute("baud") ?? BAUD).run();
    } catch (error) {
      if (!shown.signal.aborted) shown.showError(error instanceof Refusal ? error : { message: String(error), code: "install", hint: "Reload the page." });
    } finally {
      if (shown.signal.aborted) shown.showMessage("warning", make("p", {}, "Cancelled."));
      await serial.disconnect();
      shown.finish();
      panel = null;
    }
  }
}

for (const name of ["espwire-install", "esp-web-install-button"]) {
  if (!customElements.get(name)) customElements.define(name, class extends EspwireInstall {});
}
