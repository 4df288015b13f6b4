//! What a plugin wrote so far of what it is asked again: it gets that in the place of what was recorded.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_core::{Answer, PolicyName, Question, State};

/// States and memos that a plugin wrote, by policy. A plugin that was not the recorded one has no other states than these:
/// about a session or room that it wrote of before it gets what it wrote, else what was recorded.
#[derive(Default, Debug)]
pub struct Written {
    states: HashMap<(PolicyName, u64), State>,
    memos: HashMap<PolicyName, State>,
}

impl Written {
    /// What it wrote last of a session or a room.
    pub fn state_of(&self, policy: &PolicyName, id: u64) -> Option<&State> {
        self.states.get(&(policy.clone(), id))
    }

    /// The question with what was written in the place of what was recorded.
    pub fn carried_into(&self, policy: &PolicyName, question: &Arc<Question>) -> Arc<Question> {
        let mut question = Arc::clone(question);
        if !matches!(*question, Question::Reroute { .. } | Question::Tick { .. }) {
            return question;
        }
        let state = |id: u64, recorded: &mut Option<State>| {
            if let Some(own) = self.state_of(policy, id) {
                *recorded = Some(own.clone());
            }
        };
        let of_memo = |memo: &mut Option<State>| {
            if let Some(own) = self.memos.get(policy) {
                *memo = Some(own.clone());
            }
        };
        match Arc::make_mut(&mut question) {
            Question::Resolve { .. } | Question::Admit { .. } | Question::Place { .. } => {}
            Question::Reroute { nodes: _, rooms, memo } => {
                rooms.iter_mut().for_each(|room| state(room.row.id, &mut room.state));
                of_memo(memo);
            }
            Question::Tick { sessions, memo } => {
                sessions.iter_mut().for_each(|session| state(session.row.id, &mut session.state));
                of_memo(memo);
            }
        }
        question
    }

    /// Keeps what an answer wrote.
    pub fn keep(&mut self, policy: &PolicyName, question: &Question, answer: &Answer) {
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
