//! Proof that a fault did what it was to do: a row whose fault did nothing says nothing.

use evenkeel_lab::crowd::{Page, Reckoning};

use super::{Fault, Struck};
use crate::stage::Stage;

impl Fault {
    /// What was to be seen of it and is not, before it is undone.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(crate) async fn unproven(
        self,
        stage: &Stage,
        struck: &Struck,
        page: &Page,
        reckoning: &Reckoning,
    ) -> Result<Vec<String>, String> {
        match self {
            Fault::Drain(_) => drained(stage, &struck.names, page).await,
            Fault::Move(rooms) => Ok(moved(rooms, page, reckoning)),
            _ => Ok(Vec::new()),
        }
    }
}

/// Each of these nodes is said to be empty, and is.
async fn drained(stage: &Stage, names: &[String], page: &Page) -> Result<Vec<String>, String> {
    let is_said = |name: &&String| {
        page.events().iter().any(|event| {
            event.name == "drained"
                && event.data["node"] == name.as_str()
                && event.data["left"] == 0
        })
    };
    let unsaid = names.iter().filter(|name| !is_said(name));
    let mut unproven: Vec<String> =
        unsaid.map(|name| format!("{name} was not said to be drained with nothing left")).collect();
    let left = stage.sessions_on(names).await?.len();
    if left > 0 {
        unproven.push(format!("{left} sessions are still on what was drained"));
    }
    Ok(unproven)
}

/// So many rooms went by hand, and none was given up.
fn moved(rooms: usize, page: &Page, reckoning: &Reckoning) -> Vec<String> {
    let moved = reckoning.causes.get("manual").copied().unwrap_or(0);
    let given_up = page.events().iter().filter(|event| event.name == "move-ended").count();
    let is_proven = moved == rooms as u64 && given_up == 0;
    let unproven = (!is_proven)
        .then(|| format!("of {rooms} moves by hand {moved} were done and {given_up} given up"));
    unproven.into_iter().collect()
}
