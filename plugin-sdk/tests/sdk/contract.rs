//! Calls the contract's functions like the gateway.

use evenkeel_plugin_sdk::Plugin;
use evenkeel_plugin_sdk::prelude::*;
use evenkeel_plugin_sdk::trial;
use evenkeel_plugin_sdk::wit::degradation::exports::evenkeel::policy::degradation as hook;
use evenkeel_plugin_sdk::wit::guest_interface::{Grant, Guest};
use evenkeel_plugin_sdk::wit::types::{Blobs, Entry, Frame, Label};

/// Counts ticks and caps at the count.
#[derive(Settings)]
struct Counter {
    #[setting(default = 1, min = 1)]
    step: u32,
}

#[derive(State, Clone, PartialEq)]
#[state(schema = 2, migrate = from_first)]
struct Ticks {
    ticks: u32,
}

fn from_first(schema: u32, bytes: &[u8]) -> Option<Ticks> {
    let &[ticks] = bytes else { return None };
    (schema == 1).then_some(Ticks { ticks: ticks.into() })
}

#[degradation]
impl Degradation for Counter {
    type State = Ticks;
    type Memo = Ticks;
    const READS: &'static [Metric] = &[Metric::LossUp, Metric::LossDown];

    fn open(&self, newcomer: &NewSession<'_>) -> Ticks {
        Ticks { ticks: newcomer.region().map_or(0, |region| region.0 as u32) }
    }

    fn tick(&self, session: &Session<'_, Ticks>, out: &mut Actions<Ticks, Ticks>) {
        let ticks = session.state().ticks + self.step;
        if let Some(loss) = session.loss_down_ppm()
            && out.may(Op::Cap)
        {
            out.act(Op::Cap, (ticks + loss).into()).keep(&Ticks { ticks });
            out.memo_mut().ticks += 1;
        }
    }
}

type Exported = Plugin<Counter>;

fn init(settings: &str, subject_metrics: &[u32], ops: &[u32]) -> Result<(), String> {
    let (subject_metrics, ops) = (subject_metrics.to_vec(), ops.to_vec());
    Exported::init(settings.into(), Grant { subject_metrics, node_metrics: vec![], ops, seed: 7 })
}

fn tick(cells: &[u32], states: Blobs, memo: &[u8]) -> hook::Answer {
    let frame = Frame { ids: vec![10, 20], cells: cells.to_vec() };
    <Exported as hook::Guest>::tick(5, frame, states, memo.to_vec())
}

fn states() -> Blobs {
    Blobs { offsets: vec![0, 1, 3], bytes: vec![3, 0x80, 1] }
}

const UNMEASURED: u32 = u32::MAX;

#[test]
fn invalid_settings_fail_init() {
    assert_eq!(init(r#"{"step": 0}"#, &[], &[]), Err("step: 0 is below 1".into()));
    assert!(init("{", &[], &[]).is_err());
    assert_eq!(init("{}", &[], &[]), Ok(()));
}

#[test]
fn columns_are_read_in_the_order_granted() {
    init("{}", &[999, 2, 1], &[1]).unwrap();
    let answer = tick(&[7, 7, 100, UNMEASURED, 5, 6], states(), &[]);
    let actions: Vec<_> = answer.actions.iter().map(|a| (a.row, a.op, a.arg)).collect();
    assert_eq!(actions, [(0, 1, 104)], "3 ticks and one, and a loss of 100");
    assert_eq!(answer.keep.rows, [0]);
    assert_eq!((&*answer.keep.states.offsets, &*answer.keep.states.bytes), (&[0, 1][..], &[4][..]));
    assert_eq!(answer.keep.memo.as_deref(), Some(&[1][..]));
}

#[test]
fn metrics_and_ops_not_granted_are_absent() {
    init("{}", &[1], &[1]).unwrap();
    let answer = tick(&[100, 100], states(), &[9]);
    assert!(answer.actions.is_empty());
    assert_eq!(answer.keep.memo, None, "an unchanged memo is not returned");
    init("{}", &[2], &[2]).unwrap();
    assert!(tick(&[100, 100], states(), &[]).actions.is_empty());
}

#[test]
fn unreadable_state_is_replaced() {
    init("{}", &[2], &[1]).unwrap();
    let lies = || Blobs { offsets: vec![0, 2, 900], bytes: vec![0x80, 0x80] };
    tick(&[0, 0], lies(), &[]);
    let said = "unreadable states are replaced by new ones".to_owned();
    assert_eq!(trial::lines(), [(Level::Warn, said)], "once for a batch");
    let answer = tick(&[0, 0], lies(), &[0xff]);
    let actions: Vec<_> = answer.actions.iter().map(|a| a.arg).collect();
    assert_eq!(actions, [1, 1]);
    assert_eq!(answer.keep.memo.as_deref(), Some(&[2][..]));
}

#[test]
fn new_sessions_are_opened_with_the_catalog() {
    init("{}", &[], &[]).unwrap();
    let entry = |kind, id, parent, name: &str| Entry {
        kind,
        id,
        parent,
        name: name.into(),
        labels: vec![],
    };
    Exported::catalog(vec![
        entry(1, 5, 0, "west"),
        entry(1, 4, 0, "east"),
        entry(4, 1, 4, "home"),
        entry(77, 1, 0, "a kind of a newer gateway"),
    ]);
    let newcomer = |region: Option<&str>| hook::Newcomer {
        session: 1,
        room: 1,
        scenario: "call".into(),
        labels: region
            .map(|value| Label { key: "region".into(), value: value.into() })
            .into_iter()
            .collect(),
    };
    let newcomers = vec![newcomer(None), newcomer(Some("west")), newcomer(Some("atlantis"))];
    let states = <Exported as hook::Guest>::open(newcomers);
    assert_eq!(states.bytes, [4, 5, 4]);
    assert_eq!(states.offsets, [0, 1, 2, 3]);
}

#[test]
fn older_states_and_memos_are_migrated_or_refused() {
    let older = || Blobs { offsets: vec![0, 1, 2], bytes: vec![5, 200] };
    let migrated = Exported::migrate(1, older()).unwrap();
    assert_eq!((migrated.offsets, migrated.bytes), (vec![0, 1, 3], vec![5, 0xc8, 1]));
    let refused = "a state of schema 3 cannot be read by this revision, whose schema is 2";
    assert_eq!(Exported::migrate(3, older()).err().as_deref(), Some(refused));
    assert_eq!(Exported::migrate_memo(1, vec![200]), Ok(vec![0xc8, 1]));
    let refused = "a memo of schema 1 cannot be read by this revision, whose schema is 2";
    assert_eq!(Exported::migrate_memo(1, vec![]).err().as_deref(), Some(refused));
}
