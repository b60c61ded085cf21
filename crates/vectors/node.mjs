// node node.mjs sealcast-vectors.wasm FOLDER: the same cases in WebAssembly, under Node.js alone. The program carries
// those of FOLDER, imports nothing, and gives back 0 or which area failed, counted from 1.
import { readdirSync, readFileSync } from "node:fs";

const [program, folder] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(readFileSync(program), {});
const failed = instance.exports.main(0, 0);
if (failed === 0) {
  console.log("all cases in WebAssembly, but those of key-file, which need the store");
} else {
  const entries = readdirSync(folder, { withFileTypes: true });
  const areas = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  const area = areas.sort()[failed - 1];
  console.error(area ? `${area}: a case comes out otherwise than it says` : "an area has no cases");
  process.exitCode = 1;
}
