//! How much quality does each session get while the network is as it is?

use std::time::Duration;

use crate::frame::Frame;
use crate::guest::{Loaded, Plugin, Policy};
use crate::id::SessionId;
use crate::keep::{self, Keep, Reading};
use crate::labels::Labels;
use crate::newcomer::NewSession;
use crate::reason::Reason;
use crate::registry::{Metric, Op};
use crate::settings::Settings;
use crate::state::State;
use crate::wit::degradation::exports::evenkeel::policy::degradation as abi;
use crate::wit::types;

/// A degradation policy: implement it under [`#[degradation]`](macro@crate::degradation).
///
/// The attribute fills in `type State = ()`, `type Memo = ()` and `type Reason = ()` where they are not given.
pub trait Degradation: Settings {
    /// What is remembered of a session.
    type State: State;
    /// What the policy remembers of itself.
    type Memo: State;
    /// Why it acts.
    type Reason: Reason;
    /// The metrics it reads; the gateway sends no others. By default all there are of sessions.
    const READS: &'static [Metric] = Metric::SESSION;
    /// The actions it takes; the gateway accepts no others. By default all there are.
    const OPS: &'static [Op] = Op::ALL;

    /// The first state of a session that this policy has not seen. What it wants to remember of the labels goes there.
    /// By default every field is 0, empty or `None`.
    fn open(&self, newcomer: &NewSession<'_>) -> Self::State {
        let _ = newcomer;
        crate::state::Pack::fresh()
    }

    /// What one session gets. Whatever `out` is not told stays as it is.
    fn tick(&self, session: &Session<'_, Self::State>, out: &mut Actions<Self::State, Self::Memo>);
}

/// A session, with what was measured of it and what the policy remembers of it.
#[derive(Debug)]
pub struct Session<'a, S = ()> {
    frame: &'a Frame<'a>,
    row: usize,
    state: &'a S,
}

impl<S> Session<'_, S> {
    /// Its number.
    pub fn id(&self) -> SessionId {
        SessionId(self.frame.ids[self.row])
    }

    /// What the policy remembers of it.
    pub fn state(&self) -> &S {
        self.state
    }

    /// Since the gateway started: all the clock a policy gets. A state may have come from a gateway that ran longer, so that
    /// a time in it lies ahead of this one.
    pub fn now(&self) -> Duration {
        self.frame.now()
    }

    /// A metric by its name in the registry; there is a function for each.
    pub fn measured(&self, metric: Metric) -> Option<u32> {
        self.frame.measured(self.row, metric)
    }
}

/// What a degradation policy says of the sessions, row by row; in [`Degradation::tick`] it speaks of that session.
#[derive(Debug)]
pub struct Actions<S = (), M = ()> {
    row: u32,
    granted: Box<[u32]>,
    actions: Vec<abi::Action>,
    keep: Keep<M>,
    state: std::marker::PhantomData<S>,
}

impl<S: State, M: State> Actions<S, M> {
    /// Whether the operator lets this policy take such actions. One that is not granted is dropped and counted.
    pub fn may(&self, op: Op) -> bool {
        self.granted.contains(&(op as u32))
    }

    /// Caps what the session sends, in kbit/s.
    pub fn cap(&mut self, kbps: u32) -> &mut Self {
        self.act(Op::Cap, kbps.into())
    }

    /// Takes the cap away.
    pub fn lift_cap(&mut self) -> &mut Self {
        self.act(Op::Cap, 0)
    }

    /// Sends the session voice only.
    pub fn voice_only(&mut self) -> &mut Self {
        self.act(Op::VoiceOnly, 1)
    }

    /// Sends the session its video again.
    pub fn restore_video(&mut self) -> &mut Self {
        self.act(Op::VoiceOnly, 0)
    }

    /// An action by its name in the registry; its argument is described there.
    pub fn act(&mut self, op: Op, arg: u64) -> &mut Self {
        self.actions.push(abi::Action { row: self.row, op: op as u32, arg, reason: 0 });
        self
    }

    /// Says why the action before was taken.
    pub fn because(&mut self, reason: impl Reason) -> &mut Self {
        if let Some(action) = self.actions.last_mut() {
            action.reason = reason.number();
        }
        self
    }

    /// Explains the decision about this session; see [`note`](crate::note).
    pub fn note(&mut self, key: &str, value: i64) -> &mut Self {
        crate::diag::note(self.row, key, value);
        self
    }

    /// Remembers this of the session.
    pub fn keep(&mut self, state: &S) -> &mut Self {
        self.keep.keep(self.row, state);
        self
    }

    /// What the policy remembers of itself.
    pub fn memo(&self) -> &M {
        self.keep.memo()
    }

    /// What the policy remembers of itself, to be changed.
    pub fn memo_mut(&mut self) -> &mut M {
        self.keep.memo_mut()
    }
}

pub(crate) fn open<P: Degradation>(
    loaded: &Loaded<P>,
    newcomers: &[abi::Newcomer],
) -> types::Blobs {
    let mut states = keep::no_blobs();
    for newcomer in newcomers {
        let newcomer = NewSession {
            session: SessionId(newcomer.session),
            room: crate::id::RoomId(newcomer.room),
            scenario: &newcomer.scenario,
            labels: Labels(&newcomer.labels),
            catalog: &loaded.catalog,
        };
        keep::push(&mut states, &loaded.policy.open(&newcomer));
    }
    states
}

pub(crate) fn tick<P: Degradation>(
    loaded: &Loaded<P>,
    now_us: u64,
    sessions: types::Frame,
    states: &types::Blobs,
    memo: &[u8],
) -> abi::Answer {
    let frame = Frame::new(sessions, &loaded.subject, P::READS, now_us);
    let mut out = Actions {
        row: 0,
        granted: loaded.ops.clone(),
        actions: Vec::new(),
        keep: Keep::new(memo),
        state: std::marker::PhantomData,
    };
    let reading = Reading::default();
    for row in 0..frame.len() {
        out.row = row as u32;
        let state = reading.state(keep::row(states, row));
        loaded.policy.tick(&Session { frame: &frame, row, state: &state }, &mut out);
    }
    abi::Answer { actions: out.actions, keep: out.keep.finish() }
}

impl<P: Degradation + Policy> abi::Guest for Plugin<P> {
    fn open(newcomers: Vec<abi::Newcomer>) -> types::Blobs {
        Loaded::<P>::with(|loaded| open(loaded, &newcomers))
    }

    fn tick(
        now_us: u64,
        sessions: types::Frame,
        states: types::Blobs,
        memo: Vec<u8>,
    ) -> abi::Answer {
        Loaded::<P>::with(|loaded| tick(loaded, now_us, sessions, &states, &memo))
    }
}
