//! The gateway panics over a packet of one session: that costs this one, and nobody else anything.

use std::time::Duration;

use evenkeel_lab::admin::Event;
use evenkeel_lab::crowd::Crowd;
use serde_json::json;

use crate::stage::Stage;

/// Its node sends it something every 20 ms.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);
/// How often its client looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The id and the number of who is hit this time: one who listens, so that nobody misses what it would have said.
pub(super) fn victim(crowd: &Crowd, turn: u32) -> Result<(String, u64), String> {
    let number = 2 * (u64::from(turn) + 1);
    let found = crowd.by_id().iter().find(|(_, known)| **known == number);
    let (id, _) = found.ok_or(format!("no session {number}"))?;
    Ok((id.clone(), number))
}

/// It is broken, its client sees it closed, and comes again.
pub(super) async fn strike(stage: &Stage, crowd: &mut Crowd, turn: u32) -> Result<(), String> {
    let (id, number) = victim(crowd, turn)?;
    let mut admin = stage.admin();
    let asked = admin.post(&format!("/v1/sessions/{id}:break"), &json!({"how": "panic"})).await;
    asked.map_err(|error| format!("breaking {id}: {error}"))?;
    let is_closed = async {
        while !crowd.heard().all().iter().any(|event| ends(event, &id)) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let closed = tokio::time::timeout(CLOSED_WITHIN, is_closed).await;
    closed.map_err(|_| format!("{id} was not closed"))?;
    crowd.come_again(number, || stage.admin()).await.map_err(|error| error.to_string())
}

fn ends(event: &Event, id: &str) -> bool {
    event.name == "closed" && event.data["session"] == id
}

/// One session was closed, for that reason.
pub(super) fn closed_one(events: &[Event]) -> Result<(), String> {
    let closed = events.iter().filter(|event| event.name == "closed");
    let reasons: Vec<_> = closed.map(|event| event.data["reason"].clone()).collect();
    if reasons == ["panicked"] {
        Ok(())
    } else {
        Err(format!("sessions were closed for {reasons:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_proven_where_one_session_was_closed_for_it_and_no_other_was_closed() {
        let closed = |reason: &str| {
            let data = json!({"session": "s1", "reason": reason});
            Event { name: "closed".to_owned(), id: None, data }
        };
        assert_eq!(closed_one(&[closed("panicked")]), Ok(()));
        assert!(closed_one(&[]).is_err());
        assert!(closed_one(&[closed("silent")]).is_err());
        assert!(closed_one(&[closed("panicked"), closed("silent")]).is_err());
    }
}
