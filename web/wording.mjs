// The texts of the engine are those of the command line. Here they lose what the page does not have: options and paths.

const FOLDER = /\/files\//g; // where worker.mjs keeps the user's files
const OPTIONS_OF_CHIP = /(virtual:\w+)\?flash=\/boards\/\S*/g; // of the virtual chips of app.mjs
const OF_THE_COMMAND_LINE = /(^|[\s(])--[a-z]|`espwire |\bload-ram\b|\bwrite-flash\b/;
// for errors whose hint in the page is another one
const HINTS = {
  "build-incomplete": "Choose the whole build folder or a zip of it: it needs all files that it names.",
  "build-unclear": "For a single file of firmware, enter its address. For a build, choose its folder or a zip of it.",
  "out-of-memory": "Close other tabs and programs, then reload the page.",
  "no-partition-table": "Flash a build that contains a partition table first.",
  bug: "Save the log, and report it to the authors of espwire.",
  cancelled: "If the board was being written or erased, its flash is incomplete: start again.",
};

/** A text without the sentences about options of the command line. */
function leaveOut(text) {
  const sentences = text.replaceAll("--baud", "baud rate").split(/(?<=[.;]) +/);
  return sentences.filter((sentence) => !OF_THE_COMMAND_LINE.test(sentence)).join(" ").replace(/;$/, ".");
}

const shorten = (text) => text.replace(FOLDER, "").replace(/^\/files\b/, "the selection").replace(OPTIONS_OF_CHIP, "$1");

/** An event of the engine as the page shows it. */
export function reword(event) {
  switch (event.event) {
    case "Error": return { ...event, message: shorten(event.message), hint: HINTS[event.code] ?? leaveOut(shorten(event.hint)) };
    case "Result": return { ...event, text: leaveOut(event.text) || event.text };
    case "Opened": return { ...event, port: shorten(event.port) };
    case "ConsoleNote":
    case "Note":
    case "Warned": return { ...event, text: shorten(event.text) };
    default: return event;
  }
}
