//! The SDK as authors use it: settings, states, the manifest, views and answers.

use evenkeel_plugin_sdk::Policy;
use evenkeel_plugin_sdk::prelude::*;
use evenkeel_plugin_sdk::trial::{self, Trial, World};

#[derive(Settings, Debug, PartialEq)]
struct Knobs {
    /// A "quoted" word, and a second line.
    #[setting(default = 30, unit = "ms", min = 1, max = 500)]
    jitter: u32,
    #[setting(default = -0.5, min = -1, max = 1)]
    lean: f64,
    #[setting(default = ["cap"])]
    steps: Vec<Step>,
    #[setting(default = "8s", min = "1s", max = "1m")]
    wait: Duration,
    tenant: Option<String>,
    #[setting(default = true)]
    on: bool,
}

#[derive(Settings, Clone, Copy, Debug, PartialEq)]
enum Step {
    Cap,
    VoiceOnly,
}

#[derive(Settings, Debug)]
struct Needy {
    region: String,
}

#[derive(Pack, Clone, PartialEq, Debug)]
enum Mood {
    Calm,
    Restless,
}

#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 2, migrate = from_first)]
struct Memory {
    ticks: u32,
    mood: Mood,
}

#[derive(Pack)]
struct FirstMemory {
    ticks: u8,
}

fn from_first(schema: u32, bytes: &[u8]) -> Option<Memory> {
    let FirstMemory { ticks } = (schema == 1).then(|| evenkeel_plugin_sdk::unpack(bytes))??;
    Some(Memory { ticks: ticks.into(), mood: Mood::Calm })
}

/// State of the policy.
#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 2)]
struct Count {
    sessions: u64,
}

#[derive(Reason)]
enum Why {
    Loss = 1,
    TooManySessions = 7,
}

#[degradation(cost(tick(call = 5_000, row = 400)))]
impl Degradation for Knobs {
    type State = Memory;
    type Memo = Count;
    type Reason = Why;
    const READS: &'static [Metric] = &[Metric::LossUp, Metric::Cap, Metric::Video];
    const OPS: &'static [Op] = &[Op::Cap];

    fn open(&self, newcomer: &NewSession<'_>) -> Memory {
        let far = newcomer.region() != newcomer.catalog.home();
        Memory { ticks: u32::from(far), mood: Mood::Restless }
    }

    fn tick(&self, session: &Session<'_, Memory>, out: &mut Actions<Memory, Count>) {
        out.memo_mut().sessions += 1;
        let Some(loss) = session.loss_up_ppm() else { return };
        out.keep(&Memory { ticks: loss, mood: Mood::Calm });
        out.cap(loss).because(Why::Loss).note("loss", loss.into());
        if out.memo().sessions > 2 {
            out.lift_cap().because(Why::TooManySessions);
            out.keep(&Memory { ticks: session.state().ticks + 1, mood: Mood::Calm });
        }
        if session.video() == Some(true) {
            let _ = session.jitter_up_us();
        }
    }
}

fn trial() -> Trial<Knobs> {
    Trial::of(Knobs::default(), World::around("east").region("west", &[]))
}

fn session(measured: &[(Metric, u32)]) -> trial::Session<Memory> {
    let state = Memory { ticks: 5, mood: Mood::Restless };
    trial::Session { measured: measured.to_vec(), state }
}

#[test]
fn settings_have_their_defaults() {
    let expected = Knobs {
        jitter: 30,
        lean: -0.5,
        steps: vec![Step::Cap],
        wait: Duration::from_secs(8),
        tenant: None,
        on: true,
    };
    assert_eq!(Knobs::default(), expected);
    let set = r#"{"jitter": 500, "lean": -1, "steps": ["voice-only", "cap"], "wait": "1m",
        "tenant": "acme", "on": false}"#;
    let expected = Knobs {
        jitter: 500,
        lean: -1.0,
        steps: vec![Step::VoiceOnly, Step::Cap],
        wait: Duration::from_secs(60),
        tenant: Some("acme".into()),
        on: false,
    };
    assert_eq!(Knobs::parse(set), Ok(expected));
}

#[test]
fn invalid_settings_are_refused_by_name() {
    let error = |settings| Knobs::parse(settings).unwrap_err();
    assert_eq!(error(r#"{"jitter": 501}"#), "jitter: 501ms is above 500ms");
    assert_eq!(error(r#"{"lean": -1.01}"#), "lean: -1.01 is below -1");
    assert_eq!(error(r#"{"wait": "999ms"}"#), "wait: 999ms is below 1000ms");
    let known = "jitter, lean, steps, wait, tenant, on";
    assert_eq!(
        error(r#"{"jiter": 1}"#),
        format!("jiter: there is no such setting; there is {known}")
    );
    assert!(error(r#"{"steps": ["thin"]}"#).starts_with("steps: found \"thin\", expected one of"));
    assert_eq!(Needy::parse("{}").unwrap_err(), "region: it must be set");
    assert_eq!(Needy::parse(r#"{"region": "east"}"#).unwrap().region, "east");
}

#[test]
fn manifest_describes_the_policy() {
    let settings = concat!(
        r#"{"type":"object","properties":{"#,
        r#""jitter":{"type":"integer","minimum":1,"maximum":500,"default":30,"unit":"ms","#,
        r#""description":"A \"quoted\" word, and a second line."},"#,
        r#""lean":{"type":"number","minimum":-1,"maximum":1,"default":-0.5},"#,
        r#""steps":{"type":"array","items":{"type":"string","enum":["cap","voice-only"]},"default":["cap"]},"#,
        r#""wait":{"type":"string","pattern":"^[0-9]+([.][0-9]+)?(ms|s|m|h)$","default":"8s"},"#,
        r#""tenant":{"type":"string"},"#,
        r#""on":{"type":"boolean","default":true}},"#,
        r#""required":[],"additionalProperties":false}"#,
    );
    let expected = format!(
        concat!(
            r#"{{"name":"evenkeel-plugin-sdk","version":"{}","contract":"0.1.1","hooks":["degradation"],"#,
            r#""settings":{},"state_schema":2,"subject_metrics":[1,9,12],"node_metrics":[],"ops":[1],"#,
            r#""reasons":[{{"number":1,"name":"loss"}},{{"number":7,"name":"too-many-sessions"}}],"#,
            r#""cost":{{"tick":{{"call":5000,"row":400}}}}}}"#,
        ),
        env!("CARGO_PKG_VERSION"),
        settings
    );
    assert_eq!(Knobs::MANIFEST, expected);
}

#[test]
fn setting_without_a_default_is_required() {
    const SCHEMA: [u8; <Needy as Setting>::SCHEMA.len()] = <Needy as Setting>::SCHEMA.bytes();
    let schema = std::str::from_utf8(&SCHEMA).unwrap();
    assert!(schema.ends_with(r#""required":["region"],"additionalProperties":false"#), "{schema}");
}

#[test]
fn older_state_is_migrated_unknown_one_is_not() {
    let migrated = trial::migrate::<Memory>(1, &FirstMemory { ticks: 9 });
    assert_eq!(migrated, Some(Memory { ticks: 9, mood: Mood::Calm }));
    let now = Memory { ticks: 3, mood: Mood::Restless };
    assert_eq!(trial::migrate::<Memory>(2, &now), Some(now.clone()));
    assert_eq!(trial::migrate::<Memory>(3, &now), None);
    assert_eq!(trial::migrate::<Count>(1, &FirstMemory { ticks: 9 }), None);
}

#[test]
fn new_session_is_opened_with_its_labels() {
    let mut trial = trial();
    let near = Memory { ticks: 0, mood: Mood::Restless };
    assert_eq!(trial.open(&[]), near);
    assert_eq!(trial.open(&[("region", "west")]), Memory { ticks: 1, ..near });
}

#[test]
fn answers_refer_to_their_row() {
    let mut trial = trial();
    let mut sessions =
        [session(&[(Metric::LossUp, 100)]), session(&[]), session(&[(Metric::LossUp, 0)])];
    let actions = trial.tick(&mut sessions);
    let expected = [(0, Op::Cap, 100, 1), (2, Op::Cap, 0, 1), (2, Op::Cap, 0, 7)];
    assert_eq!(actions, expected);
    assert_eq!(sessions[0].state, Memory { ticks: 100, mood: Mood::Calm });
    assert_eq!(sessions[1].state, Memory { ticks: 5, mood: Mood::Restless }, "not measured");
    assert_eq!(sessions[2].state, Memory { ticks: 6, mood: Mood::Calm }, "the last state wins");
    assert_eq!(trial::notes(), [(0, "loss".into(), 100), (2, "loss".into(), 0)]);
}

#[test]
fn memo_passes_from_batch_to_batch() {
    let mut trial = trial();
    let mut sessions = [session(&[(Metric::LossUp, 1)])];
    let counts: Vec<_> = (0..3).map(|_| trial.tick(&mut sessions).len()).collect();
    assert_eq!(counts, [1, 1, 2], "the third session exceeds the limit");
}

#[test]
#[should_panic(expected = "the policy reads jitter-up but its READS does not name it")]
fn undeclared_metric_panics_in_tests() {
    trial().tick(&mut [session(&[(Metric::LossUp, 1), (Metric::Video, 1)])]);
}

/// Nested settings.
#[derive(Settings, Debug, PartialEq)]
struct Nested {
    #[setting(default)]
    step: Stair,
    #[setting(default = [])]
    more: Vec<Stair>,
    #[setting(default = "2 Mbit/s", min = "24 kbit/s", max = "1 Gbit/s")]
    most: BitRate,
    lowest: Option<BitRate>,
}

#[derive(Settings, Debug, PartialEq)]
struct Stair {
    #[setting(default = "300 kbit/s")]
    cap: BitRate,
    #[setting(default = "cap")]
    then: Step,
}

#[test]
fn nested_settings_have_their_own_defaults() {
    let stair = |kbps, then| Stair { cap: BitRate::of_kbps(kbps), then };
    let most = BitRate::of_kbps(2000);
    let expected = Nested { step: stair(300, Step::Cap), more: vec![], most, lowest: None };
    assert_eq!(Nested::default(), expected);
    let set = r#"{"step": {"then": "voice-only"}, "more": [{}, {"cap": "64 kbit/s"}],
        "most": "1.5 Mbit/s", "lowest": "24 kbit/s"}"#;
    let expected = Nested {
        step: stair(300, Step::VoiceOnly),
        more: vec![stair(300, Step::Cap), stair(64, Step::Cap)],
        most: BitRate::of_kbps(1500),
        lowest: Some(BitRate::of_kbps(24)),
    };
    assert_eq!(Nested::parse(set), Ok(expected));
}

#[test]
fn invalid_nested_settings_name_their_path() {
    let error = |settings| Nested::parse(settings).unwrap_err();
    assert_eq!(error(r#"{"most": "23 kbit/s"}"#), "most: 23kbit/s is below 24kbit/s");
    assert_eq!(error(r#"{"most": "2 Gbit/s"}"#), "most: 2000000kbit/s is above 1000000kbit/s");
    let rate = "expected a bit rate such as \"300 kbit/s\" or \"1.5 Mbit/s\"";
    assert_eq!(error(r#"{"step": {"cap": 300}}"#), format!("step: cap: found 300, {rate}"));
}

#[test]
fn schema_includes_nested_settings() {
    const SCHEMA: [u8; <Nested as Setting>::SCHEMA.len()] = <Nested as Setting>::SCHEMA.bytes();
    let schema = std::str::from_utf8(&SCHEMA).unwrap();
    let stair = concat!(
        r#""type":"object","properties":{"cap":{"type":"string","#,
        r#""pattern":"^[0-9]+([.][0-9]+)? (kbit/s|Mbit/s|Gbit/s)$","default":"300 kbit/s"},"#,
        r#""then":{"type":"string","enum":["cap","voice-only"],"default":"cap"}},"#,
        r#""required":[],"additionalProperties":false"#,
    );
    let expected = format!(
        r#""step":{{{stair},"default":{{}}}},"more":{{"type":"array","items":{{{stair}}},"default":[]}}"#
    );
    assert!(schema.contains(&expected), "{schema}");
}

/// The third schema of a state; each schema has `from` its predecessor.
#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 5, unchanged_since = 4, from = SecondForm)]
struct ThirdForm {
    ticks: u32,
    mood: Mood,
    since: Duration,
}

#[derive(State)]
#[state(schema = 3, from = FirstForm)]
struct SecondForm {
    ticks: u32,
    mood: Mood,
}

#[derive(State)]
#[state(schema = 1)]
struct FirstForm {
    ticks: u8,
}

impl From<FirstForm> for SecondForm {
    fn from(older: FirstForm) -> SecondForm {
        SecondForm { ticks: u32::from(older.ticks) * 10, mood: Mood::Restless }
    }
}

impl From<SecondForm> for ThirdForm {
    fn from(older: SecondForm) -> ThirdForm {
        ThirdForm { ticks: older.ticks + 1, mood: older.mood, since: Duration::ZERO }
    }
}

#[test]
fn state_migrates_across_several_schemas() {
    let third = |ticks| ThirdForm { ticks, mood: Mood::Restless, since: Duration::ZERO };
    assert_eq!(trial::migrate::<ThirdForm>(1, &FirstForm { ticks: 4 }), Some(third(41)));
    let second = SecondForm { ticks: 7, mood: Mood::Restless };
    assert_eq!(trial::migrate::<ThirdForm>(3, &second), Some(third(8)));
    for same in [4, 5] {
        assert_eq!(trial::migrate::<ThirdForm>(same, &third(9)), Some(third(9)), "{same}");
    }
    for unknown in [0, 2, 6] {
        assert_eq!(trial::migrate::<ThirdForm>(unknown, &third(9)), None, "{unknown}");
    }
    assert_eq!(trial::migrate::<ThirdForm>(1, &third(9)), None, "bytes of another schema");
}

#[test]
fn dropped_state_is_no_reason_to_refuse() {
    assert_eq!(trial::migrate::<()>(1, &FirstForm { ticks: 4 }), Some(()));
}

#[test]
fn measurements_are_set_by_name() {
    let put = trial::measured().jitter_up_us(5).video(true).jitter_up_us(6).health(Health::Wary);
    let expected = [(Metric::Video, 1), (Metric::JitterUp, 6), (Metric::Health, 2)];
    assert_eq!(*put, expected);
    let mut trial = trial();
    let session = trial.session(&[("region", "west")], trial::measured().loss_up_ppm(3));
    assert_eq!((session.measured, session.state.ticks), (vec![(Metric::LossUp, 3)], 1));
}

#[test]
fn common_reason_is_numbered_by_the_registry() {
    assert_eq!(CommonReason::Loss.number(), 65_537);
    assert!(<CommonReason as Reason>::NAMES.is_empty(), "not in the manifest");
}
