//! The degradation hook: decides how much quality each session gets in the present network.

use std::time::Duration;

use crate::data::Document;
use crate::frame::{Frame, Table};
use crate::guest::{Loaded, Plugin, Policy};
use crate::id::SessionId;
use crate::keep::{self, Keep, Reading, StateTable};
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
/// The attribute adds `type State = ()`, `type Memo = ()` and `type Reason = ()` if they are
/// missing.
pub trait Degradation: Settings {
    /// State of a session.
    type State: State;
    /// State of the policy itself.
    type Memo: State;
    /// Reasons of the policy's actions.
    type Reason: Reason;
    /// Metrics that the policy reads; the gateway sends no others. Defaults to all metrics of sessions.
    const READS: &'static [Metric] = Metric::SESSION;
    /// Actions that the policy takes; the gateway accepts no others. Defaults to all.
    const OPS: &'static [Op] = Op::ALL;
    /// Data documents in which the policy looks up. Defaults to none.
    const DATA: &'static [Document] = &[];

    /// Returns the first state of a session that is new to this policy. Later calls do not get the labels, so store the
    /// required ones here. By default every field is 0, empty or `None`.
    fn open(&self, newcomer: &NewSession<'_>) -> Self::State {
        let _ = newcomer;
        crate::state::Pack::fresh()
    }

    /// Decides on one session. Actions and states that `out` does not set remain unchanged.
    fn tick(&self, session: &Session<'_, Self::State>, out: &mut Actions<Self::State, Self::Memo>);
}

/// A session with its measures and its state.
#[derive(Debug)]
pub struct Session<'a, S = ()> {
    frame: &'a Frame<'a>,
    row: usize,
    state: &'a S,
}

impl<S> Session<'_, S> {
    /// Returns the session's number.
    pub fn id(&self) -> SessionId {
        SessionId(self.frame.ids[self.row])
    }

    /// Returns the session's state.
    pub fn state(&self) -> &S {
        self.state
    }

    /// Returns the time since the gateway started. A policy has no other clock. A state may come from a gateway that
    /// ran longer, so that a time in it may be in the future.
    pub fn now(&self) -> Duration {
        self.frame.now()
    }

    /// Returns a metric by its registry name. Each metric also has a function.
    pub fn measured(&self, metric: Metric) -> Option<u32> {
        self.frame.measured(self.row, metric)
    }

    /// Returns the cap nearest to this one that the session's scenario allows, by [`Metric::Floor`] and [`Metric::Ceiling`]. The
    /// gateway refuses others.
    pub fn within_bounds(&self, kbps: u32) -> u32 {
        let kbps = self.measured(Metric::Ceiling).map_or(kbps, |ceiling| kbps.min(ceiling));
        self.measured(Metric::Floor).map_or(kbps, |floor| kbps.max(floor))
    }
}

/// Actions on sessions, row by row. In [`Degradation::tick`] they apply to its session.
#[derive(Debug)]
pub struct Actions<S = (), M = ()> {
    row: u32,
    granted: Box<[u32]>,
    actions: Vec<abi::Action>,
    keep: Keep<M>,
    state: std::marker::PhantomData<S>,
}

impl<S: State, M: State> Actions<S, M> {
    /// Returns whether the operator grants this action. An action that is not granted is dropped and counted.
    pub fn may(&self, op: Op) -> bool {
        self.granted.contains(&(op as u32))
    }

    /// Caps the session's bit rate, in kbit/s.
    pub fn cap(&mut self, kbps: u32) -> &mut Self {
        self.act(Op::Cap, kbps.into())
    }

    /// Removes the cap.
    pub fn lift_cap(&mut self) -> &mut Self {
        self.act(Op::Cap, 0)
    }

    /// Caps the bit rate that the session sends, in kbit/s.
    pub fn cap_up(&mut self, kbps: u32) -> &mut Self {
        self.act(Op::CapUp, kbps.into())
    }

    /// Removes the cap on what the session sends.
    pub fn lift_cap_up(&mut self) -> &mut Self {
        self.act(Op::CapUp, 0)
    }

    /// Caps the bit rate that the session receives, in kbit/s.
    pub fn cap_down(&mut self, kbps: u32) -> &mut Self {
        self.act(Op::CapDown, kbps.into())
    }

    /// Removes the cap on what the session receives.
    pub fn lift_cap_down(&mut self) -> &mut Self {
        self.act(Op::CapDown, 0)
    }

    /// Drops the video sent to the session.
    pub fn voice_only(&mut self) -> &mut Self {
        self.act(Op::VoiceOnly, 1)
    }

    /// Restores the video sent to the session.
    pub fn restore_video(&mut self) -> &mut Self {
        self.act(Op::VoiceOnly, 0)
    }

    /// Drops frames of the video sent to the session: with 1 those to which no other refers, and those of the highest temporal layer; with
    /// 2 all but those of the base layer.
    pub fn thin(&mut self, level: u32) -> &mut Self {
        self.act(Op::Thin, level.into())
    }

    /// Restores the frames of the video sent to the session.
    pub fn restore_frames(&mut self) -> &mut Self {
        self.act(Op::Thin, 0)
    }

    /// Sends the session no simulcast layer of video above this one, from 1 for the lowest on.
    pub fn limit_layer(&mut self, highest: u32) -> &mut Self {
        self.act(Op::Layer, highest.into())
    }

    /// Removes the limit on simulcast layers.
    pub fn restore_layers(&mut self) -> &mut Self {
        self.act(Op::Layer, 0)
    }

    /// Suspends the session, if [`may`](Actions::may) grants it.
    pub fn park(&mut self) -> &mut Self {
        self.act(Op::Park, 1)
    }

    /// Resumes a suspended session.
    pub fn resume(&mut self) -> &mut Self {
        self.act(Op::Park, 0)
    }

    /// Ends the session, if [`may`](Actions::may) grants it.
    pub fn end(&mut self) -> &mut Self {
        self.act(Op::End, 1)
    }

    /// Takes an action by its registry name, which documents the argument.
    pub fn act(&mut self, op: Op, arg: u64) -> &mut Self {
        self.actions.push(abi::Action { row: self.row, op: op as u32, arg, reason: 0 });
        self
    }

    /// Adds the reason of the previous action.
    pub fn because(&mut self, reason: impl Reason) -> &mut Self {
        if let Some(action) = self.actions.last_mut() {
            action.reason = reason.number();
        }
        self
    }

    /// Adds a note on this session; see [`note`](crate::note).
    pub fn note(&mut self, key: &str, value: i64) -> &mut Self {
        crate::diag::note(self.row, key, value);
        self
    }

    /// Sets the session's state.
    pub fn keep(&mut self, state: &S) -> &mut Self {
        self.keep.keep(self.row, state);
        self
    }

    /// Returns the policy's own state.
    pub fn memo(&self) -> &M {
        self.keep.memo()
    }

    /// Returns the policy's own state, mutable.
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
    sessions: Table<'_>,
    states: StateTable<'_>,
    memo: &[u8],
) -> abi::Answer {
    let frame = Frame::new(sessions, &loaded.subject, P::READS, now_us);
    let mut out = Actions {
        row: 0,
        granted: loaded.ops.clone(),
        actions: Vec::new(),
        keep: Keep::new(memo, states),
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
        let (sessions, states) = ((&sessions).into(), (&states).into());
        Loaded::<P>::with(|loaded| tick(loaded, now_us, sessions, states, &memo))
    }
}
