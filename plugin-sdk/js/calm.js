// Degradation policy: caps a session whose jitter has been high for three ticks in a row, and takes the cap away when it
// is calm. It is the first policy of the Rust SDK's documentation, in JavaScript.
//
// Each exported object is an interface of ../wit/policy.wit with its names in camel case. Lists of numbers are typed
// arrays, `u64` and `s64` are BigInts, `option` is undefined where there is none; what is thrown is the error of a `result`.

import { note } from 'evenkeel:policy/diag@0.1.0';
import { Metric, Op } from './registry.js';

const UNMEASURED = 0xffffffff;

// Its own reasons, as in the manifest.
const Why = { Restless: 1, Calm: 2 };

// A session is restless after so many ticks.
const TICKS = 3;

let settings;
let columns;

export const guest = {
  // `settings` passed the schema in the manifest, and defaults are in place.
  init(text, grant) {
    settings = JSON.parse(text);
    columns = { jitter: grant.subjectMetrics.indexOf(Metric.JitterUp), cap: grant.subjectMetrics.indexOf(Metric.Cap) };
  },
  catalog() {},
  migrate(fromSchema) {
    throw `a state of schema ${fromSchema} cannot be read by this revision`;
  },
  migrateMemo(fromSchema) {
    throw `a memo of schema ${fromSchema} cannot be read by this revision`;
  },
};

export const degradation = {
  // What is remembered of a session is one byte: the ticks for which it was restless.
  open(newcomers) {
    const count = newcomers.length;
    return { offsets: Uint32Array.from({ length: count + 1 }, (_, row) => row), bytes: new Uint8Array(count) };
  },

  tick(nowUs, sessions, states) {
    const rows = sessions.ids.length;
    const cell = (column, row) => (column < 0 ? UNMEASURED : sessions.cells[column * rows + row]);
    const actions = [];
    const kept = { rows: [], ticks: [] };
    for (let row = 0; row < rows; row++) {
      const jitter = cell(columns.jitter, row);
      if (jitter === UNMEASURED) continue; // no news is neither good nor bad
      const cap = cell(columns.cap, row);
      const capped = cap !== UNMEASURED && cap > 0;
      const restless = jitter >= settings.jitter * 1000;
      const before = states.bytes[states.offsets[row]] ?? 0;
      const ticks = restless ? Math.min(before + 1, TICKS) : 0;
      if (ticks === TICKS && !capped) {
        actions.push({ row, op: Op.Cap, arg: BigInt(settings.cap), reason: Why.Restless });
        note(row, 'jitter_us', BigInt(jitter));
      }
      if (!restless && capped) actions.push({ row, op: Op.Cap, arg: 0n, reason: Why.Calm });
      if (ticks !== before) {
        kept.rows.push(row);
        kept.ticks.push(ticks);
      }
    }
    const offsets = Uint32Array.from({ length: kept.rows.length + 1 }, (_, at) => at);
    const bytes = Uint8Array.from(kept.ticks);
    return { actions, keep: { rows: Uint32Array.from(kept.rows), states: { offsets, bytes }, memo: undefined } };
  },
};
