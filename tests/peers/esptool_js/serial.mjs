// A serial port as the Web Serial API describes it, carried by RFC 2217 (baud rate, DTR and RTS) over TCP.
import net from "node:net";

const IAC = 255, SE = 240, SB = 250, WILL = 251, WONT = 252, DO = 253, DONT = 254;
const BINARY = 0, SUPPRESS_GO_AHEAD = 3, COM_PORT = 44;
const OURS = [BINARY, SUPPRESS_GO_AHEAD, COM_PORT];
const SET_BAUD = 1, SET_CONTROL = 5, ANSWER = 100;
const DTR_ON = 8, DTR_OFF = 9, RTS_ON = 11, RTS_OFF = 12;

export class Rfc2217Port {
  constructor(host, port) {
    this.host = host;
    this.port = port;
  }

  async open({ baudRate }) {
    this.rest = Buffer.alloc(0);
    this.answers = [];
    this.socket = net.connect({ host: this.host, port: this.port, noDelay: true });
    await new Promise((done, failed) => this.socket.once("connect", done).once("error", failed));
    this.socket.on("error", () => {});
    this.readable = new ReadableStream({
      start: (controller) => {
        this.socket.on("data", (bytes) => this.receive(bytes, controller));
        this.socket.on("close", () => { try { controller.close(); } catch { /* it was cancelled */ } });
      },
    });
    this.writable = new WritableStream({ write: (bytes) => this.send(escape(Buffer.from(bytes))) });
    for (const option of OURS) await this.send(Buffer.from([IAC, WILL, option, IAC, DO, option]));
    await this.setBaudRate(baudRate);
  }

  async close() {
    await new Promise((done) => this.socket.end(done));
    this.readable = this.writable = null;
  }

  getInfo() {
    return {};
  }

  async setBaudRate(baudRate) {
    const value = Buffer.alloc(4);
    value.writeUInt32BE(baudRate);
    await this.request(SET_BAUD, value);
  }

  async setSignals({ dataTerminalReady, requestToSend }) {
    if (dataTerminalReady !== undefined) await this.request(SET_CONTROL, Buffer.from([dataTerminalReady ? DTR_ON : DTR_OFF]));
    if (requestToSend !== undefined) await this.request(SET_CONTROL, Buffer.from([requestToSend ? RTS_ON : RTS_OFF]));
  }

  async request(option, value) {
    const answered = new Promise((done) => this.answers.push({ option, done }));
    await this.send(Buffer.concat([Buffer.from([IAC, SB, COM_PORT, option]), escape(value), Buffer.from([IAC, SE])]));
    await answered;
  }

  send(bytes) {
    return new Promise((done, failed) => this.socket.write(bytes, (error) => (error ? failed(error) : done())));
  }

  receive(bytes, controller) {
    const text = Buffer.concat([this.rest, bytes]);
    const data = [];
    let at = 0;
    while (at < text.length) {
      const end = text[at] === IAC ? this.takeCommand(text, at, data) : at + 1;
      if (end === 0) break;
      if (text[at] !== IAC) data.push(text[at]);
      at = end;
    }
    this.rest = text.subarray(at);
    if (data.length) controller.enqueue(Uint8Array.from(data));
  }

  // Where the command at `at` ends; 0 if it is not complete.
  takeCommand(text, at, data) {
    const command = text[at + 1];
    if (command === undefined) return 0;
    if (command === IAC) data.push(IAC);
    if ([WILL, WONT, DO, DONT].includes(command)) return at + 2 < text.length ? at + 3 : 0;
    if (command !== SB) return at + 2;
    const end = text.indexOf(Buffer.from([IAC, SE]), at);
    if (end < 0) return 0;
    const waiting = this.answers.findIndex((answer) => answer.option + ANSWER === text[at + 3]);
    if (text[at + 2] === COM_PORT && waiting >= 0) this.answers.splice(waiting, 1)[0].done();
    return end + 2;
  }
}

function escape(bytes) {
  const out = [];
  for (const byte of bytes) out.push(...(byte === IAC ? [IAC, IAC] : [byte]));
  return Buffer.from(out);
}
