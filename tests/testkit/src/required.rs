//! The check of what a test needs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::need::Need;

/// Needs that a test of this process asked for, and whether they are met.
static KNOWN: Mutex<BTreeMap<Need, bool>> = Mutex::new(BTreeMap::new());

/// Checks what the running test needs. `#[required]` calls it.
///
/// # Panics
/// The machine lacks something.
#[track_caller]
pub fn required(needs: &[Need]) {
    let lacking: Vec<&str> =
        needs.iter().filter(|need| !need.is_known_met()).map(|need| need.name()).collect();
    assert!(lacking.is_empty(), "needs {}", lacking.join(", "));
}

impl Need {
    /// # Errors
    /// The machine lacks it.
    pub fn require(self) -> Result<(), String> {
        if self.is_known_met() { Ok(()) } else { Err(format!("needs {}", self.name())) }
    }

    fn is_known_met(self) -> bool {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry(self).or_insert_with(|| self.is_met())
    }
}
