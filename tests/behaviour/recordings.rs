//! Policy questions and answers are recorded, and replaying them gives equal answers.

use std::sync::{Arc, mpsc};

use evenkeel_client::{ApiClient, ApiEndpoint, Download};
use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine, shipped};
use evenkeel_model::{Hook, HookAnswer, PluginFault};
use evenkeel_recording::{RecordedCall, RecordingEntry, RecordingReader};

use crate::harness::{Gateway, Node, Phone, World, declared, offer, talk, udp_of};

const SET: &str = "[resolve]\nplugin = \"scenario-call\"\n[admission]\nplugin = \"admit-capacity\"\n\
    [degradation]\nplugin = \"degrade-ladder\"\n";

fn admin(gateway: &Gateway) -> (evenkeel_api::ApiThread, ApiClient) {
    let settings = gateway.settings.admin.clone();
    let socket = settings.socket.clone();
    let thread =
        evenkeel_api::start(settings, gateway.handle.clone(), Box::new(|_| String::new())).unwrap();
    (thread, ApiClient::new(ApiEndpoint::Unix(socket)))
}

async fn whole(mut download: Download) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = download.next().await.unwrap() {
        bytes.extend(piece);
    }
    bytes
}

fn records(bytes: &[u8]) -> Vec<RecordingEntry> {
    let mut reader = RecordingReader::open(bytes).unwrap();
    let records = reader.by_ref().collect();
    assert_eq!(reader.lost(), None, "the recording is complete");
    records
}

fn calls(records: &[RecordingEntry]) -> Vec<&RecordedCall> {
    let calls = records.iter().filter_map(|record| match record {
        RecordingEntry::Call(call) => Some(&**call),
        RecordingEntry::Decided(_) | RecordingEntry::Missed(_) => None,
    });
    calls.collect()
}

fn engine_without_deadlines() -> Engine {
    let long = std::time::Duration::from_secs(60);
    Engine::with_budgets(CallBudgets::all(long))
}

/// Replays a recorded call with the shipped plugin.
fn replay(
    engine: &Engine,
    plugins: &[Component],
    call: &RecordedCall,
) -> Result<(HookAnswer, Vec<evenkeel_model::DecisionNote>), PluginFault> {
    let component = plugins.iter().find(|one| *one.digest() == call.revision.digest).unwrap();
    let settings: serde_json::Value = serde_json::from_str(&call.revision.settings).unwrap();
    let (hook, catalog) = (call.revision.policy.hook, call.catalog.entries.clone());
    let mut policy =
        BoundPlugin::install(engine, component, hook, settings, catalog, call.revision.seed)
            .unwrap();
    assert_eq!(policy.revision(), &*call.revision.revision);
    let answered = policy.ask(&call.question, call.now_us)?;
    Ok((answered.answer, answered.notes))
}

#[test]
fn recording_is_redacted_and_replays_exactly() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).routed();
    world.hooks += SET;
    let gateway = world.start();
    let (_api, admin) = admin(&gateway);
    let socket = gateway.settings.admin.socket.clone();
    let (begins, begun) = mpsc::channel();
    let recording = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let admin = ApiClient::new(ApiEndpoint::Unix(socket));
        runtime.block_on(async {
            let download = admin.download("/v1/recording?seconds=3").await.unwrap();
            begins.send(()).unwrap();
            whole(download).await
        })
    });
    begun.recv().unwrap();
    let mut phones = Vec::new();
    for number in 1..=4 {
        let mut phone = Phone::new(number);
        let mut wanted = offer(&format!("room-{number}"), declared(&phone));
        wanted.labels = Arc::new([("client".into(), format!("192.0.2.{number}").into())]);
        phone.set_target(udp_of(&gateway.open(wanted)));
        phones.push(phone);
    }
    let mut all: Vec<&mut Phone> = phones.iter_mut().collect();
    talk(&mut all, "the recording is over", |_| recording.is_finished());
    let bytes = recording.join().unwrap();
    let recorded = records(&bytes);
    let calls = calls(&recorded);
    let ticks = calls.iter().filter(|call| call.revision.policy.hook == Hook::Degradation);
    assert!(ticks.count() >= 3, "{}", calls.len());
    let text = format!("{recorded:?}");
    assert!(text.contains("address-1") && !text.contains("192.0.2."));

    let engine = engine_without_deadlines();
    let plugins = shipped().iter().map(|plugin| Component::vet(&engine, plugin.bytes).unwrap());
    let plugins: Vec<Component> = plugins.collect();
    let mut compared = 0;
    for call in &calls {
        // On a busy machine a call may have missed its deadline.
        let Ok(answered) = &call.result else { continue };
        let said = replay(&engine, &plugins, call).unwrap();
        assert_eq!(said, (answered.answer.clone(), answered.notes.clone()), "{call:?}");
        compared += 1;
    }
    assert!(compared >= 3, "{compared} of {}", calls.len());

    // The past of one policy, with addresses.
    let past = gateway.ask(async {
        let path = "/v1/recording?last=true&addresses=true&policy=call/admission";
        whole(admin.download(path).await.unwrap()).await
    });
    let past = records(&past);
    let past = self::calls(&past);
    assert!(past.iter().all(|call| call.revision.policy.hook == Hook::Admission && !call.redacted));
    assert!(format!("{past:?}").contains("192.0.2."), "{past:?}");
    for wrong in
        ["", "?seconds=0", "?seconds=601", "?seconds=1&last=true", "?last=true&policy=opera"]
    {
        let refused = gateway.ask(admin.download(&format!("/v1/recording{wrong}")));
        assert!(refused.is_err(), "{wrong}");
    }
}
