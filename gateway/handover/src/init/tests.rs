use super::*;

/// The line of process 2, and its end for announcements.
fn line() -> (ProcessLine, PipeWriter) {
    let (next, announcing) = io::pipe().unwrap();
    fcntl(&next, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    (ProcessLine { serving: Pid::from_raw(2), next }, announcing)
}

#[test]
fn only_the_last_process_ends_the_line() {
    // Each announces the next one before it ends. The kernel reports their ends in any order.
    for order in [[2, 3, 4], [3, 2, 4], [4, 3, 2], [4, 2, 3]] {
        let (mut line, announcing) = line();
        assert!(!line.served_last(Pid::from_raw(9)), "an orphan");
        for process in [3, 4] {
            announce(announcing.try_clone().unwrap().into(), process).unwrap();
        }
        let last = order.map(|process| line.served_last(Pid::from_raw(process)));
        assert_eq!(last, order.map(|process| process == 4), "{order:?}");
    }
}

#[test]
fn announced_process_serves_before_the_other_ends() {
    let (mut line, announcing) = line();
    assert_eq!(line.last_announced(), Pid::from_raw(2));
    announce(announcing.into(), 3).unwrap();
    assert_eq!(line.last_announced(), Pid::from_raw(3));
}
