use std::sync::Arc;

use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine, shipped};
use evenkeel_model::{AskId, Hook, PolicyName, PolicyQuestion};
use evenkeel_recording::{
    Chunk, RecordedCatalog, RecordedGrant, RecordedRevision, RecordingEntry, RecordingHeader, head,
    tail,
};

use super::*;
use crate::recording::tests::Written;

fn plugin(name: &str) -> BuiltPlugin {
    let plugin = shipped().iter().find(|plugin| plugin.name == name).unwrap();
    BuiltPlugin::from_bytes(plugin.bytes.to_vec()).unwrap()
}

/// Writes a recording of `scenario-call` answers for a phone and a desktop, with these settings.
fn recording(test: &str, settings: &Value) -> Written {
    let engine = Engine::with_budgets(CallBudgets::default());
    let bytes = shipped().iter().find(|plugin| plugin.name == "scenario-call").unwrap().bytes;
    let component = Component::vet(&engine, bytes).unwrap();
    let hook = Hook::Scenario;
    let mut policy =
        BoundPlugin::install(&engine, &component, hook, settings.clone(), vec![], 3).unwrap();
    let manifest = component.manifest();
    let revision = Arc::new(RecordedRevision {
        policy: PolicyName { set: "call".into(), hook },
        revision: policy.revision().into(),
        plugin: manifest.name.clone(),
        version: manifest.version.clone(),
        digest: *component.digest(),
        settings: policy.settings().into(),
        seed: 3,
        grant: RecordedGrant::default(),
        documents: Vec::new(),
        redacted: false,
    });
    let catalog = Arc::new(RecordedCatalog::default());
    let mut chunk = Chunk::default();
    for (ask, device) in [(1, "phone"), (2, "desktop")] {
        let labels = [("device".into(), device.into())];
        let question =
            PolicyQuestion::Resolve { scenario: "call".into(), labels: Arc::new(labels) };
        let result = policy.ask(&question, ask * 1_000);
        let (revision, catalog) = (Arc::clone(&revision), Arc::clone(&catalog));
        let (ask, now_us, question) = (AskId(ask), ask * 1_000, Arc::new(question));
        let call =
            RecordedCall { revision, catalog, ask, now_us, question, result, redacted: false };
        chunk.push(&RecordingEntry::Call(Box::new(call))).unwrap();
    }
    chunk.push(&RecordingEntry::Missed(4)).unwrap();
    let header = RecordingHeader {
        gateway: "0.1.0".into(),
        contract: "0.1.0".into(),
        started_us: 0,
        region: "east".into(),
        addresses: false,
    };
    let bytes = [head(&header), chunk.close(), tail()].concat();
    Written::new(&format!("{test}.ekr"), &bytes)
}

fn tried(path: &Path, name: &str) -> TrialOutcome {
    TrialOutcome::on(path, &plugin(name), None)
        .unwrap_or_else(|failure| panic!("{}", said(failure)))
}

fn said(failure: CommandError) -> String {
    match failure {
        CommandError::Failed(said)
        | CommandError::Wrong(said)
        | CommandError::NoGateway(said)
        | CommandError::Refused { words: said, .. } => said,
    }
}

#[test]
fn what_a_plugin_said_itself_it_says_again() {
    let path = recording("again", &json!({}));
    let tried = tried(&path, "scenario-call");
    let json = &tried.json;
    assert!(tried.is_passed, "{}", tried.lines);
    assert_eq!(
        (&json["calls"], &json["decisions"], &json["different"]),
        (&json!(2), &json!(2), &json!(0))
    );
    assert_eq!((&json["missed"], &json["policies"]), (&json!(4), &json!(["call/scenario"])));
}

#[test]
fn different_decisions_are_counted_and_shown() {
    let path = recording("differs", &json!({}));
    let tried = tried(&path, "scenario-live");
    assert!(tried.is_passed, "{}", tried.lines);
    assert_eq!(tried.json["different"], json!(2), "{}", tried.lines);
    let first = &tried.json["differences"][0];
    assert_ne!(first["recorded"], first["now"]);
    assert!(tried.lines.contains("2 of 2 decisions differ"), "{}", tried.lines);
}

#[test]
fn recording_without_calls_is_refused() {
    let path = recording("nothing", &json!({}));
    let Err(CommandError::Wrong(said)) = TrialOutcome::on(&path, &plugin("admit-capacity"), None)
    else {
        panic!("it has nothing to be asked")
    };
    assert!(said.contains("(admission)") && said.contains("call/scenario"), "{said}");
}

#[test]
fn refused_settings_name_the_policy() {
    let path = recording("settings", &json!({}));
    let settings = Some(json!({"no_such": 1}));
    let Err(CommandError::Wrong(said)) =
        TrialOutcome::on(&path, &plugin("scenario-call"), settings)
    else {
        panic!("there is no such setting")
    };
    assert!(said.contains("call/scenario") && said.contains("no_such"), "{said}");
}

#[test]
fn calls_of_other_revisions_are_left_out() {
    let path = recording("chosen", &json!({}));
    let (bytes, built) = (read_file(&path).unwrap_or_default(), plugin("scenario-call"));
    let mut seen = std::sync::Mutex::new(BTreeSet::new());
    let of_any = |revision: &str| seen.lock().unwrap().insert(revision.to_owned());
    let Ok(tried) = TrialOutcome::of(&path, &bytes, &built, None, of_any) else {
        panic!("refused")
    };
    // The revision is new for the first of both calls only.
    assert_eq!(tried.json["calls"], 1);
    let revision = seen.get_mut().unwrap().pop_first().unwrap();
    let Err(CommandError::Wrong(said)) =
        TrialOutcome::of(&path, &bytes, &built, None, |other| other != revision)
    else {
        panic!("no call is left")
    };
    assert!(said.contains("no calls at all"), "{said}");
}
