//! What a policy takes natively, on the questions that its plugin was asked. The hooks' attributes make a test of it, which
//! only `evenkeel plugin bench` runs.

use std::hint::black_box;
use std::time::{Duration, Instant};
use std::{env, fs};

use super::asked::Asked;
use super::{Trial, World, lines, notes};
use crate::admission::{Admission, Admit, admit};
use crate::degradation::{self, Degradation};
use crate::guest::{Loaded, Policy};
use crate::routing::{self, Reroute, Routing};
use crate::scenario::{self, Scenario};

/// Names the file: the settings in its first line, and a question in each of the others.
const QUESTIONS: &str = "EVENKEEL_NATIVE_QUESTIONS";

/// What is written before each line of figures, so that they are found among all else that a test writes.
const MARK: &str = "evenkeel-native";

/// Rounds of each question; what is reported is how they spread.
const ROUNDS: usize = 101;

/// About how long a round takes: long enough that the clock's own cost vanishes.
const ROUND: Duration = Duration::from_millis(1);

/// Calls in a round, at most.
const CALLS_MAX: u128 = 4_096;

/// What the questions of a round may take of memory: they are laid out before it begins.
const BYTES_MAX: u128 = 64 << 20;

/// Measures an admission policy.
pub fn admission<P: Policy + Admission>() {
    measure::<P>(|loaded, asked| {
        let asked = Admit {
            now_us: asked.now_us,
            session: asked.id,
            room: asked.id,
            standing: asked.standing_in,
            scenario: &asked.scenario,
            labels: &asked.labels,
            regions: asked.places,
        };
        black_box(admit(loaded, asked));
    });
}

/// Measures a routing policy.
pub fn routing<P: Policy + Routing>() {
    measure::<P>(|loaded, asked| {
        if asked.call == "place" {
            let Asked { now_us, id, scenario, labels, places, .. } = asked;
            drop(black_box(routing::place(loaded, now_us, id, &scenario, &labels, places)));
        } else {
            let asked = Reroute {
                now_us: asked.now_us,
                nodes: asked.places,
                rooms: asked.subjects,
                width: asked.width,
                standing: asked.standing,
                states: asked.states,
                memo: asked.memo,
            };
            drop(black_box(routing::reroute(loaded, asked)));
        }
    });
}

/// Measures a degradation policy.
pub fn degradation<P: Policy + Degradation>() {
    measure::<P>(|loaded, asked| {
        let Asked { now_us, subjects, states, memo, .. } = asked;
        drop(black_box(degradation::tick(loaded, now_us, subjects, &states, &memo)));
    });
}

/// Measures a scenario policy.
pub fn scenario<P: Policy + Scenario>() {
    measure::<P>(|loaded, asked| {
        drop(black_box(scenario::resolve(loaded, &asked.scenario, &asked.labels)));
    });
}

fn measure<P: Policy>(mut call: impl FnMut(&Loaded<P>, Asked)) {
    let file =
        env::var_os(QUESTIONS).expect("`evenkeel plugin bench` runs this, and says what to ask");
    let text = fs::read_to_string(file).expect("it says it in a file that can be read");
    let mut text = text.lines();
    let policy = P::parse(text.next().unwrap_or("{}")).expect("settings that the plugin took");
    let mut loaded = Trial::of(policy, World::around("")).loaded;
    for question in text {
        let asked = Asked::read(question).expect("a question of the same evenkeel");
        loaded.catalog = asked.catalog();
        let [min, median, p99] = spread(&asked, |asked| call(&loaded, asked));
        // A test's name may stand in the line already.
        println!("\n{MARK} {min} {median} {p99}");
    }
}

/// Nanoseconds of a call: the least, the middle one, and the one that 99 of 100 do not exceed.
fn spread(asked: &Asked, mut call: impl FnMut(Asked)) -> [u64; 3] {
    let mut round = |calls: usize| {
        let laid_out = vec![asked.clone(); calls];
        let began = Instant::now();
        laid_out.into_iter().for_each(&mut call);
        let took = began.elapsed() / calls as u32;
        // What it said is kept for tests; here nobody reads it.
        drop((notes(), lines()));
        took.as_nanos() as u64
    };
    // The first calls are dearer: memory is touched for the first time.
    round(8);
    let one = u128::from(round(8).max(1));
    let fit = (BYTES_MAX / asked.bytes() as u128).clamp(1, CALLS_MAX);
    let calls = (ROUND.as_nanos() / one).clamp(1, fit) as usize;
    let mut rounds: Vec<u64> = (0..ROUNDS).map(|_| round(calls)).collect();
    rounds.sort_unstable();
    [rounds[0], rounds[ROUNDS / 2], rounds[(ROUNDS * 99).div_ceil(100) - 1]]
}
