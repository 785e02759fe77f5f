// The page's side of the worker: starts it, runs one job at a time, passes its requests to the serial port.
import { reword } from "./wording.mjs";

const PASSING = new Set(["Output", "Progress"]); // events that are only shown; a console can have any number of them

/** An event for an error outside of espwire's own commands. */
export const makeError = (code, message, hint) => ({ event: "Error", code, message, hint, details: {} });

/** Of a command: `code` is the exit code; `result` and `error` are its last events of that kind. */
export class Outcome {
  code = 0;
  events;
  constructor(...events) {
    this.events = events;
  }
  get result() {
    return this.events.findLast((event) => event.event === "Result");
  }
  get error() {
    return this.events.findLast((event) => event.event === "Error");
  }
  /** Whether it was refused by a safety check that the user can override. */
  get needsConsent() {
    return Boolean(this.error?.details?.consents?.length);
  }
  all(kind) {
    return this.events.filter((event) => event.event === kind);
  }
}

export class Engine extends EventTarget {
  #worker;
  #jobs = new Map();
  #number = 0;
  ready; // resolves to the versions and times of the start
  suspends = true;

  /** @param ports answers the operations of a serial port; see serial.mjs */
  constructor(ports = null) {
    super();
    this.ports = ports;
    ports?.connectTo({
      data: (data) => this.#worker.postMessage({ kind: "data", data }, [data.buffer]),
      lost: (reason) => this.#worker.postMessage({ kind: "lost", reason }),
    });
    this.#start();
  }

  #start() {
    this.ready = new Promise((resolve, reject) => {
      this.#worker = new Worker(new URL("./worker.mjs", import.meta.url), { type: "module" });
      this.#worker.onmessage = ({ data }) => this.#receive(data, resolve, reject);
      this.#worker.onerror = (event) => {
        const failure = event.message || "the worker did not start";
        reject(new Error(failure));
        this.#end({ failure });
      };
    });
    this.ready.catch(() => {});
  }

  /** Start the engine anew, which loses its files; all running jobs end with `outcome`. */
  #restart(outcome) {
    this.#worker.terminate();
    this.#start();
    this.dispatchEvent(new Event("restart"));
    this.#end(outcome);
  }

  #end(outcome) {
    for (const job of [...this.#jobs.values()]) job.done(outcome);
  }

  get busy() {
    return this.#jobs.size > 0;
  }

  async #receive(message, resolve, reject) {
    switch (message.kind) {
      case "ready":
        this.suspends = message.suspends;
        resolve(message);
        break;
      case "failed":
        reject(new Error(message.message));
        break;
      case "event":
        this.#jobs.get(message.job)?.event(reword(JSON.parse(message.line)));
        break;
      case "port": {
        const worker = this.#worker; // while the port works, another may replace it
        const reply = await this.ports.perform(message.operation, message.values);
        worker.postMessage({ kind: "answer", number: message.number, reply });
        break;
      }
      case "done":
        this.#jobs.get(message.job)?.done(message);
        break;
    }
  }

  #send(message, transfer = [], event = () => {}) {
    const job = ++this.#number;
    return new Promise((resolve, reject) => {
      const done = ({ value, failure }) => {
        this.#jobs.delete(job);
        if (failure === undefined) resolve(value);
        else reject(new Error(failure));
      };
      this.#jobs.set(job, { event, done });
      this.#worker.postMessage({ ...message, job }, transfer);
    });
  }

  async #collect(message, transfer = []) {
    const outcome = new Outcome();
    const show = (event) => {
      if (!PASSING.has(event.event)) outcome.events.push(event);
      this.dispatchEvent(new CustomEvent("event", { detail: event }));
    };
    try {
      outcome.code = await this.#send(message, transfer, show);
    } catch (error) {
      this.#restart({ failure: error.message });
      outcome.code = 1;
      const reason = error.message.trim().split("\n").at(-1); // of a traceback
      show(makeError("engine", `Python has failed and was started again: ${reason}`, "Virtual chips are erased. Choose the file again."));
    }
    return outcome;
  }

  /** Run a command line of espwire. */
  run(line) {
    return this.#collect({ kind: "run", line });
  }

  /** Show the output of the chip until `cancel`. */
  watch(port, { baud, reset, chip = "" }) {
    return this.#collect({ kind: "watch", port, baud, reset, chip });
  }

  /** Give the engine a file; `value` is its path, or of the folder that an archive was unpacked to. */
  async store(name, data, { unpack = true } = {}) {
    const outcome = await this.#collect({ kind: "store", name, data, unpack }, [data.buffer]);
    outcome.path = outcome.code;
    return outcome;
  }

  clear() {
    return this.#send({ kind: "clear" });
  }

  /** The bytes of a file of the engine, which is removed. */
  load(path) {
    return this.#send({ kind: "load", path });
  }

  type(text) {
    this.#worker.postMessage({ kind: "type", text });
  }

  /** Stop the running job. A browser that cannot suspend Python restarts the engine, and virtual chips are lost. */
  cancel() {
    if (this.suspends) {
      this.#worker.postMessage({ kind: "cancel" });
      return;
    }
    this.#restart({ value: 130 });
  }
}
