// A double of navigator.serial with one port, whose other end is a WebSocket: the rules of the browser as far as the page
// depends on them. `self.board` lets a test unplug the port, plug it in again, end the stream by an error, and let
// operations fail: `board.faults` is a list of {operation, after, kind}, and a fault strikes once, after that many calls.
(() => {
  const fail = (name, message) => new DOMException(message, name);
  const hang = (milliseconds) => new Promise((resolve) => milliseconds && setTimeout(resolve, milliseconds));
  const STREAM_ENDS = new Set(["BufferOverrunError", "BreakError", "FramingError", "ParityError", "UnknownError"]);

  /** Whether the operation has a fault now: its kind. */
  function strike(operation) {
    const count = (board.counts[operation] = (board.counts[operation] ?? 0) + 1);
    const index = board.faults.findIndex((fault) => fault.operation === operation && fault.after < count);
    if (index < 0) return "";
    const [{ kind }] = board.faults.splice(index, 1);
    board.struck.push(`${operation}:${kind}`);
    return kind;
  }

  class Port extends EventTarget {
    connected = true;
    readable = null;
    writable = null;
    #socket = null;
    #closing = false;
    #source = null;
    opened = [];

    constructor(address, ids) {
      super();
      this.address = address;
      this.ids = ids;
    }

    getInfo() {
      return this.ids;
    }

    async open({ baudRate, bufferSize }) {
      if (this.#socket) throw fail("InvalidStateError", "The port is already open.");
      if (!this.connected || board.held) throw fail("NetworkError", "Failed to open serial port.");
      if (bufferSize < 65536) throw new Error("a small buffer overruns");
      const fault = strike("open");
      if (fault === "reject") throw fail("NetworkError", "Failed to open serial port.");
      if (fault === "hang") await hang();
      if (fault === "slow") await hang(3000);
      this.opened.push(baudRate);
      const socket = new WebSocket(this.address);
      socket.binaryType = "arraybuffer";
      await new Promise((resolve, reject) => {
        socket.onopen = resolve;
        socket.onerror = () => reject(fail("NetworkError", "Failed to open serial port."));
      });
      socket.onmessage = ({ data }) => this.#receive(new Uint8Array(data));
      this.#socket = socket;
      if (fault !== "rate") this.#send({ baud: baudRate });
      this.#makeReadable();
      if (fault === "locked") board.lock = this.readable.getReader();
      this.#makeWritable();
    }

    #receive(data) {
      if (this.#closing) return;
      const fault = strike("read");
      if (fault === "done") {
        const source = this.#source;
        this.#makeReadable();
        source.close();
      } else if (fault === "unplug") this.unplug();
      else if (STREAM_ENDS.has(fault)) this.endStream(fault);
      if (fault !== "drop" && fault !== "BufferOverrunError") this.#source?.enqueue(data);
    }

    #makeWritable() {
      this.writable = new WritableStream({
        write: async (chunk, controller) => {
          if (!this.connected) throw fail("NetworkError", "The device has been lost.");
          const fault = strike("write");
          if (fault === "unplug") this.unplug();
          if (fault === "reset") this.resetChip();
          if (fault === "reject") {
            this.#makeWritable();
            throw fail("UnknownError", "An unknown system error has occurred.");
          }
          if (fault === "hang") await new Promise((_, reject) => controller.signal.addEventListener("abort", () => reject(controller.signal.reason)));
          if (fault !== "drop") this.#socket?.send(chunk);
        },
      });
    }

    /** The board is reset by its button. */
    resetChip() {
      this.#send({ dtr: false, rts: true });
      this.#send({ dtr: false, rts: false });
    }

    #send(message) {
      this.#socket.send(JSON.stringify(message));
    }

    #makeReadable() {
      this.readable = new ReadableStream({ start: (source) => (this.#source = source) });
    }

    async setSignals({ dataTerminalReady, requestToSend }) {
      if (!this.#socket) throw fail("InvalidStateError", "The port is closed.");
      if (!this.connected) throw fail("NetworkError", "Failed to set control signals.");
      if (dataTerminalReady === undefined || requestToSend === undefined) throw new Error("one line was left out");
      const fault = strike("signals");
      if (fault === "reject") throw fail("NetworkError", "Failed to set control signals.");
      if (fault === "hang") await hang();
      if (fault === "unplug") return this.unplug();
      this.#send({ dtr: dataTerminalReady, rts: requestToSend });
    }

    async close() {
      if (!this.#socket) throw fail("InvalidStateError", "The port is already closed.");
      if (this.#closing) throw fail("InvalidStateError", "A call to close() is already in progress.");
      if (this.readable?.locked || this.writable?.locked) throw new TypeError("Cannot cancel a locked stream");
      const fault = strike("close");
      if (fault === "reject") throw fail("NetworkError", "Failed to close serial port.");
      this.#closing = true;
      if (fault === "slow") await hang(5000);
      this.#closing = false;
      await Promise.all([this.readable?.cancel(), this.writable.abort()].map((done) => done?.catch(() => {})));
      this.#socket.close();
      this.#socket = this.readable = this.writable = this.#source = null;
    }

    endStream(name) {
      const source = this.#source;
      this.#makeReadable();
      source.error(fail(name, name));
    }

    unplug() {
      this.connected = false;
      const source = this.#source;
      this.readable = this.#source = null;
      source?.error(fail("NetworkError", "The device has been lost."));
      this.dispatchEvent(new Event("disconnect", { bubbles: true }));
      const event = new Event("disconnect");
      Object.defineProperty(event, "target", { value: this });
      serial.dispatchEvent(event);
      this.#socket?.close();
    }
  }

  class Serial extends EventTarget {
    async requestPort() {
      if (!navigator.userActivation.isActive) throw fail("SecurityError", "Must be handling a user gesture.");
      return board.port;
    }
    async getPorts() {
      return [board.port];
    }
  }

  const serial = new Serial();
  const ids = { usbVendorId: 0x10c4, usbProductId: 0xea60 };
  const board = {
    held: false,
    faults: [],
    struck: [],
    counts: {},
    lock: null, // a reader of someone else
    /** No more faults; an unplugged board is plugged in. */
    heal() {
      board.faults = [];
      board.lock?.releaseLock();
      board.lock = null;
      if (!board.port.connected) board.plug();
    },
    port: new Port("ws://127.0.0.1:SERIAL_PORT/", ids),
    unplug: () => board.port.unplug(),
    plug: () => {
      board.port = new Port(board.port.address, ids);
      serial.dispatchEvent(new Event("connect"));
    },
    endStream: (name) => board.port.endStream(name),
  };
  self.board = board;
  Object.defineProperty(Navigator.prototype, "serial", { get: () => serial, configurable: true });
})();
