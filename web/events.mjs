// Texts for the events of the engine.
import { make } from "./dom.mjs";

const VERBS = { write: "Writing", erase: "Erasing", verify: "Verifying", read: "Reading" };

/** One line, or several for a plan; empty if there is nothing to show. */
export function describe(event) {
  switch (event.event) {
    case "Opened": return `Port ${event.port} is open.`;
    case "Connecting": return `Connecting${event.attempt > 1 ? `, attempt ${event.attempt}` : ""}`;
    case "ChipFound": return `Found ${event.description}${event.revision ? `, revision ${event.revision}` : ""}${event.mac ? `, MAC ${event.mac}` : ""}.`;
    case "PlanReady": return ["Plan:", ...event.steps.map((step) => `  ${step}`)].join("\n");
    case "StubStarted": return `Started the ${event.stub}.`;
    case "Progress": return `${VERBS[event.task] ?? event.task} ${event.name}`;
    case "Finished": return `${VERBS[event.task] ?? event.task} ${event.name}: done.`;
    case "Note": return event.text;
    case "Warned": return `warning: ${event.text} [${event.code}]`;
    case "Error": return `error: ${event.message} [${event.code}]`;
    case "Result": return event.text;
    default: return "";
  }
}

/** Percent, speed and time left of a Progress event. */
export function describeFigures(event) {
  const figures = [];
  if (event.percent !== null) figures.push(`${Math.floor(event.percent)} %`);
  if (event.rate) figures.push(`${(event.rate / 1000).toFixed(0)} KB/s`);
  if (event.seconds_left !== null) figures.push(`${event.seconds_left.toFixed(0)} s left`);
  return figures.join(", ");
}

/** Elements for an error: message, hint and, if `link` names a section of the guide, a link to it. */
export function explainError(error, link) {
  return [
    make("p", {}, make("strong", {}, error.message), " ", make("code", {}, error.code)),
    make("p", {}, error.hint, " ", link ? make("a", { href: guideAddress(link), target: "_blank", rel: "noopener" }, "More in the guide") : ""),
    ...(error.details?.boot_text ? [make("pre", {}, error.details.boot_text)] : []),
  ];
}

/** Elements that ask the user for the port of a board that is away; `choose` is called by the click. */
export const askForPort = (choose) => [
  make("p", {}, "The board is disconnected, or its port has changed. Plug it in, then choose the port that has appeared."),
  make("p", {}, make("button", { type: "button", class: "primary", id: "choose-again", onclick: choose }, "Choose the port…")),
];

/** A section of the guide: of the documentation site if the page belongs to it, else of the text next to this file. */
function guideAddress(link) {
  const site = document.querySelector('meta[name="guide"]')?.content;
  return site ? new URL(site + link.replace(/\.md/, "/"), location.href).href : new URL(`guide/${link}`, import.meta.url).href;
}
