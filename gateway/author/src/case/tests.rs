//! Cases of shipped plugins.

use evenkeel_host::shipped;

use super::*;

fn built(name: &str) -> BuiltPlugin {
    let plugin = shipped().iter().find(|plugin| plugin.name == name).unwrap();
    BuiltPlugin::from_bytes(plugin.bytes.to_vec()).unwrap()
}

fn case(text: &str) -> Result<Case, CaseError> {
    Ok(Case { file: "case.toml".into(), text: CaseText::read(text)? })
}

fn run_one(plugin: &str, text: &str) -> CaseReport {
    run(&built(plugin), &[case(text).unwrap()], &Value::Null).unwrap()
}

/// A session with lasting loss, asked four times in 600 ms; `VIDEO` stands for its last expectation.
const LOSS: &str = r#"
settings = { down_after = "600ms", cut_per_loss = 1000 }

[[ask]]
times = 3
sessions = [
    { id = 7, loss-up = 50000, bitrate-up = 1000, cap = 0, video = true, floor = 100, ceiling = 2000 },
    { id = 8, loss-up = 0, bitrate-up = 1000, cap = 0, video = true, floor = 100, ceiling = 2000 },
]
expect = { s7 = "unchanged", s8 = "unchanged" }

[[ask]]
sessions = [
    { id = 7, loss-up = 50000, bitrate-up = 1000, cap = 0, video = true, floor = 100, ceiling = 2000 },
]
expect.s7.actions = [{ action = "cap-up", argument = ARGUMENT, reason = "loss" }]
"#;

#[test]
fn states_pass_from_one_question_to_the_next() {
    for argument in ["700", "\">= 100\"", "{ any = [350, 700] }"] {
        let report = run_one("degrade-ladder", &LOSS.replace("ARGUMENT", argument));
        assert!(report.is_passed(), "{report}");
        assert_eq!((report.cases, report.asked), (1, 4));
    }
}

#[test]
fn other_answer_is_named_with_its_place() {
    let report = run_one("degrade-ladder", &LOSS.replace("ARGUMENT", "600"));
    let [failure] = &report.failures[..] else { panic!("{report}") };
    assert_eq!(failure.question, 4);
    assert_eq!(failure.said, "s7.actions[0].argument: expected 600, found 700");
    assert!(report.to_string().contains("case.toml, question 4: s7.actions"), "{report}");
    let sooner = LOSS.replace("ARGUMENT", "700").replace("600ms", "400ms");
    let report = run_one("degrade-ladder", &sooner);
    assert_eq!(report.failures[0].question, 3, "the settings of a case hold: {report}");
}

#[test]
fn nodes_have_names() {
    let place = r#"
        labels = { region = "west" }
        nodes = [
            { name = "far", region = "east", delay = 80000, load = 100, health = "up" },
            { name = "near", region = "west", delay = 2000, load = 100, health = "up" },
            { name = "dead", region = "west", delay = 1000, load = 100, health = "down" },
        ]
        expect = { hops = ["near", "far"], reason = "nearest" }
    "#;
    let report = run_one("route-nearest", place);
    assert!(report.is_passed(), "{report}");
    let away = place.replace("[\"near\", \"far\"]", "{ excludes = [\"near\"] }");
    assert!(!run_one("route-nearest", &away).is_passed());
}

#[test]
fn guarded_answer_is_expected_or_a_failure() {
    let plugin = crate::conformance::tests::behaving("hide-in-nothing");
    let guest = crate::conformance::tests::guest("degradation", &plugin);
    let text = r#"sessions = [{ loss-up = 9000, floor = 100, ceiling = 2000 }]"#;
    let guarded = |text: &str| run(&guest, &[case(text).unwrap()], &Value::Null).unwrap();
    let report = guarded(text);
    assert!(report.failures[0].said.starts_with("argument-out-of-bounds: "), "{report}");
    let expecting = format!("guards = [\"argument-out-of-bounds\"]\n{text}");
    assert!(guarded(&expecting).is_passed());
    let within = expecting.replace("9000", "900");
    assert_eq!(guarded(&within).failures[0].said, "expected the guard `argument-out-of-bounds`");
}

#[test]
fn answers_are_shown_with_their_cost() {
    let case = case(&LOSS.replace("ARGUMENT", "700")).unwrap();
    let report = ask(&built("degrade-ladder"), &case, &Value::Null).unwrap();
    assert!(report.is_passed());
    let shown = &report.json()["answers"][3];
    assert_eq!(
        (&shown["call"], &shown["answer"]["s7"]["actions"][0]["argument"]),
        (&json!("tick"), &json!(700))
    );
    assert!(shown["instructions"].as_u64() > Some(0) && shown["ns"].as_u64() > Some(0), "{shown}");
    assert_eq!(shown["notes"][0], json!({"row": 0, "key": "loss_up_ppm", "value": 50_000}));
    assert!(report.to_string().contains("all unchanged"), "{report}");
}

#[test]
fn errors_name_place_and_alternatives() {
    let wrong = |text: &str| {
        let read = case(text).map_err(AuthorError::case(Path::new("case.toml")));
        let asked = read.and_then(|case| run(&built("degrade-ladder"), &[case], &Value::Null));
        asked.unwrap_err().to_string()
    };
    for (text, said) in [
        (
            "sessions = [{ jiter-up = 1 }]",
            "`ask[0].sessions[0].jiter-up` is none of the measures loss-up, ",
        ),
        ("sessions = [{ cap = -1 }]", "cap` should be a whole number (kbps), found -1"),
        (
            "nodes = [{ name = \"a\", health = \"ill\" }]",
            "should be one of up, suspect, wary, down, found \"ill\"",
        ),
        (
            "call = \"tock\"",
            "`ask[0].call` should be one of resolve, admit, place, reroute, tick, found \"tock\"",
        ),
        ("sessions = [{ state = \"0g\" }]", "even number of hexadecimal digits"),
        ("sesions = []", "unknown field `sesions`"),
        ("sessions = ", "case.toml: as TOML: TOML parse error at line 1"),
    ] {
        let found = wrong(text);
        assert!(found.contains(said), "{text}: {found}");
    }
}
