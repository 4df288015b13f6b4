// Builds a plugin from a policy in JavaScript: `node build.mjs POLICY.js MANIFEST.json WORLD OUT.wasm`.
//
// WORLD is a world of ../wit/policy.wit: `degradation-policy`, or `degradation-policy-with-data` to look up in data
// documents. The plugin contains the policy and a JavaScript engine
// (SpiderMonkey, 12 MB) without its system imports: a policy may import `diag` and `data`, and other imports are refused here
// as in the gateway.

import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { componentize } from '@bytecodealliance/componentize-js';

const [source, manifest, worldName, out] = process.argv.slice(2);
if (!out) {
  console.error('usage: node build.mjs POLICY.js MANIFEST.json WORLD OUT.wasm');
  process.exit(2);
}

// `stdio` of the engine would report exceptions and traps; the gateway has none.
const outside = ['clocks', 'fetch-event', 'http', 'random', 'stdio'];
const witPath = join(dirname(fileURLToPath(import.meta.url)), '..', 'wit');
const { component, imports } = await componentize({ sourcePath: source, witPath, worldName, disableFeatures: outside });
const foreign = imports.filter(([name]) => !name.startsWith('evenkeel:policy/'));
if (foreign.length > 0) {
  console.error(`the policy imports ${foreign.map((names) => names.join('#')).join(', ')}, but only diag and data are there`);
  process.exit(1);
}

// The manifest becomes a custom section at the end of the component: number, length, name, JSON.
const number = (value) => {
  const bytes = [];
  for (; value >= 0x80; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return [...bytes, value];
};
const json = Buffer.from(JSON.stringify(JSON.parse(await readFile(manifest, 'utf8'))));
const name = Buffer.from('evenkeel:manifest');
const section = Buffer.concat([Buffer.from(number(name.length)), name, json]);
const head = Buffer.from([0, ...number(section.length)]);
await writeFile(out, Buffer.concat([component, head, section]));
