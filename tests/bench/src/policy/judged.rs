//! Rollouts of the corpus: each bad revision is to be refused or rolled back soon after its first harm and before it decides for
//! half of the rooms or sessions, and each good one is to become active.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_report::AcceptanceRow;
use serde::Serialize;
use serde_json::Value;

use super::calls::Guests;
use super::corpus::{self, HarmBegins, TrialRevision};
use super::gateway::{Api, Gateway, encoded};
use super::report::Report;

/// Shares of each canary. The last step is due after [`UNDONE_S_MAX`].
const CANARY: &str = "5,25,50";
const PACE: &str = "6s";

/// A bad revision is not to reach this share, per cent.
const REACHED_MAX: u64 = 50;

/// A bad revision is to be rolled back within this time after its first harm.
const UNDONE_S_MAX: f64 = 10.0;

/// Share of the bad revisions that are to be refused, or rolled back in time.
const UNDONE_MIN: f64 = 0.95;

/// Time limit of one rollout.
const PATIENCE: Duration = Duration::from_secs(90);

/// Interval of looks at the policy's status, which is the resolution of times.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Interval of offers of new rooms, by which placements and admissions are judged.
const OFFER_EVERY: Duration = Duration::from_millis(50);

/// The first room of extra sessions, above those of the load.
const FIRST_ROOM: u32 = 3_000_000;

/// A quick run takes one of this many revisions.
const QUICK_STEP: usize = 8;

/// The rollout of a revision of the corpus.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JudgedRevision {
    id: &'static str,
    is_bad: bool,
    held_out: bool,
    /// The largest share of the canary, per cent; 0 if it was refused, 100 once it was active.
    reached: u64,
    /// Seconds from the first harm until it was rolled back; 0 if it was refused before, `None` if neither.
    undone_s: Option<f64>,
    /// The gateway's reason.
    reason: String,
}

impl JudgedRevision {
    fn is_stopped(&self) -> bool {
        self.undone_s.is_some_and(|seconds| seconds <= UNDONE_S_MAX)
    }

    fn row(&self) -> AcceptanceRow {
        let map = |figures: &[(&str, f64)]| -> BTreeMap<String, f64> {
            figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
        };
        let (reached, held_out) = (self.reached as f64, f64::from(u8::from(self.held_out)));
        let kind = if self.is_bad { "bad" } else { "good" };
        let id = format!("{kind}.{}", self.id);
        if self.is_bad {
            let undone = self.undone_s.unwrap_or(PATIENCE.as_secs_f64());
            let figures = [("percent", reached), ("undone_s", undone), ("held_out", held_out)];
            let limits = [("percent", REACHED_MAX as f64 - 1.0), ("undone_s", UNDONE_S_MAX)];
            return AcceptanceRow::measured(id, map(&figures), map(&limits));
        }
        let rolled_back = f64::from(u8::from(self.undone_s.is_some()));
        let figures = [("percent", reached), ("rolled_back", rolled_back), ("held_out", held_out)];
        let limits = [("percent_min", 100.0), ("rolled_back", 0.0)];
        AcceptanceRow::measured(id, map(&figures), map(&limits))
    }
}

impl Report {
    /// A row for each revision of the corpus.
    pub(crate) fn judged_rows(&self) -> impl Iterator<Item = AcceptanceRow> {
        self.judged.iter().map(JudgedRevision::row)
    }

    /// The lines of the table: name, count and limit.
    pub(crate) fn judged_lines(&self) -> Vec<(&'static str, f64, Option<f64>)> {
        let count =
            |is: &dyn Fn(&&JudgedRevision) -> bool| self.judged.iter().filter(is).count() as f64;
        if self.judged.is_empty() {
            return Vec::new();
        }
        let bad = count(&|one| one.is_bad);
        let late = count(&|one| one.is_bad && !one.is_stopped());
        let late_held_out = count(&|one| one.is_bad && one.held_out && !one.is_stopped());
        let wide = count(&|one| one.is_bad && one.reached >= REACHED_MAX);
        let refused = count(&|one| !one.is_bad && one.undone_s.is_some());
        let unfinished = count(&|one| !one.is_bad && one.reached < 100);
        vec![
            ("bad revisions", bad, None),
            ("  that decided for half or more", wide, Some(0.0)),
            ("  not stopped within 10 s of their harm", late, Some(bad * (1.0 - UNDONE_MIN))),
            ("  of these, held out", late_held_out, None),
            ("good revisions, refused or rolled back", refused, Some(0.0)),
            ("good revisions, not active in the end", unfinished, Some(0.0)),
        ]
    }
}

/// # Errors
/// A measurement failed.
pub(crate) fn measure(
    gateway: &mut Gateway,
    guests: &Guests,
    quick: bool,
    report: &mut Report,
) -> Result<(), String> {
    let mut api = gateway.api()?;
    let mut offers = Offers { room: FIRST_ROOM, last: Instant::now() };
    let step = if quick { QUICK_STEP } else { 1 };
    let (bad, good) = (corpus::bad(guests), corpus::good(guests)?);
    let all = bad.iter().map(|it| (it, true)).chain(good.iter().map(|it| (it, false)));
    for (revision, is_bad) in all.step_by(step) {
        let (fate, _) = gateway.under_load(|| roll_out(&mut api, revision, is_bad, &mut offers))?;
        let Fate { reached, undone_s, reason } = fate;
        println!("{:<24} {reached:>3} % {undone_s:?} {reason}", revision.id);
        let (id, held_out) = (revision.id, revision.held_out);
        report.judged.push(JudgedRevision { id, is_bad, held_out, reached, undone_s, reason });
    }
    Ok(())
}

/// The end of a rollout; the fields are those of [`JudgedRevision`].
struct Fate {
    reached: u64,
    undone_s: Option<f64>,
    reason: String,
}

/// New rooms, offered one after the other.
struct Offers {
    room: u32,
    last: Instant,
}

impl Offers {
    fn go_on(&mut self, api: &mut Api) -> Result<(), String> {
        if self.last.elapsed() < OFFER_EVERY {
            return Ok(());
        }
        self.last = Instant::now();
        self.room += 1;
        api.try_session(self.room)
    }
}

/// Pushes the revision as a canary, and follows it to its end. The revision before is active when this returns.
fn roll_out(
    api: &mut Api,
    revision: &TrialRevision,
    is_bad: bool,
    offers: &mut Offers,
) -> Result<Fate, String> {
    let policy = format!("call/{}", revision.hook.name());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let settings = encoded(&revision.settings.to_string());
    let query = format!("?canary={CANARY}&pace={PACE}&settings={settings}");
    let pushed = api.push_to(&policy, &query, &revision.bytes)?;
    if pushed["outcome"] == "refused" {
        let reason = text(&pushed["reason"]);
        return Ok(Fate { reached: 0, undone_s: Some(0.0), reason });
    }
    if pushed["outcome"] != "started" {
        return Err(format!("the rollout of {} did not begin: {pushed}", revision.id));
    }
    let (began, mut harmed, mut reached) = (Instant::now(), None, 0);
    while began.elapsed() < PATIENCE {
        offers.go_on(api)?;
        let now = api.policy(&policy)?;
        let (rollout, last) = (&now["rollout"], &now["last_rollout"]);
        let is_over = last["outcome"] == "rolled-back" || last["outcome"] == "activated";
        if !rollout.is_null() {
            reached = reached.max(rollout["percent"].as_u64().unwrap_or(0));
            harmed = harmed.or_else(|| has_begun(revision.harm, rollout).then(Instant::now));
        } else if is_over && last["outcome"] == "activated" {
            api.roll_back(&policy)?;
            return Ok(Fate { reached: 100, undone_s: None, reason: String::new() });
        } else if is_over {
            let undone_s = harmed.map_or(0.0, |harmed: Instant| harmed.elapsed().as_secs_f64());
            let reason = text(&last["reason"]);
            return Ok(Fate { reached, undone_s: Some(undone_s), reason });
        }
        if is_bad && reached >= REACHED_MAX {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    api.roll_back(&policy)?;
    let reason = format!("stopped by the bench after {:?}", began.elapsed());
    Ok(Fate { reached, undone_s: None, reason })
}

/// True once the revision has done harm.
fn has_begun(harm: HarmBegins, rollout: &Value) -> bool {
    let counted = match harm {
        HarmBegins::Answer => &rollout["calls"],
        HarmBegins::Fault => &rollout["faults"],
    };
    counted.as_u64().unwrap_or(0) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(is_bad: bool, reached: u64, undone_s: Option<f64>) -> JudgedRevision {
        let (id, held_out, reason) = ("x", false, String::new());
        JudgedRevision { id, is_bad, held_out, reached, undone_s, reason }
    }

    #[test]
    fn bad_revision_is_stopped_in_time_and_below_half() {
        for (reached, undone_s, held) in [
            (0, Some(0.0), true),
            (25, Some(10.0), true),
            (25, Some(10.1), false),
            (50, Some(1.0), false),
            (25, None, false),
        ] {
            let row = judged(true, reached, undone_s).row();
            assert_eq!((&*row.id, row.held), ("bad.x", held), "{reached} {undone_s:?}");
        }
    }

    #[test]
    fn good_revision_becomes_active() {
        for (reached, undone_s, held) in
            [(100, None, true), (50, None, false), (5, Some(3.0), false), (0, Some(0.0), false)]
        {
            let row = judged(false, reached, undone_s).row();
            assert_eq!((&*row.id, row.held), ("good.x", held), "{reached} {undone_s:?}");
        }
    }
}
