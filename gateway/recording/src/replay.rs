//! States and memos that a replayed plugin wrote; they replace the recorded ones.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_model::{HookAnswer, PluginState, PolicyName, PolicyQuestion};

/// States written during a replay. A plugin reads only its own states, so once it has written a state for a session or
/// room, that state replaces the recorded one.
#[derive(Default, Debug)]
pub struct ReplayState {
    states: HashMap<(PolicyName, u64), PluginState>,
    memos: HashMap<PolicyName, PluginState>,
}

impl ReplayState {
    /// Returns the last state written for a session or room.
    pub fn state_of(&self, policy: &PolicyName, id: u64) -> Option<&PluginState> {
        self.states.get(&(policy.clone(), id))
    }

    /// Returns the question with recorded states replaced by those written so far.
    pub fn applied_to(
        &self,
        policy: &PolicyName,
        question: &Arc<PolicyQuestion>,
    ) -> Arc<PolicyQuestion> {
        let mut question = Arc::clone(question);
        if !matches!(*question, PolicyQuestion::Reroute { .. } | PolicyQuestion::Tick { .. }) {
            return question;
        }
        let state = |id: u64, recorded: &mut Option<PluginState>| {
            if let Some(own) = self.state_of(policy, id) {
                *recorded = Some(own.clone());
            }
        };
        let replace_memo = |memo: &mut Option<PluginState>| {
            if let Some(own) = self.memos.get(policy) {
                *memo = Some(own.clone());
            }
        };
        match Arc::make_mut(&mut question) {
            PolicyQuestion::Reroute { nodes: _, rooms, memo } => {
                rooms.iter_mut().for_each(|room| state(room.row.id, &mut room.state));
                replace_memo(memo);
            }
            PolicyQuestion::Tick { sessions, memo } => {
                sessions.iter_mut().for_each(|session| state(session.row.id, &mut session.state));
                replace_memo(memo);
            }
            _ => {}
        }
        question
    }

    /// Returns the question with states written so far where it has none.
    pub fn completed(&self, policy: &PolicyName, mut question: PolicyQuestion) -> PolicyQuestion {
        let state = |id: u64, asked: &mut Option<PluginState>| {
            if asked.is_none() {
                *asked = self.state_of(policy, id).cloned();
            }
        };
        let memo = match &mut question {
            PolicyQuestion::Reroute { nodes: _, rooms, memo } => {
                rooms.iter_mut().for_each(|room| state(room.row.id, &mut room.state));
                memo
            }
            PolicyQuestion::Tick { sessions, memo } => {
                sessions.iter_mut().for_each(|session| state(session.row.id, &mut session.state));
                memo
            }
            PolicyQuestion::Resolve { .. }
            | PolicyQuestion::Admit { .. }
            | PolicyQuestion::Place { .. } => return question,
        };
        if memo.is_none() {
            *memo = self.memos.get(policy).cloned();
        }
        question
    }

    /// Takes over the states that the answer returned.
    pub fn update(&mut self, policy: &PolicyName, question: &PolicyQuestion, answer: &HookAnswer) {
        let (states, memo) = match answer {
            HookAnswer::Params(_) | HookAnswer::Admit { .. } => return,
            HookAnswer::Placed { state, .. } => {
                if let PolicyQuestion::Place { room, .. } = question {
                    self.states.insert((policy.clone(), room.0), state.clone());
                }
                return;
            }
            HookAnswer::Moves { moves: _, states, memo }
            | HookAnswer::Actions { actions: _, states, memo } => (states, memo),
        };
        let ids = question.batch().unwrap_or_default();
        for (row, state) in states {
            if let Some(id) = ids.get(*row as usize) {
                self.states.insert((policy.clone(), *id), state.clone());
            }
        }
        if let Some(memo) = memo {
            self.memos.insert(policy.clone(), memo.clone());
        }
    }
}
