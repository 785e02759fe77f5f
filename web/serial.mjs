// The serial ports of the page (Web Serial). The engine's transport (transport/webserial.py) calls `perform`.

const BUFFER = 255 * 1024; // bytes; the browser's default of 255 overruns at high rates
const CLOSE_LIMIT = 6000; // ms
const LIMIT = 15000; // ms of any other operation; opening includes closing
const RESUMABLE = new Set(["BufferOverrunError", "BreakError", "FramingError", "ParityError"]);

/** Why the browser has no serial ports; empty: it has. */
export function findObstacle() {
  if (!window.isSecureContext) return "Serial ports need a secure page: https, or the address of this computer.";
  if (navigator.serial) {
    const policy = document.permissionsPolicy ?? document.featurePolicy;
    if (policy && !policy.allowsFeature("serial")) return 'This frame may not use serial ports. It needs allow="serial".';
    if (!globalThis.WebAssembly?.Suspending) return "This browser is too old to use serial ports in this page. Use Chrome or Edge 137 or later, or a virtual chip.";
    return "";
  }
  if (/Android/.test(navigator.userAgent)) return "On Android, the browser does not reach USB serial bridges. Use a computer, or a virtual chip.";
  return "This browser has no Web Serial. Use Chrome or Edge on a computer, or a virtual chip.";
}

/** What to check if the browser cannot open a port; it reports one sentence for all causes. */
export function listCauses() {
  const common = "Another tab or program uses the port: close serial monitors, IDEs and other tabs with this page.";
  const system = navigator.userAgentData?.platform ?? navigator.platform ?? "";
  if (/Linux/.test(system)) {
    return `${common} On Linux, join the port's group (dialout or uucp) and log in again; remove brltty if the adapter is a CH340; a browser installed as Snap or Flatpak needs access to serial ports. \`espwire ports\` names the program that uses a port.`;
  }
  if (/Win/.test(system)) return `${common} On Windows, check in the device manager that the adapter has a driver.`;
  return common;
}

/** The result of a promise, or an error after `milliseconds`. */
async function limit(promise, milliseconds, name, message) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new DOMException(message, name)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const ok = (value = null) => ({ ok: true, value });
const failed = (error, hint = "") => ({ ok: false, name: error.name, message: error.message, hint });
const missing = () => failed(new DOMException("the port is not connected", "NotFoundError"));

export class SerialPorts extends EventTarget {
  #ports = new Map(); // number → SerialPort
  #count = 0;
  #operations = 0;
  #opening = Promise.resolve(); // ends with the last opening, or after its limit
  #open = null; // the port that is open: {number, port, baud, reader, reading, lost}
  #sink = { data() {}, lost() {} };

  constructor() {
    super();
    navigator.serial?.addEventListener("disconnect", (event) => this.#disconnected(event.target));
  }

  connectTo(sink) {
    this.#sink = sink;
  }

  /** Ask the user for a port; call it from a click. Returns its number and USB ids. */
  async choose(number = ++this.#count) {
    const port = await navigator.serial.requestPort();
    if (this.#open?.number === number && this.#open.port !== port) await this.#close();
    this.#ports.set(number, port);
    return { number, ...this.#ids(port) };
  }

  async disconnect() {
    await this.#close();
  }

  #ids(port) {
    const { usbVendorId, usbProductId } = port.getInfo();
    return { vid: usbVendorId ?? null, pid: usbProductId ?? null };
  }

  async perform(operation, values) {
    const number = ++this.#operations;
    try {
      return await limit(this[`do_${operation}`](...values), LIMIT, "NetworkError", "the port does not respond");
    } catch (error) {
      // the next job closes the port and opens it again, if it has not done so already
      if (this.#open && number === this.#operations) this.#lose(this.#open, error.message);
      return failed(error, listCauses());
    }
  }

  /** The port of a number; null if it is away. The page shows when it is away, until it is back. */
  async #find(number) {
    const port = this.#ports.get(number);
    if (!port || port.connected !== false) return port ?? null;
    const again = await this.#findAgain(number, port);
    this.dispatchEvent(new CustomEvent(again ? "back" : "away", { detail: { number } }));
    return again;
  }

  async do_find(text) {
    return (await this.#find(Number(text))) ? ok() : missing();
  }

  /** Opening waits until an earlier one has ended, whose job may have been cancelled. */
  do_open(text, baud) {
    const work = this.#opening.then(() => this.#openFor(text, baud));
    this.#opening = limit(work, LIMIT, "NetworkError", "").catch(() => {});
    return work;
  }

  async #openFor(text, baud) {
    const number = Number(text);
    const port = await this.#find(number);
    if (!port) return missing();
    if (this.#open?.port === port && !this.#open.lost) {
      if (this.#open.baud !== baud) await this.#reopen(baud, false, false);
      return ok(this.#ids(port));
    }
    await this.#close();
    await this.#openPort(number, port, baud);
    await port.setSignals({ dataTerminalReady: false, requestToSend: false });
    return ok(this.#ids(port));
  }

  /** The same device after it was plugged in again, if the browser still has the permission and there is no doubt. */
  async #findAgain(number, before) {
    const known = new Set(this.#ports.values());
    const wanted = this.#ids(before);
    const fitting = (await navigator.serial.getPorts()).filter((port) => {
      const ids = this.#ids(port);
      return port.connected !== false && ids.vid === wanted.vid && ids.pid === wanted.pid;
    });
    const fresh = fitting.filter((port) => !known.has(port) || port === before);
    if (fresh.length !== 1 || fitting.length !== 1) return null;
    this.#ports.set(number, fresh[0]);
    return fresh[0];
  }

  async #openPort(number, port, baud) {
    const settings = { baudRate: baud, bufferSize: BUFFER };
    try {
      await port.open(settings);
    } catch (error) {
      if (error.name !== "InvalidStateError") throw error;
      await port.close(); // it could not be closed before
      await port.open(settings);
    }
    const open = { number, port, baud, reader: null, stopping: false, lost: false };
    this.#open = open;
    open.reading = this.#read(open);
  }

  async #read(open) {
    try {
      while (!open.stopping && open.port.readable) await this.#readStream(open);
      this.#lose(open);
    } catch (error) {
      this.#lose(open, error.message);
    }
  }

  /** Read until the stream ends. Overrun, break, framing and parity errors end it, too, but not the port. */
  async #readStream(open) {
    open.reader = open.port.readable.getReader();
    try {
      for (;;) {
        const { value, done } = await open.reader.read();
        if (done) return;
        this.#sink.data(value);
      }
    } catch (error) {
      if (!RESUMABLE.has(error.name)) throw error;
    } finally {
      open.reader.releaseLock();
    }
  }

  #lose(open, reason) {
    if (open.lost || open.stopping) return;
    open.lost = true;
    this.#sink.lost(reason || "the device was disconnected");
  }

  #disconnected(port) {
    if (this.#open?.port === port) this.#lose(this.#open, "the device was disconnected");
  }

  async #close() {
    const open = this.#open;
    if (!open) return;
    this.#open = null;
    open.stopping = true;
    const work = (async () => {
      await open.reader?.cancel().catch(() => {});
      await open.reading;
      await open.port.close();
    })();
    await limit(work, CLOSE_LIMIT, "TimeoutError", "").catch(() => {});
  }

  async #reopen(baud, dtr, rts) {
    const { number, port } = this.#open;
    await this.#close();
    await this.#openPort(number, port, baud);
    await port.setSignals({ dataTerminalReady: dtr, requestToSend: rts });
  }

  #current() {
    if (!this.#open || this.#open.lost) throw new DOMException("the device was disconnected", "NetworkError");
    return this.#open;
  }

  async do_write(data, milliseconds) {
    const writer = this.#current().port.writable.getWriter();
    try {
      await limit(writer.write(data), milliseconds, "TimeoutError", "the port takes no data");
    } finally {
      writer.releaseLock();
    }
    return ok();
  }

  async do_baud(baud, dtr, rts) {
    if (this.#current().baud !== baud) await this.#reopen(baud, dtr, rts);
    return ok();
  }

  async do_signals(dtr, rts) {
    await this.#current().port.setSignals({ dataTerminalReady: dtr, requestToSend: rts });
    return ok();
  }
}
