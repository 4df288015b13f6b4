//! Rollouts of the corpus: each bad revision is to be refused or rolled back soon after its first harm and before it decides for
//! half of the rooms or sessions, and each good one is to become active.

use std::time::{Duration, Instant};

use evenkeel_report::{AcceptanceRow, RowLimits};
use serde::Serialize;
use serde_json::Value;

use super::calls::Guests;
use super::corpus::{self, HarmBegins, TrialRevision};
use super::gateway::{Api, Gateway, encoded};
use super::report::Report;
use super::table::{Bound, Line};

/// Shares of each canary. The last step is due after the limit `stopped_within`.
const CANARY: &str = "5,25,50";
const PACE: &str = "6s";

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
    id: String,
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
    fn is_stopped(&self, limits: &RowLimits) -> bool {
        let within = limits.judged("stopped_within");
        self.undone_s.is_some_and(|seconds| within.is_none_or(|limit| seconds <= limit))
    }

    fn is_wide(&self, limits: &RowLimits) -> bool {
        self.is_bad && limits.judged("bad_reached").is_some_and(|most| self.reached as f64 > most)
    }

    fn row(&self, limits: &RowLimits) -> AcceptanceRow {
        let kind = if self.is_bad { "bad" } else { "good" };
        let mut row = AcceptanceRow::new(format!("{kind}.{}", self.id));
        row.set_figure("percent", Some(self.reached as f64));
        row.set_figure("held_out", Some(f64::from(u8::from(self.held_out))));
        if self.is_bad {
            row.set_figure("undone_s", self.undone_s);
            row.limit_by("percent", limits, "bad_reached");
            row.limit_by("undone_s", limits, "stopped_within");
        } else {
            let rolled_back = f64::from(u8::from(self.undone_s.is_some()));
            row.set_figure("rolled_back", Some(rolled_back));
            row.limit_by("percent", limits, "good_reached");
            row.limit_by("rolled_back", limits, "aborted");
        }
        row.judge();
        if self.is_bad && self.undone_s.is_none() {
            row.miss(vec!["it was neither refused nor rolled back".to_owned()]);
        }
        row
    }
}

impl Report {
    /// A row for each revision of the corpus.
    pub(crate) fn judged_rows(&self, limits: &RowLimits) -> impl Iterator<Item = AcceptanceRow> {
        self.judged.iter().map(|one| one.row(limits))
    }

    /// The lines of the table.
    pub(crate) fn judged_lines(&self, limits: &RowLimits) -> Vec<Line> {
        let count = |is: &dyn Fn(&&JudgedRevision) -> bool| {
            let count = self.judged.iter().filter(is).count() as f64;
            (!self.judged.is_empty()).then_some(count)
        };
        let bad = count(&|one| one.is_bad);
        let late = count(&|one| one.is_bad && !one.is_stopped(limits));
        let late_held_out = count(&|one| one.is_bad && one.held_out && !one.is_stopped(limits));
        let wide = count(&|one| one.is_wide(limits));
        let refused = count(&|one| !one.is_bad && one.undone_s.is_some());
        let unfinished = count(&|one| !one.is_bad && one.reached < 100);
        let least_stopped = limits.judged("stopped_in_time").unwrap_or_default();
        let most_late = bad.map(|bad| bad * (1.0 - least_stopped));
        let most_late = most_late.map_or(Bound::None, Bound::Computed);
        let within = |key| Bound::Table(Some("judged"), key);
        vec![
            Line::new("bad revisions", bad),
            Line::new("  that decided for half or more", wide).within(within("bad_wide")),
            Line::new("  not stopped within 10 s of their harm", late).within(most_late),
            Line::new("  of these, held out", late_held_out),
            Line::new("good revisions, refused or rolled back", refused).within(within("aborted")),
            Line::new("good revisions, not active in the end", unfinished)
                .within(within("good_unfinished")),
        ]
    }
}

/// # Errors
/// A measurement failed.
pub(crate) fn measure(
    gateway: &mut Gateway,
    guests: &Guests,
    quick: bool,
    limits: &RowLimits,
    report: &mut Report,
) -> Result<(), String> {
    let mut api = gateway.api()?;
    let mut offers = Offers::new();
    let step = if quick { QUICK_STEP } else { 1 };
    let (bad, good) = (corpus::bad(guests), corpus::good(guests)?);
    let all = bad.iter().map(|it| (it, true)).chain(good.iter().map(|it| (it, false)));
    for (revision, is_bad) in all.step_by(step) {
        let reached_most = limits.judged("bad_reached").filter(|_| is_bad);
        let (fate, _) =
            gateway.under_load(|| roll_out(&mut api, revision, reached_most, &mut offers))?;
        let RolloutEnd { reached, undone_s, reason } = fate;
        println!("{:<24} {reached:>3} % {undone_s:?} {reason}", revision.id);
        let (id, held_out) = (revision.id.clone(), revision.held_out);
        report.judged.push(JudgedRevision { id, is_bad, held_out, reached, undone_s, reason });
    }
    Ok(())
}

/// The end of a rollout; the fields are those of [`JudgedRevision`].
pub(super) struct RolloutEnd {
    pub(super) reached: u64,
    pub(super) undone_s: Option<f64>,
    pub(super) reason: String,
}

/// New rooms, offered one after the other.
pub(super) struct Offers {
    room: u32,
    last: Instant,
}

impl Offers {
    pub(super) fn new() -> Offers {
        Offers { room: FIRST_ROOM, last: Instant::now() }
    }

    fn go_on(&mut self, api: &mut Api) -> Result<(), String> {
        if self.last.elapsed() < OFFER_EVERY {
            return Ok(());
        }
        self.last = Instant::now();
        self.room += 1;
        api.try_session(self.room)
    }
}

/// Pushes the revision as a canary, and follows it to its end, or until its share is above `reached_most`. The revision before is active when
/// this returns.
pub(super) fn roll_out(
    api: &mut Api,
    revision: &TrialRevision,
    reached_most: Option<f64>,
    offers: &mut Offers,
) -> Result<RolloutEnd, String> {
    let policy = format!("call/{}", revision.hook.name());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let settings = encoded(&revision.settings.to_string());
    let query = format!("?canary={CANARY}&pace={PACE}&settings={settings}");
    let pushed = api.push_to(&policy, &query, &revision.bytes)?;
    if pushed["outcome"] == "refused" {
        let reason = text(&pushed["reason"]);
        return Ok(RolloutEnd { reached: 0, undone_s: Some(0.0), reason });
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
            return Ok(RolloutEnd { reached: 100, undone_s: None, reason: String::new() });
        } else if is_over {
            let undone_s = harmed.map_or(0.0, |harmed: Instant| harmed.elapsed().as_secs_f64());
            let reason = text(&last["reason"]);
            return Ok(RolloutEnd { reached, undone_s: Some(undone_s), reason });
        }
        if reached_most.is_some_and(|most| reached as f64 > most) {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    api.roll_back(&policy)?;
    let reason = format!("stopped by the bench after {:?}", began.elapsed());
    Ok(RolloutEnd { reached, undone_s: None, reason })
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
    use evenkeel_report::LimitTable;

    use super::*;

    fn limits() -> RowLimits {
        LimitTable::load().unwrap().group("policy", Some("judged")).unwrap()
    }

    fn judged(is_bad: bool, reached: u64, undone_s: Option<f64>) -> JudgedRevision {
        let (id, held_out, reason) = ("x".to_owned(), false, String::new());
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
            let row = judged(true, reached, undone_s).row(&limits());
            assert_eq!((&*row.id, row.held), ("bad.x", Some(held)), "{reached} {undone_s:?}");
            assert_eq!(row.figure("undone_s"), undone_s);
        }
    }

    #[test]
    fn good_revision_becomes_active() {
        for (reached, undone_s, held) in
            [(100, None, true), (50, None, false), (5, Some(3.0), false), (0, Some(0.0), false)]
        {
            let row = judged(false, reached, undone_s).row(&limits());
            assert_eq!((&*row.id, row.held), ("good.x", Some(held)), "{reached} {undone_s:?}");
        }
    }
}
