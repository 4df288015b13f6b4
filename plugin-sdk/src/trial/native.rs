//! Native cost of a policy for recorded questions. The hook attributes generate a test for it, which `evenkeel plugin
//! bench` runs.

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

/// Environment variable with the name of a file: its first line has the settings, each other line a question.
const QUESTIONS: &str = "EVENKEEL_NATIVE_QUESTIONS";

/// Prefix of result lines among other test output.
const MARK: &str = "evenkeel-native";

/// Number of rounds of each question; their distribution is reported.
const ROUNDS: usize = 101;

/// Approximate duration of a round, which makes the cost of reading the clock negligible.
const ROUND: Duration = Duration::from_millis(1);

/// Limit of calls per round.
const CALLS_MAX: u128 = 4_096;

/// Limit of memory for the questions of a round, which are prepared before it.
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
            regions: (&asked.places).into(),
        };
        black_box(admit(loaded, &asked));
    });
}

/// Measures a routing policy.
pub fn routing<P: Policy + Routing>() {
    measure::<P>(|loaded, asked| {
        if asked.call == "place" {
            let Asked { now_us, id, scenario, labels, places, .. } = asked;
            let nodes = (&places).into();
            drop(black_box(routing::place(loaded, now_us, id, &scenario, &labels, nodes)));
        } else {
            let asked = Reroute {
                now_us: asked.now_us,
                nodes: (&asked.places).into(),
                rooms: (&asked.subjects).into(),
                width: asked.width,
                standing: &asked.standing,
                states: (&asked.states).into(),
                memo: &asked.memo,
            };
            drop(black_box(routing::reroute(loaded, &asked)));
        }
    });
}

/// Measures a degradation policy.
pub fn degradation<P: Policy + Degradation>() {
    measure::<P>(|loaded, asked| {
        let Asked { now_us, subjects, states, memo, .. } = asked;
        let (sessions, states) = ((&subjects).into(), (&states).into());
        drop(black_box(degradation::tick(loaded, now_us, sessions, states, &memo)));
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
        // The test harness may have begun a line with the test's name.
        println!("\n{MARK} {min} {median} {p99}");
    }
}

/// Returns the nanoseconds of a call: minimum, median and 99th percentile.
fn spread(asked: &Asked, mut call: impl FnMut(Asked)) -> [u64; 3] {
    let mut round = |calls: usize| {
        let laid_out = vec![asked.clone(); calls];
        let began = Instant::now();
        laid_out.into_iter().for_each(&mut call);
        let took = began.elapsed() / calls as u32;
        // Discards log lines and notes, which are kept for tests.
        drop((notes(), lines()));
        took.as_nanos() as u64
    };
    // The first calls are slower: they touch memory for the first time.
    round(8);
    let one = u128::from(round(8).max(1));
    let fit = (BYTES_MAX / asked.bytes() as u128).clamp(1, CALLS_MAX);
    let calls = (ROUND.as_nanos() / one).clamp(1, fit) as usize;
    let mut rounds: Vec<u64> = (0..ROUNDS).map(|_| round(calls)).collect();
    rounds.sort_unstable();
    [rounds[0], rounds[ROUNDS / 2], rounds[(ROUNDS * 99).div_ceil(100) - 1]]
}
