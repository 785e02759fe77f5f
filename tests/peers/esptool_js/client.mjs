// Runs esptool-js against a port: client.mjs HOST PORT RESET-MODE ADDRESS FILE. Writes FILE there unless ADDRESS is "-",
// checks it by MD5, and reads it back. The result is one line of JSON, the last one.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { ESPLoader, Transport } from "esptool-js";
import { Rfc2217Port } from "./serial.mjs";

const [host, port, mode, address, file] = process.argv.slice(2);
console.debug = () => {};
const lines = [];
const terminal = { clean() {}, write(text) { lines.push(text); }, writeLine(text) { lines.push(text); } };
const transport = new Transport(new Rfc2217Port(host, Number(port)));
transport.trace = () => {};
const loader = new ESPLoader({ transport, baudrate: 460800, romBaudrate: 115200, terminal });
const result = {};
try {
  result.chip = await loader.main(mode);
  result.stub = loader.IS_STUB;
  result.flashId = await loader.readFlashId();
  if (address !== "-") {
    const data = new Uint8Array(readFileSync(file));
    const at = Number(address);
    await loader.writeFlash({
      fileArray: [{ data, address: at }],
      flashSize: "keep", flashMode: "keep", flashFreq: "keep", eraseAll: false, compress: true,
    });
    result.md5 = await loader.flashMd5sum(at, data.length);
    result.fileMd5 = createHash("md5").update(data).digest("hex");
    result.same = Buffer.compare(Buffer.from(await loader.readFlash(at, data.length)), Buffer.from(data)) === 0;
  }
  await loader.after("hard_reset");
} catch (error) {
  result.error = String(error);
}
result.lines = lines;
console.log(JSON.stringify(result));
process.exit(result.error ? 1 : 0);
