//! A policy for the host's tests. It implements every hook, and fails in the way that its settings name.

wit_bindgen::generate!({
    inline: "
        package test:guest;
        world every-hook {
            import evenkeel:policy/diag@0.1.1;
            export evenkeel:policy/guest@0.1.1;
            export evenkeel:policy/admission@0.1.1;
            export evenkeel:policy/routing@0.1.1;
            export evenkeel:policy/degradation@0.1.1;
            export evenkeel:policy/scenario@0.1.1;
        }
    ",
    path: "../../../../plugin-sdk/wit",
    world: "test:guest/every-hook",
    generate_all,
});

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use evenkeel::policy::diag;
use evenkeel::policy::types::{Blobs, Entry, Frame, Keep, Label};
use exports::evenkeel::policy::{admission, degradation, guest, routing, scenario};

struct Policy;

export!(Policy);

static MODE: Mutex<String> = Mutex::new(String::new());
static SEED: AtomicU64 = AtomicU64::new(0);
static ENTRIES: AtomicU64 = AtomicU64::new(0);
/// Calls since this instance was created: hidden state, which a policy must not have.
static CALLS: AtomicU64 = AtomicU64::new(0);

fn mode() -> String {
    MODE.lock().map(|mode| mode.clone()).unwrap_or_default()
}

#[allow(clippy::empty_loop)]
fn forever() -> ! {
    loop {}
}

fn blobs(states: impl IntoIterator<Item = Vec<u8>>) -> Blobs {
    let mut blobs = Blobs { offsets: vec![0], bytes: Vec::new() };
    for state in states {
        blobs.bytes.extend(state);
        blobs.offsets.push(blobs.bytes.len() as u32);
    }
    blobs
}

fn state(blobs: &Blobs, row: usize) -> &[u8] {
    &blobs.bytes[blobs.offsets[row] as usize..blobs.offsets[row + 1] as usize]
}

impl guest::Guest for Policy {
    fn init(settings: String, grant: guest::Grant) -> Result<(), String> {
        let mode = settings.split('"').nth(3).unwrap_or_default().to_owned();
        SEED.store(grant.seed, Relaxed);
        match mode.as_str() {
            "loop-in-init" => forever(),
            "refuse" => return Err("no such tier".into()),
            "trap-in-init" => panic!(),
            _ => {}
        }
        *MODE.lock().map_err(|_| "poisoned")? = mode;
        Ok(())
    }

    fn catalog(entries: Vec<Entry>) {
        ENTRIES.store(entries.len() as u64, Relaxed);
        if entries.iter().any(|entry| entry.name == "trap") {
            panic!();
        }
    }

    /// Returns the old schema, then the old state.
    fn migrate(from_schema: u32, states: Blobs) -> Result<Blobs, String> {
        if mode() == "unwilling" {
            return Err("cannot read that".into());
        }
        let rows = 0..states.offsets.len() - 1;
        Ok(blobs(rows.map(|row| [&[from_schema as u8], state(&states, row)].concat())))
    }

    fn migrate_memo(from_schema: u32, memo: Vec<u8>) -> Result<Vec<u8>, String> {
        Ok([&[from_schema as u8], &memo[..]].concat())
    }
}

impl admission::Guest for Policy {
    fn admit(
        now_us: u64,
        session: u64,
        room: u64,
        standing: Option<u64>,
        scenario: String,
        labels: Vec<Label>,
        regions: Frame,
    ) -> admission::Answer {
        diag::note(0, "now", now_us as i64);
        diag::note(0, "session", session as i64);
        diag::note(0, "room", room as i64);
        diag::note(0, &scenario, labels.len() as i64);
        let verdict = match (mode().as_str(), standing) {
            ("abstain", _) => admission::Verdict::Abstain,
            ("accept", _) => admission::Verdict::Accept,
            ("cap", _) => admission::Verdict::AcceptCapped(64),
            ("reject", _) => admission::Verdict::Reject(500),
            ("far", _) => admission::Verdict::Redirect(u64::MAX),
            (_, Some(region)) => admission::Verdict::Redirect(region + 1),
            (_, None) => admission::Verdict::Redirect(regions.ids[0]),
        };
        admission::Answer { verdict, reason: regions.cells[0] }
    }
}

impl routing::Guest for Policy {
    /// Places the room on every node, the last one first.
    fn place(_: u64, room: u64, _: String, _: Vec<Label>, nodes: Frame) -> routing::Placement {
        let hops = nodes.ids.iter().rev().map(|&id| id as u32).collect();
        let state = if mode() == "large-state" { vec![0; 4097] } else { vec![room as u8] };
        routing::Placement { hops, ttl_ms: 5, reason: ENTRIES.load(Relaxed) as u32, state }
    }

    fn open(newcomers: Vec<routing::Newcomer>) -> Blobs {
        blobs(newcomers.iter().map(|newcomer| vec![newcomer.room as u8]))
    }

    /// Moves every room to its last hop.
    fn reroute(
        _: u64,
        nodes: Frame,
        rooms: Frame,
        width: u32,
        standing: Vec<u32>,
        states: Blobs,
        _: Vec<u8>,
    ) -> routing::Answer {
        let mut moves = Vec::new();
        for row in 0..rooms.ids.len() {
            let hops = &standing[row * width as usize..(row + 1) * width as usize];
            let last = hops.iter().rev().find(|&&hop| hop != u32::MAX);
            poison(rooms.cells[row]);
            moves.push(routing::Move {
                row: row as u32,
                hops: last.into_iter().copied().collect(),
                ttl_ms: u32::from(state(&states, row)[0]),
                reason: nodes.cells[0],
            });
        }
        let keep = Keep { rows: vec![], states: Blobs { offsets: vec![], bytes: vec![] }, memo: None };
        routing::Answer { moves, keep }
    }
}

impl degradation::Guest for Policy {
    fn open(newcomers: Vec<degradation::Newcomer>) -> Blobs {
        blobs(newcomers.iter().map(|newcomer| vec![newcomer.labels.len() as u8]))
    }

    /// Increments the first byte of each state and of the memo. Caps each session at its first cell.
    fn tick(_: u64, sessions: Frame, states: Blobs, memo: Vec<u8>) -> degradation::Answer {
        let rows = sessions.ids.len();
        let calls = CALLS.fetch_add(1, Relaxed);
        let mut keep = Keep { rows: Vec::new(), states: blobs([]), memo: None };
        let mut actions = Vec::new();
        let mode = mode();
        match mode.as_str() {
            "quiet" => return degradation::Answer { actions, keep },
            "still" => {}
            _ => {
                keep.rows = (0..rows as u32).collect();
                keep.states = blobs((0..rows).map(|row| {
                    let mut state = state(&states, row).to_vec();
                    if let Some(count) = state.first_mut() {
                        *count += 1;
                    }
                    state
                }));
                keep.memo = Some(vec![memo.first().map_or(1, |count| count + 1)]);
            }
        }
        for row in 0..rows {
            let arg = u64::from(sessions.cells[row]);
            let op = if mode == "voice-only" { 2 } else { 1 };
            let reason = if mode.starts_with("hide-in") { 0 } else { calls as u32 };
            actions.push(degradation::Action { row: row as u32, op, arg, reason });
            for (column, cells) in sessions.cells.chunks(rows).enumerate() {
                diag::note(row as u32, &format!("column-{column}"), i64::from(cells[row]));
            }
            if sessions.cells[row] == 666 {
                diag::log(4, "no plan for 666");
                panic!();
            }
            poison(sessions.cells[row]);
        }
        match mode.as_str() {
            "loop-in-tick" => forever(),
            "memory-bomb" => hoard(),
            "hungry" if rows > 1_000 => hoard(),
            "deep" => diag::note(0, "depth", deep(0) as i64),
            "talk" => (0..10_001).for_each(|_| diag::log(2, "again")),
            "offsets" => keep.states.offsets = vec![0, 9, 1],
            "offsets-few" => keep.states.offsets = vec![0],
            "row" => {
                keep.rows = vec![rows as u32];
                keep.states = blobs([vec![0]]);
            }
            "large-state" => {
                keep.rows = vec![0];
                keep.states = blobs([vec![0; 4097]]);
            }
            "large-memo" => keep.memo = Some(vec![0; 65_537]),
            "flood" => actions = vec![actions[0]; 200_000],
            "hide-in-state" => {
                keep.rows = vec![0];
                keep.states = blobs([vec![calls as u8]]);
            }
            "hide-in-memo" => keep.memo = Some(vec![calls as u8]),
            "hide-in-notes" => diag::note(0, "calls", calls as i64),
            "most" => actions = vec![actions[0]; 16 * rows],
            "too-many" => actions = vec![actions[0]; 16 * rows + 1],
            _ => {}
        }
        degradation::Answer { actions, keep }
    }
}

fn deep(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 16]);
    if depth == u64::MAX { 0 } else { deep(here[0] + 1) + here[1] }
}

impl scenario::Guest for Policy {
    fn resolve(scenario: String, labels: Vec<Label>) -> Vec<scenario::Param> {
        let param = |key: &str, value: i64| scenario::Param { key: key.into(), value };
        vec![
            param("spares", labels.len() as i64),
            param(&scenario, ENTRIES.load(Relaxed) as i64),
            param("seed", SEED.load(Relaxed) as i64),
        ]
    }
}

fn hoard() {
    let mut hoard = Vec::new();
    while hoard.len() < usize::MAX {
        // Its pages are not touched, which would take longer than a call may.
        hoard.push(core::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
    }
}

/// Fails on particular cells, each in its way.
fn poison(cell: u32) {
    match cell {
        777 => forever(),
        778 => hoard(),
        779 => panic!(),
        _ => {}
    }
}
