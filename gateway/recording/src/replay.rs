//! States and memos that a replayed plugin wrote; they replace the recorded ones.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_core::{Answer, PolicyName, Question, State};

/// States written during a replay. A plugin reads only its own states, so once it has written a state for a session or
/// room, that state replaces the recorded one.
#[derive(Default, Debug)]
pub struct ReplayState {
    states: HashMap<(PolicyName, u64), State>,
    memos: HashMap<PolicyName, State>,
}

impl ReplayState {
    /// Returns the last state written for a session or room.
    pub fn state_of(&self, policy: &PolicyName, id: u64) -> Option<&State> {
        self.states.get(&(policy.clone(), id))
    }

    /// Returns the question with recorded states replaced by those written so far.
    pub fn applied_to(&self, policy: &PolicyName, question: &Arc<Question>) -> Arc<Question> {
        let mut question = Arc::clone(question);
        if !matches!(*question, Question::Reroute { .. } | Question::Tick { .. }) {
            return question;
        }
        let state = |id: u64, recorded: &mut Option<State>| {
            if let Some(own) = self.state_of(policy, id) {
                *recorded = Some(own.clone());
            }
        };
        let replace_memo = |memo: &mut Option<State>| {
            if let Some(own) = self.memos.get(policy) {
                *memo = Some(own.clone());
            }
        };
        match Arc::make_mut(&mut question) {
            Question::Resolve { .. } | Question::Admit { .. } | Question::Place { .. } => {}
            Question::Reroute { nodes: _, rooms, memo } => {
                rooms.iter_mut().for_each(|room| state(room.row.id, &mut room.state));
                replace_memo(memo);
            }
            Question::Tick { sessions, memo } => {
                sessions.iter_mut().for_each(|session| state(session.row.id, &mut session.state));
                replace_memo(memo);
            }
        }
        question
    }

    pub fn update(&mut self, policy: &PolicyName, question: &Question, answer: &Answer) {
        let (states, memo) = match answer {
            Answer::Params(_) | Answer::Admit { .. } => return,
            Answer::Placed { state, .. } => {
                if let Question::Place { room, .. } = question {
                    self.states.insert((policy.clone(), room.0), state.clone());
                }
                return;
            }
            Answer::Moves { moves: _, states, memo }
            | Answer::Actions { actions: _, states, memo } => (states, memo),
        };
        let id = |row: u32| match question {
            Question::Reroute { rooms, .. } => rooms.get(row as usize).map(|room| room.row.id),
            Question::Tick { sessions, .. } => {
                sessions.get(row as usize).map(|session| session.row.id)
            }
            Question::Resolve { .. } | Question::Admit { .. } | Question::Place { .. } => None,
        };
        for (row, state) in states {
            if let Some(id) = id(*row) {
                self.states.insert((policy.clone(), id), state.clone());
            }
        }
        if let Some(memo) = memo {
            self.memos.insert(policy.clone(), memo.clone());
        }
    }
}
