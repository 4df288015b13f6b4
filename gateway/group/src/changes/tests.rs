use std::pin::pin;

use super::*;

fn change(at_us: u64) -> ChangeRecord {
    ChangeRecord { at_us, text: format!("change {at_us}").into() }
}

fn exchange() -> ChangeExchange {
    ChangeExchange::new(Arc::default())
}

/// Passes on all changes that the standby lacks. Returns their number.
fn pass(owner: &mut ChangeExchange, standby: &mut ChangeExchange) -> usize {
    let parts = std::iter::from_fn(|| Some(owner.next_part()).filter(|part| !part.is_empty()));
    let parts: Vec<_> = parts.collect();
    let passed = parts.iter().map(Vec::len).sum();
    parts.into_iter().for_each(|part| standby.take(part));
    standby.add_received();
    passed
}

#[test]
fn standby_has_each_change_of_the_owner_once() {
    let (mut owner, mut standby) = (exchange(), exchange());
    owner.list.add((0..10).map(change));
    standby.list.add([change(3), change(100)]);
    assert_eq!(pass(&mut owner, &mut standby), 10);
    let both = [owner.list.since(0), vec![change(100)]].concat();
    assert_eq!(standby.list.since(0), both);
    owner.list.add([change(200)]);
    assert_eq!(pass(&mut owner, &mut standby), 1);
    // After a new connection they come again.
    owner.begin();
    assert_eq!(pass(&mut owner, &mut standby), 11);
    assert_eq!(standby.list.since(100), [change(100), change(200)]);
    assert_eq!(standby.list.since(0).len(), 12);
}

#[test]
fn known_changes_are_not_announced() {
    let (mut owner, mut standby) = (exchange(), exchange());
    owner.list.add((0..100).map(change));
    assert_eq!(owner.next_part().len(), 100, "short changes are one part");
    let is_announced = |standby: &ChangeExchange| {
        let mut copied = pin!(standby.list.copied.notified());
        copied.as_mut().enable()
    };
    for is_new in [true, false] {
        owner.begin();
        pass(&mut owner, &mut standby);
        assert_eq!(is_announced(&standby), is_new);
    }
}

#[test]
fn long_changes_are_several_parts() {
    let mut owner = exchange();
    let text: Box<str> = "x".repeat(PART_BYTES / 2).into();
    owner.list.add((0..3).map(|at_us| ChangeRecord { at_us, text: text.clone() }));
    assert_eq!([owner.next_part().len(), owner.next_part().len()], [2, 1]);
}

#[test]
fn change_with_an_earlier_time_is_passed_on() {
    let (mut owner, mut standby) = (exchange(), exchange());
    owner.list.add([change(5), change(9)]);
    pass(&mut owner, &mut standby);
    owner.list.add([change(7)]);
    assert!(pass(&mut owner, &mut standby) > 0);
    assert_eq!(standby.list.since(0), [5, 7, 9].map(change));
}

#[test]
fn oldest_changes_are_dropped() {
    let (mut owner, mut standby) = (exchange(), exchange());
    owner.list.add((0..1_030).map(change));
    assert_eq!(owner.list.since(0).len(), CHANGES_MAX);
    assert_eq!(pass(&mut owner, &mut standby), CHANGES_MAX);
    assert_eq!(standby.list.since(0).first(), Some(&change(6)));
}

#[test]
fn member_does_not_wait_for_a_reader() {
    let (mut owner, mut standby) = (exchange(), exchange());
    owner.list.add([change(1)]);
    let list = Arc::clone(&owner.list);
    let reading = lock(&list.recent);
    assert!(owner.next_part().is_empty());
    drop(reading);
    standby.take(owner.next_part());
    let list = Arc::clone(&standby.list);
    let reading = lock(&list.recent);
    standby.add_received();
    drop(reading);
    assert!(standby.list.since(0).is_empty());
    standby.add_received();
    assert_eq!(standby.list.since(0), [change(1)]);
}
