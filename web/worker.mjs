// Runs espwire in Pyodide, in this worker, one job at a time. It is also the JavaScript module "espwire_browser", which
// the Python side uses (src/espwire/transport/webserial.py documents it).
import { loadPyodide } from "./pyodide/pyodide.mjs";

const FILES = "/files";
const post = (message, transfer = []) => self.postMessage(message, transfer);

let job = 0; // the running one, or the last
let running = false;
let cancelled = false;
let typed = "";
let chunks = []; // received from the serial port
let lostReason = "";
let wake = () => {};
let calls = 0;
const waiting = new Map(); // number of a call to the page → its resolve

function answer(number, reply) {
  waiting.get(number)?.(reply);
  waiting.delete(number);
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const browser = {
  emit: (line) => post({ kind: "event", job, line }),
  cancelled: () => cancelled,
  typed: () => {
    const text = typed;
    typed = "";
    return text;
  },
  pause,
  call: (operation, ...values) => {
    const number = ++calls;
    const plain = values.map((value) => (value?.toJs ? value.toJs() : value));
    if (operation === "open") {
      chunks = [];
      lostReason = "";
    }
    post({ kind: "port", number, operation, values: plain });
    return new Promise((resolve) => waiting.set(number, resolve));
  },
  receive: (milliseconds) => {
    if (chunks.length || lostReason) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  },
  take: () => {
    if (chunks.length < 2) return chunks.pop() ?? new Uint8Array();
    const all = new Uint8Array(chunks.reduce((size, chunk) => size + chunk.length, 0));
    let at = 0;
    for (const chunk of chunks) {
      all.set(chunk, at);
      at += chunk.length;
    }
    chunks = [];
    return all;
  },
  lost: () => lostReason,
};

async function start() {
  const began = performance.now();
  const here = new URL("./", import.meta.url);
  const archive = fetch(new URL("espwire.tar.xz", here)).then((reply) => {
    if (!reply.ok) throw new Error(`espwire.tar.xz: ${reply.status}`);
    return reply.arrayBuffer();
  });
  const pyodide = await loadPyodide({ indexURL: new URL("pyodide/", here).href });
  const python = performance.now();
  pyodide.registerJsModule("espwire_browser", browser);
  pyodide.unpackArchive(await archive, "xztar", { extractDir: "/espwire" });
  pyodide.runPython("import sys; sys.path.append('/espwire')");
  pyodide.FS.mkdir("/boards");
  const engine = pyodide.pyimport("espwire.web.engine");
  const version = pyodide.pyimport("espwire").__version__;
  const ready = performance.now();
  post({
    kind: "ready",
    version,
    suspends: "Suspending" in WebAssembly,
    python: python - began,
    espwire: ready - python,
  });
  return { pyodide, engine };
}

const started = start().catch((error) => {
  post({ kind: "failed", message: String(error) });
  throw error;
});

// the tasks of the page; each ends with a message "done"
const tasks = {
  run: ({ engine, pyodide }, { line }) => call(pyodide, engine.run, [line]),
  watch: ({ engine, pyodide }, { port, baud, reset, chip }) =>
    call(pyodide, engine.watch, [port, baud, reset, chip]),
  store: ({ engine, pyodide }, { name, data, unpack }) =>
    engine.try_store(FILES, name, pyodide.toPy(data).tobytes(), unpack),
  clear: ({ engine }) => engine.clear(FILES),
  load: ({ pyodide }, { path }) => {
    const data = pyodide.FS.readFile(path);
    pyodide.FS.unlink(path);
    return data;
  },
};

async function call(pyodide, work, values) {
  const converted = values.map((value) => (Array.isArray(value) ? pyodide.toPy(value) : value));
  return "Suspending" in WebAssembly ? work.callPromising(...converted) : work(...converted);
}

let last = Promise.resolve();

self.onmessage = ({ data: message }) => {
  switch (message.kind) {
    case "cancel":
      cancelled = true;
      wake();
      for (const number of waiting.keys()) answer(number, { ok: false, name: "AbortError", message: "cancelled" });
      break;
    case "type":
      typed += message.text;
      break;
    case "data":
      if (!running) break; // the port stays open, but nobody reads what it sends
      chunks.push(message.data);
      wake();
      break;
    case "lost":
      lostReason = message.reason;
      wake();
      break;
    case "answer":
      answer(message.number, message.reply);
      break;
    default:
      last = last.then(() => perform(message));
  }
};

async function perform(message) {
  try {
    const engine = await started;
    job = message.job;
    running = true;
    cancelled = false;
    typed = "";
    const value = await tasks[message.kind](engine, message);
    post({ kind: "done", job: message.job, value: value ?? null });
  } catch (error) {
    post({ kind: "done", job: message.job, failure: String(error) });
  } finally {
    running = false;
    chunks = [];
  }
}
