// node node.mjs sealcast-vectors.wasm FOLDER: the same cases in WebAssembly, under Node.js alone.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [program, folder] = process.argv.slice(2);
const wasi = new WASI({
  version: "preview1",
  args: ["sealcast-vectors", "/vectors"],
  preopens: { "/vectors": folder },
  returnOnExit: true,
});
const imports = { wasi_snapshot_preview1: wasi.wasiImport };
const { instance } = await WebAssembly.instantiate(await readFile(program), imports);
process.exitCode = wasi.start(instance);
