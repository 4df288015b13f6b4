use std::time::Instant;

use evenkeel_host::DataDocuments;
use evenkeel_model::GatewayLimits;
use evenkeel_policies::{ActivationOptions, SourceDocuments};
use evenkeel_revisions::Actor;

use super::*;

/// Each policy has a plugin of its own.
const MANY: usize = 16;

fn source(bytes: Vec<u8>) -> PluginSource {
    let (settings, origin, seed, arrived) = (None, "embedded".into(), 7, Instant::now());
    let how = ActivationOptions::at_once(Actor::File);
    let documents = SourceDocuments::Whole(DataDocuments::new());
    PluginSource { bytes, settings, documents, origin, configured: None, seed, arrived, how }
}

#[test]
fn failed_first_revision_stops_the_others() {
    let (words, mut read) = mpsc::channel(64);
    let settings = GatewayConfig::load(None, None, &[]).unwrap();
    let mut gateway = Gateway::new(settings.core(), Instant::now());
    let mut policies = PolicyThreads::new(Vec::new(), &GatewayLimits::default(), words);
    let routing = evenkeel_host::shipped().iter().find(|one| one.name == "route-nearest").unwrap();
    let mut firsts = FirstRevisionQueue::new();
    for number in 0..MANY {
        let policy = PolicyName { set: format!("s{number}").into(), hook: Hook::Routing };
        policies
            .start(&policy, evenkeel_config::RolloutSettings::default().rules(), &mut gateway)
            .unwrap();
        // Adds an empty custom section.
        let bytes = match number {
            0 => b"no plugin".to_vec(),
            _ => [routing.bytes, &[0, 3, 1, b'n', number as u8][..]].concat(),
        };
        let preparation = policies.preparation(&policy, &mut gateway).unwrap();
        let configured = (preparation, source(bytes));
        firsts.push_back(vec![FirstRevision { earlier: None, configured }]);
    }
    let (failed, failures) = bounded(1);
    let compiled = std::thread::scope(|scope| {
        // The core does not answer, so no revision becomes ready.
        let reading = scope.spawn(move || std::iter::from_fn(|| read.blocking_recv()).count());
        assert!(!load_first_revisions(firsts, &failed));
        drop(policies);
        reading.join().unwrap()
    });
    let failure = failures.try_recv().unwrap();
    assert!(failure.to_string().starts_with("policy s0/routing: "), "{failure}");
    assert!(compiled < MANY - 1, "the remaining ones are skipped");
}
