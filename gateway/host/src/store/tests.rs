use super::*;

fn said(log: &mut PluginLog) -> usize {
    std::iter::from_fn(|| log.lines.pop_front()).count()
}

#[test]
fn log_rate_is_limited_and_recovers() {
    let mut log = PluginLog::default();
    log.begin(1_000_000);
    for _ in 0..LINES_BURST + 5 {
        log.log(2, "again");
    }
    assert_eq!(said(&mut log) as u64, LINES_BURST);
    assert_eq!(log.suppressed_lines, 5);

    log.begin(1_000_000 + US_PER_LINE - 1);
    log.log(2, "too early");
    assert_eq!(said(&mut log), 0);

    log.begin(1_000_000 + US_PER_LINE);
    log.log(2, "now");
    log.log(2, "and no more");
    assert_eq!(said(&mut log), 1);
}

#[test]
fn unread_lines_are_bounded() {
    let mut log = PluginLog::default();
    for second in 0..100 {
        log.begin(second * 10_000_000);
        log.log(4, "alone");
    }
    assert_eq!(said(&mut log), LINES_WAITING_MAX);
}

#[test]
fn line_has_no_control_characters() {
    assert_eq!(&*one_line("a\nb\u{1b}[2Jc", 100), "a b [2Jc");
    assert_eq!(&*one_line("aé", 2), "a");
}

#[test]
fn notes_are_bounded_and_per_decision() {
    let mut log = PluginLog::default();
    for row in 0..NOTES_MAX as u32 + 1 {
        log.note(row, "why", 1);
    }
    assert_eq!(log.notes.len(), NOTES_MAX);
    log.note(0, "why", 1);
    log.begin_call();
    assert!(log.notes.is_empty());
}
