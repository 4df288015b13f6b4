use super::*;

#[test]
fn batch_size_grows_back_after_a_while() {
    let mut limit = BatchLimit { most: 512, answered: 0 };
    for answered in 1..GROW_AFTER {
        limit = limit.answered();
        assert_eq!(limit, BatchLimit { most: 512, answered });
    }
    assert_eq!(limit.answered(), BatchLimit { most: 1_024, answered: 0 });
}

#[test]
fn quarantine_is_bounded_and_frees_departed_rows() {
    let mut quarantine = RowQuarantine::default();
    for id in 0..HELD_MAX as u64 {
        assert!(quarantine.hold(id, PluginFault::Deadline, 0));
    }
    assert!(!quarantine.hold(999, PluginFault::Deadline, GONE_AFTER_US));
    assert_eq!(quarantine.check(3, GONE_AFTER_US), Some(PluginFault::Deadline));
    assert!(quarantine.hold(999, PluginFault::OutOfMemory, GONE_AFTER_US + 1));
    assert_eq!(quarantine.len(), 2, "the one still in questions, and the new one");
    assert_eq!(quarantine.check(4, 0), None);
}

#[test]
fn lone_failure_counts_after_answers_in_between() {
    let mut quarantine = RowQuarantine::default();
    assert!(!quarantine.note_alone(1));
    assert!(!quarantine.note_alone(1), "a plugin without answers is broken itself");
    quarantine.answers += 1;
    assert!(!quarantine.note_alone(2), "once is chance");
    assert!(quarantine.note_alone(1));
    for id in 10..10 + ACCUSED_MAX as u64 {
        quarantine.note_alone(id);
    }
    assert_eq!(quarantine.accused.len(), ACCUSED_MAX);
}
