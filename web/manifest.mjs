// Manifests of ESP Web Tools: which files to write to which chip. Only fields that are used here are checked.

const ESPRESSIF = 0x303a;
const NATIVE_USB = new Set([0x0002, 0x0009, 0x0012, 0x001f, 0x0020, 0x1001]); // its product ids; a test compares them with chips/
const USED = new Set(["name", "version", "builds", "new_install_prompt_erase", "new_install_skip_erase"]);
const LAST_ADDRESS = 0xffffffff;
const SCHEMES = new Set(["http:", "https:", "blob:", "data:"]);
const OTHER_CONTENT = [
  [/^<(!doctype html|html)\b/i, "a web page"],
  [/^version https:\/\/git-lfs/, "a Git LFS pointer"],
];
const MOST_BYTES = 128 * 1024 * 1024; // of a build: the largest flash

/** An error for the user. */
export class Refusal extends Error {
  constructor(code, message, hint) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

const wrong = (what) => new Refusal("manifest", `The manifest cannot be used: ${what}.`, "Report this to the owner of this page.");
const incomplete = (name) => new Refusal("not-loaded", `${name} is incomplete: the connection was closed.`, "Check the network connection, then try again.");
const normalize = (family) => family.toLowerCase().replace(/[^a-z0-9]/g, "");
const listNames = (parts) => parts.map((part) => part.path.split("/").pop()).join(", ");

/** The host of an address, or its scheme if it has none. */
const nameSite = (url) => url.host || url.protocol;

async function load(url, signal, name) {
  let reply;
  try {
    reply = await fetch(url, { signal });
  } catch (error) {
    if (signal.aborted) throw error;
    if (url.origin === location.origin) throw new Refusal("not-loaded", `${name} cannot be loaded.`, "Check the network connection. A redirect to another site is refused, too.");
    throw new Refusal(
      "other-site",
      `${name} is on another site, ${nameSite(url)}, and cannot be loaded from this page.`,
      "The owner of this page can host the file next to the page. Otherwise the other site must allow this page (CORS), and connect-src in the policy of this page must contain the other site.",
    );
  }
  if (!reply.ok) throw new Refusal("not-loaded", `${name} cannot be loaded: ${url.href} answers ${reply.status}.`, "Report this to the owner of this page.");
  return reply;
}

/** An address in the manifest. */
function resolve(path, base) {
  let url;
  try {
    url = new URL(path, base);
  } catch {
    throw wrong(`${path} is not an address`);
  }
  if (!SCHEMES.has(url.protocol)) throw wrong(`${path} is not an address that a browser can load`);
  return url;
}

function checkPart(part, base) {
  if (typeof part?.path !== "string" || !part.path.trim()) throw wrong("a part has no path");
  const { path, offset } = part;
  if (typeof offset === "string") throw wrong(`the offset of ${path} is the text "${offset}", but must be a number, such as 4096 for 0x1000`);
  if (!Number.isInteger(offset) || offset < 0 || offset > LAST_ADDRESS) throw wrong(`${path} has no valid offset`);
  const url = resolve(path, base);
  if (url.href.split("#")[0] === base.split("#")[0]) throw wrong(`the path "${path}" is the address of the manifest itself`);
  return { path, offset, url };
}

function checkBuild(build, base) {
  if (typeof build?.chipFamily !== "string") throw wrong("a build has no chipFamily");
  if (!Array.isArray(build.parts) || !build.parts.length) throw wrong(`the build for ${build.chipFamily} has no parts`);
  const parts = build.parts.map((part) => checkPart(part, base));
  for (const [index, part] of parts.entries()) {
    const other = parts.slice(0, index).find(({ offset }) => offset === part.offset);
    if (other) throw wrong(`${other.path} and ${part.path} have the same offset`);
  }
  const label = typeof build.name === "string" ? build.name : listNames(parts);
  return { family: build.chipFamily, connection: build.serialType, label, parts, ignored: build.improv === undefined ? [] : ["improv"] };
}

/** Read a manifest: {title, builds: [{family, connection, label, parts: [{path, offset, url}]}], offersErase}. */
export async function loadManifest(address, signal) {
  if (!address) throw wrong('the element has no attribute "manifest"');
  const url = resolve(address, location.href);
  const reply = await load(url, signal, "The manifest");
  let data;
  try {
    data = await reply.json();
  } catch (error) {
    if (signal.aborted) throw error;
    if (!(error instanceof SyntaxError)) throw incomplete("The manifest");
    throw wrong(`it is not JSON (${error.message})`);
  }
  if (!Array.isArray(data?.builds) || !data.builds.length) throw wrong("it has no builds");
  const base = url.host ? reply.url || url.href : location.href; // a blob: or data: address has no folder
  const builds = data.builds.map((build) => checkBuild(build, base));
  const ignored = [...new Set([...Object.keys(data).filter((key) => !USED.has(key)), ...builds.flatMap((build) => build.ignored)])];
  if (ignored.length) console.info(`espwire ignores these keys of the manifest: ${ignored.join(", ")}. It does not set up Wi-Fi (Improv).`);
  const title = [data.name, data.version].filter((value) => typeof value === "string" || typeof value === "number").join(" ");
  return { title: title || "firmware", builds, offersErase: data.new_install_skip_erase !== true };
}

/** Check that this page may load the parts that are on other sites, without loading them. */
export async function checkSites(manifest, signal) {
  const parts = manifest.builds.flatMap((build) => build.parts).filter((part) => part.url.origin !== location.origin);
  const distinct = new Map(parts.map((part) => [part.url.href, part]));
  for (const part of distinct.values()) await (await load(part.url, signal, part.path)).body?.cancel();
}

/**
 * The builds for a chip. Builds for the kind of connection (serialType) win over builds without it.
 * @param port has the USB ids `vid` and `pid`; null: not a USB device
 */
export function findBuilds(manifest, chip, port) {
  const builds = manifest.builds.filter((build) => normalize(build.family) === normalize(chip));
  const connection = port.vid === ESPRESSIF && NATIVE_USB.has(port.pid) ? "cdc" : "uart";
  const exact = builds.filter((build) => build.connection === connection);
  return exact.length ? exact : builds.filter((build) => build.connection === undefined);
}

/** The chips that have builds, with the kind of connection if only boards with it can use the build. */
export function listFamilies(manifest) {
  const names = manifest.builds.map(({ family, connection }) => (connection === undefined ? family : `${family} (serialType ${connection})`));
  return [...new Set(names)].join(", ");
}

/** The content of a reply, of which at most `most` bytes are loaded, whatever its headers say. */
async function loadContent(reply, most, part, signal) {
  const chunks = [];
  let left = most;
  try {
    for await (const chunk of reply.body) {
      left -= chunk.length;
      if (left < 0) throw new Refusal("not-loaded", `${part.path} is too large for a flash.`, "Report this to the owner of this page.");
      chunks.push(chunk);
    }
  } catch (error) {
    if (signal.aborted || error instanceof Refusal) throw error;
    throw incomplete(part.path);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** Sites answer with such files instead of the firmware, and with status 200. */
function checkContent(part, data) {
  const start = new TextDecoder().decode(data.subarray(0, 100)).trimStart();
  const other = OTHER_CONTENT.find(([pattern]) => pattern.test(start));
  if (other) throw new Refusal("not-loaded", `${part.url.href} is ${other[1]}, not firmware.`, "Report this to the owner of this page.");
}

/** The contents of a build's parts: [{offset, name, data}]. */
export async function loadParts(build, signal) {
  const files = [];
  let left = MOST_BYTES;
  for (const [index, part] of build.parts.entries()) {
    const data = await loadContent(await load(part.url, signal, part.path), left, part, signal);
    left -= data.length;
    checkContent(part, data);
    const name = part.url.pathname.split("/").pop().slice(-60).replace(/[^\w.-]+/g, "_");
    files.push({ offset: part.offset, name: `${index}/${name || "part"}`, data });
  }
  return files;
}
