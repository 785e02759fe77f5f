// Plan first: runs a command with --dry-run, shows plan, warnings and findings, asks for consents, then runs it.
import { make } from "./dom.mjs";

/** Show a dialog inside the element `home`; resolves to its form data, or null if it was cancelled. */
export function ask(title, content, action, { danger = false, home = document.body } = {}) {
  const heading = make("h2", { id: "dialog-title" }, title);
  const accept = make("button", { type: "submit", value: "ok", class: danger ? "danger" : "primary" }, action);
  const cancel = make("button", { type: "button" }, "Cancel");
  const form = make("form", { method: "dialog" }, heading, ...content, make("p", { class: "buttons" }, cancel, accept));
  const dialog = make("dialog", { "aria-labelledby": "dialog-title" }, form);
  home.append(dialog);
  return new Promise((resolve) => {
    let values = null;
    form.addEventListener("submit", () => {
      values = new FormData(form);
    });
    cancel.onclick = () => dialog.close();
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(values);
    });
    dialog.showModal();
  });
}

function listWarnings(events) {
  const warned = events.filter((event) => event.event === "Warned");
  if (!warned.length) return [];
  return [make("h3", {}, "Warnings"), make("ul", { class: "warnings" }, ...warned.map((event) => make("li", {}, event.text)))];
}

function listPlan(plan) {
  const steps = plan.steps.map((step) => make("li", {}, step));
  const changes = plan.partitions.map((change) => make("li", {}, `partition table: ${change.text}`));
  const time = `about ${Math.max(plan.seconds, 0.1).toFixed(1)} s`;
  const amount = plan.wire_bytes ? `${plan.wire_bytes.toLocaleString("en")} bytes to send, ${time}` : `No data to send, ${time}`;
  return [make("p", {}, amount), make("ol", { class: "plan" }, ...steps, ...changes)];
}

/** The consents that the user gives for the findings of a refused plan; null: cancelled. */
async function askConsents(error, home) {
  const findings = error.details.findings ?? [{ text: error.message, consent: error.details.consents[0] }];
  const boxes = findings.map((finding) =>
    finding.consent
      ? make("label", { class: "consent" }, make("input", { type: "checkbox", name: "allow", value: finding.consent, required: true }), make("span", {}, `${finding.text} `, make("code", {}, finding.consent)))
      : make("p", {}, finding.text),
  );
  const content = [
    make("p", {}, "A safety check failed. Continuing can leave the board unable to start. To continue, tick each finding."),
    make("fieldset", { class: "findings" }, make("legend", {}, "Findings"), ...boxes),
    ...(error.hint ? [make("p", { class: "hint" }, error.hint)] : []),
  ];
  const form = await ask("This may be a mistake", content, "Continue anyway", { danger: true, home });
  return form && form.getAll("allow");
}

/**
 * Run `line` after the user has agreed to its plan.
 * @param run runs a command line and returns its outcome; it has shown all errors but those of safety checks
 * @returns the outcome, or null if the user cancelled or the plan failed
 */
export async function runPlanned(run, line, { title, action, danger = false, home = document.body }) {
  const allow = [];
  for (;;) {
    const consents = allow.flatMap((name) => ["--allow", name]);
    const outcome = await run([...line, ...consents, "--dry-run"], `${title}: planning`);
    const error = outcome.error;
    if (outcome.needsConsent) {
      const more = await askConsents(error, home);
      if (more === null) return null;
      allow.push(...more.filter((name) => !allow.includes(name)));
      if (!more.length) return null;
      continue;
    }
    if (error) return null;
    const plans = outcome.all("PlanReady");
    const notes = outcome.all("Note").map((event) => make("li", {}, event.text));
    const content = [
      ...plans.flatMap(listPlan),
      ...(plans.length ? [] : [make("pre", {}, outcome.result?.text ?? "")]),
      ...(notes.length ? [make("ul", { class: "notes" }, ...notes)] : []),
      ...listWarnings(outcome.events),
    ];
    if (!(await ask(title, content, action, { danger: danger || allow.length > 0, home }))) return null;
    return run([...line, ...consents], title);
  }
}
