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
const { instance } = await WebAssembly.instantiate(
  await readFile(program),
  wasi.getImportObject(),
);
process.exitCode = wasi.start(instance);
