// The dialog that shows an installation.
import { make } from "./dom.mjs";
import { describe, describeFigures, explainError } from "./events.mjs";

export class Panel {
  #heading = make("h2", { id: "install-title" }, "Install");
  #status = make("p", { role: "status" });
  #bar = make("progress", { max: "100", "aria-labelledby": "install-title" });
  #figures = make("p", { class: "hint" });
  #messages = make("div", { role: "alert" });
  #button = make("button", { type: "button", onclick: () => (this.#working ? this.cancel() : this.#dialog.close()) }, "Cancel");
  #dialog;
  #working = true;
  #abort = new AbortController();
  #links;

  /** @param links sections of the guide by error id */
  constructor(home, links) {
    this.home = home;
    this.#links = links;
    this.#dialog = make("dialog", { "aria-labelledby": "install-title" }, this.#heading, this.#status, this.#bar, this.#figures, this.#messages, make("p", { class: "buttons" }, this.#button));
    this.#dialog.addEventListener("cancel", (event) => {
      if (!this.#working) return;
      event.preventDefault(); // Escape cancels the work first
      this.cancel();
    });
    this.#dialog.addEventListener("close", () => {
      if (this.#working) this.cancel();
      this.#dialog.remove();
    });
    home.append(this.#dialog);
    this.#dialog.showModal();
  }

  /** Aborted when the user cancels. */
  get signal() {
    return this.#abort.signal;
  }

  set title(text) {
    this.#heading.textContent = text;
  }

  cancel() {
    this.#abort.abort();
  }

  close() {
    this.#working = false;
    this.#dialog.close();
  }

  /** The result of a promise, unless the user cancels before. */
  wait(promise) {
    return Promise.race([
      promise,
      new Promise((_, reject) => this.signal.addEventListener("abort", () => reject(this.signal.reason), { once: true })),
    ]);
  }

  step(text) {
    this.#status.textContent = text;
    this.#figures.textContent = "";
    this.#bar.removeAttribute("value");
  }

  show(event) {
    const text = event.event === "Result" || event.event === "PlanReady" ? "" : describe(event);
    if (text && text !== this.#status.textContent) this.#status.textContent = text;
    if (event.event !== "Progress") return;
    if (event.percent !== null) this.#bar.value = event.percent;
    this.#figures.textContent = describeFigures(event);
  }

  showMessage(kind, ...content) {
    const box = make("div", { class: `message ${kind}` }, ...content);
    this.#messages.append(box);
    return box;
  }

  /** The port of the board need not be chosen again. */
  stopAsking() {
    this.home.getElementById("choose-again")?.closest(".message").remove();
  }

  showError(error) {
    this.showMessage("error", ...explainError(error, this.#links[error.code]));
  }

  /** The work has ended: only the messages remain. Without any, the user has cancelled, and the dialog closes. */
  finish() {
    if (!this.#working) return;
    this.#working = false;
    this.stopAsking();
    if (!this.#messages.hasChildNodes()) {
      this.#dialog.close();
      return;
    }
    this.#status.textContent = "";
    this.#figures.textContent = "";
    this.#bar.hidden = true;
    this.#button.textContent = "Close";
    this.#button.focus();
  }
}
