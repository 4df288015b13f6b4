use super::*;

#[test]
fn only_the_last_process_ends_the_line() {
    // Each announces the next one before it ends. The kernel reports their ends in any order.
    for order in [[2, 3, 4], [3, 2, 4], [4, 3, 2], [4, 2, 3]] {
        let (next, announcing) = io::pipe().unwrap();
        fcntl(&next, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut line = ProcessLine { serving: Pid::from_raw(2), next };
        assert!(!line.served_last(Pid::from_raw(9)), "an orphan");
        for process in [3, 4] {
            announce(announcing.try_clone().unwrap().into(), process).unwrap();
        }
        let last = order.map(|process| line.served_last(Pid::from_raw(process)));
        assert_eq!(last, order.map(|process| process == 4), "{order:?}");
    }
}
