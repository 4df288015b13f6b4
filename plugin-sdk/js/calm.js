// Degradation policy: caps a session after three ticks of high jitter, and removes the cap when the jitter is low again.
// The example of the Rust SDK's documentation, in JavaScript.
//
// Each exported object is an interface of ../wit/policy.wit with its names in camel case. Lists of numbers are typed
// arrays, `u64` and `s64` are BigInts, an empty `option` is undefined; a thrown value is the error of a `result`.

import { note } from 'evenkeel:policy/diag@0.1.1';
import { Metric, Op } from './registry.js';

const UNMEASURED = 0xffffffff;

// Its own reasons, as in the manifest.
const Why = { Restless: 1, Calm: 2 };

// A session is restless after so many ticks.
const TICKS = 3;

let settings;
let columns;

export const guest = {
  // `settings` are validated against the manifest, with defaults filled in.
  init(text, grant) {
    settings = JSON.parse(text);
    const column = (metric) => grant.subjectMetrics.indexOf(metric);
    columns = {
      jitter: column(Metric.JitterUp),
      cap: column(Metric.Cap),
      floor: column(Metric.Floor),
      ceiling: column(Metric.Ceiling),
    };
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
  // State of a session: one byte, the number of restless ticks.
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
      if (jitter === UNMEASURED) continue; // changes nothing
      const cap = cell(columns.cap, row);
      const capped = cap !== UNMEASURED && cap > 0;
      const restless = jitter >= settings.jitter * 1000;
      const before = states.bytes[states.offsets[row]] ?? 0;
      const ticks = restless ? Math.min(before + 1, TICKS) : 0;
      if (ticks === TICKS && !capped) {
        // The gateway refuses a cap outside of the scenario's bounds.
        const [floor, ceiling] = [cell(columns.floor, row), cell(columns.ceiling, row)];
        const within = Math.min(settings.cap, ceiling);
        const kbps = floor === UNMEASURED ? within : Math.max(within, floor);
        actions.push({ row, op: Op.Cap, arg: BigInt(kbps), reason: Why.Restless });
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
