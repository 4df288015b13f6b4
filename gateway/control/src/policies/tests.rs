use super::*;

fn settings(canary: &[u8]) -> evenkeel_config::RolloutSettings {
    evenkeel_config::RolloutSettings {
        is_stated: true,
        canary: canary.into(),
        ..evenkeel_config::RolloutSettings::default()
    }
}

#[test]
fn push_without_strategy_activates_at_once() {
    let plain = PushRequest::default();
    assert_eq!(plain.strategy(None), None);
    assert_eq!(
        plain.strategy(Some(&evenkeel_config::RolloutSettings::default())),
        None,
        "no `[rollout]` in its set"
    );
    let strategy = plain.strategy(Some(&settings(&[5, 50]))).unwrap();
    assert_eq!((strategy.steps, strategy.shadow), (vec![5, 50], Duration::from_secs(5)));
    let now = PushRequest { now: true, ..PushRequest::default() };
    assert_eq!(now.strategy(Some(&settings(&[5]))), None);
    let none = evenkeel_config::RolloutSettings { shadow: Duration::ZERO, ..settings(&[]) };
    assert_eq!(plain.strategy(Some(&none)), None, "empty `[rollout]` activates at once");
}

#[test]
fn push_overrides_the_strategy_of_its_set() {
    let push = PushRequest { canary: Some(vec![1, 25]), ..PushRequest::default() };
    let strategy = push.strategy(Some(&settings(&[5, 50]))).unwrap();
    assert_eq!((strategy.steps, strategy.shadow), (vec![1, 25], Duration::ZERO));
    let push = PushRequest { pace: Some(Duration::from_secs(1)), ..PushRequest::default() };
    let strategy = push.strategy(None).unwrap();
    assert_eq!((strategy.steps, strategy.each), (vec![1, 5, 25, 50, 100], Duration::from_secs(1)));
    let push = PushRequest { shadow: true, ..PushRequest::default() };
    assert!(push.strategy(None).unwrap().stays_in_shadow);
}
