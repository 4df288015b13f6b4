//! A degradation policy with the fault that its settings name. By default it makes media worse: it caps every session.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

use evenkeel_plugin_sdk::prelude::*;

/// Sessions that this instance was asked about: state that a policy must not have.
static ASKED: AtomicU32 = AtomicU32::new(0);

#[derive(Settings, Debug)]
pub struct Harm {
    /// The cap of a session, kbit/s.
    #[setting(default = 100, unit = "kbit/s", min = 1, max = 1000000)]
    cap: u32,
    /// The fault.
    #[setting(default = "cap")]
    fault: DegradationFault,
    /// Number of sessions that are asked about before the first fault.
    #[setting(default = 0, min = 0, max = 1000000)]
    after: u32,
    /// The fault occurs with one of this many sessions.
    #[setting(default = 1, min = 1, max = 1000000)]
    every: u32,
    /// Size of the fault: bytes that leak or that a state grows by, turns of a loop, or ticks until a state is invalid.
    #[setting(default = 1024, min = 1, max = 100000000)]
    amount: u32,
}

/// A fault of a degradation policy.
#[derive(Settings, Clone, Copy, PartialEq, Eq, Debug)]
pub enum DegradationFault {
    /// The session is capped.
    Cap,
    /// The cap depends on the number of earlier questions.
    Hidden,
    /// The session is capped and released in turns.
    Flap,
    Trap,
    Loop,
    /// The answer takes long.
    Slow,
    /// Memory is never freed.
    Leak,
    /// An access outside an array, except for the first sessions of a gateway.
    Outside,
    /// The session's state grows with each tick.
    GrowState,
    /// The session's state makes the policy fail after some ticks.
    LoseState,
    /// The policy's own state grows with each session.
    GrowMemo,
}

#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 1)]
pub struct SessionMemory {
    ticks: u32,
    bytes: Vec<u8>,
}

#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 1)]
pub struct PolicyMemory {
    bytes: Vec<u8>,
}

#[degradation]
impl Degradation for Harm {
    type State = SessionMemory;
    type Memo = PolicyMemory;

    fn tick(
        &self,
        session: &Session<'_, SessionMemory>,
        out: &mut Actions<SessionMemory, PolicyMemory>,
    ) {
        let asked = ASKED.fetch_add(1, Ordering::Relaxed);
        if asked < self.after || !(asked - self.after).is_multiple_of(self.every) {
            return;
        }
        let mut memory = session.state().clone();
        memory.ticks += 1;
        match self.fault {
            DegradationFault::Cap => _ = out.cap(self.cap),
            DegradationFault::Hidden => _ = out.cap(self.cap + asked % 7),
            DegradationFault::Flap => {
                if memory.ticks.is_multiple_of(2) {
                    out.lift_cap();
                } else {
                    out.cap(self.cap);
                }
                out.keep(&memory);
            }
            DegradationFault::Trap => panic!("asked to"),
            DegradationFault::Loop => loop {
                std::hint::spin_loop();
            },
            DegradationFault::Slow => {
                for turn in 0..self.amount {
                    black_box(turn);
                }
            }
            DegradationFault::Leak => {
                black_box(Box::leak(vec![1_u8; self.amount as usize].into_boxed_slice()));
            }
            DegradationFault::Outside => {
                let few = black_box([0_u8; 16]);
                black_box(few[session.id().0 as usize]);
            }
            DegradationFault::GrowState => {
                let length = memory.bytes.len() + self.amount as usize;
                memory.bytes.resize(length, 1);
                out.keep(&memory);
            }
            DegradationFault::LoseState => {
                assert!(memory.ticks < self.amount, "the state is invalid");
                out.keep(&memory);
            }
            DegradationFault::GrowMemo => {
                let bytes = &mut out.memo_mut().bytes;
                bytes.resize(bytes.len() + self.amount as usize, 1);
            }
        }
    }
}
