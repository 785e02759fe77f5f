// A double of navigator.serial with one port, whose other end is a WebSocket: the rules of the browser as far as the page
// depends on them. `self.board` lets a test unplug the port, plug it in again, and end the stream by an error.
(() => {
  const fail = (name, message) => new DOMException(message, name);

  class Port extends EventTarget {
    connected = true;
    readable = null;
    writable = null;
    #socket = null;
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
      this.opened.push(baudRate);
      const socket = new WebSocket(this.address);
      socket.binaryType = "arraybuffer";
      await new Promise((resolve, reject) => {
        socket.onopen = resolve;
        socket.onerror = () => reject(fail("NetworkError", "Failed to open serial port."));
      });
      socket.onmessage = ({ data }) => this.#source?.enqueue(new Uint8Array(data));
      this.#socket = socket;
      this.#send({ baud: baudRate });
      this.#makeReadable();
      this.writable = new WritableStream({
        write: (chunk) => {
          if (!this.connected) throw fail("NetworkError", "The device has been lost.");
          socket.send(chunk);
        },
      });
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
      this.#send({ dtr: dataTerminalReady, rts: requestToSend });
    }

    async close() {
      if (!this.#socket) throw fail("InvalidStateError", "The port is already closed.");
      if (this.readable?.locked || this.writable?.locked) throw new TypeError("Cannot cancel a locked stream");
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
