use evenkeel_core::Limits;

use super::*;
use crate::control::Actor;
use crate::policy::How;

/// Each policy has a plugin of its own.
const MANY: usize = 16;

fn source(bytes: Vec<u8>) -> Source {
    let (settings, origin, seed, arrived) = (None, "embedded".into(), 7, Instant::now());
    let how = How::at_once(Actor::File);
    Source { bytes, settings, origin, seed, arrived, how }
}

#[test]
fn first_failing_policy_is_reported_at_once() {
    let (words, _words) = mpsc::channel(64);
    let mut policies = Policies::new(Vec::new(), &Limits::default(), words);
    let routing = evenkeel_host::shipped().iter().find(|one| one.name == "route-nearest").unwrap();
    let mut firsts = Firsts::new();
    for number in 0..MANY {
        let policy = PolicyName { set: format!("s{number}").into(), hook: Hook::Routing };
        policies.start(policy.clone()).unwrap();
        // A custom section of one byte.
        let bytes = match number {
            0 => b"no plugin".to_vec(),
            _ => [routing.bytes, &[0, 3, 1, b'n', number as u8][..]].concat(),
        };
        firsts.push_back(vec![(policies.workshop(&policy).unwrap(), source(bytes))]);
    }
    let (failed, failures) = bounded(1);
    assert!(!bring_in(firsts, &failed));
    let failure = failures.try_recv().unwrap();
    assert!(failure.to_string().starts_with("policy s0/routing: "), "{failure}");
    let compiled = policies.views().iter().filter(|policy| policy.revision.is_some()).count();
    assert!(compiled < MANY - 1, "none of them is needed any more");
}
