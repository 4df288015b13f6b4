use super::*;

/// The counts of the whole window.
fn whole(counts: &SessionCounts, window: usize, tick: u32) -> (u32, u32) {
    counts.within(window, WINDOWS[window].buckets, tick)
}

fn measure(counts: &mut SessionCounts, mark: &mut SessionMark, is_bad: bool, tick: u32) {
    if let Some(next) = mark.next(is_bad, tick) {
        counts.note(mark, next);
    }
}

#[test]
fn each_window_forgets_after_its_length() {
    for (window, WindowLength { buckets, ticks, .. }) in WINDOWS.into_iter().enumerate() {
        let mut counts = SessionCounts::new(0);
        counts.note_offer(true, 0);
        let end = buckets * ticks;
        assert_eq!(whole(&counts, window, end - 1), (1, 1));
        assert_eq!(whole(&counts, window, end), (0, 0));
        // The same with a newer bucket.
        counts.note_offer(false, end);
        assert_eq!(whole(&counts, window, end), (1, 0));
    }
}

#[test]
fn bad_session_counts_once_per_window() {
    let (mut counts, mut mark) = (SessionCounts::new(7), SessionMark::default());
    measure(&mut counts, &mut mark, false, 7);
    assert_eq!(whole(&counts, SHORTEST, 7), (1, 0));
    for tick in [7, 7, 9, 20, 5_000] {
        measure(&mut counts, &mut mark, true, tick);
        for window in 0..WINDOWS.len() {
            assert_eq!(whole(&counts, window, tick), (1, 1), "{window}, {tick}");
        }
    }
    // From its last miss on it is good again after a window, but not in a longer one.
    assert_eq!(whole(&counts, SHORTEST, 5_029), (1, 1));
    assert_eq!(whole(&counts, SHORTEST, 5_030), (1, 0));
    assert_eq!(whole(&counts, 1, 5_030), (1, 1));
}

#[test]
fn ended_session_counts_until_its_window_ends() {
    let (mut counts, mut mark) = (SessionCounts::new(0), SessionMark::default());
    counts.leave(mark, 0);
    assert_eq!(whole(&counts, SHORTEST, 0), (0, 0), "it was not measured");
    measure(&mut counts, &mut mark, true, 0);
    counts.leave(mark, 10);
    assert_eq!(whole(&counts, SHORTEST, 29), (1, 1));
    assert_eq!(whole(&counts, SHORTEST, 30), (1, 0), "the miss is older than the end");
    assert_eq!(whole(&counts, SHORTEST, 40), (0, 0));
}

#[test]
fn buckets_are_bounded_after_a_pause() {
    for (window, length) in WINDOWS.into_iter().enumerate() {
        let (mut counts, mut mark) = (SessionCounts::new(0), SessionMark::default());
        measure(&mut counts, &mut mark, true, 0);
        let late = 10 * length.buckets * length.ticks;
        assert_eq!(whole(&counts, window, late), (1, 0));
        measure(&mut counts, &mut mark, true, late);
        assert_eq!(counts.windows[window].buckets.len(), length.buckets as usize);
        assert_eq!(whole(&counts, window, late), (1, 1));
    }
}

#[test]
fn continued_mark_may_be_ahead_of_its_bucket() {
    let (mut counts, mut mark) = (SessionCounts::new(0), SessionMark::BadIn(9));
    counts.resume(&mut mark, 8);
    assert_eq!(mark, SessionMark::BadIn(8), "its clock began a little later");
    measure(&mut counts, &mut mark, true, 9);
    assert_eq!(whole(&counts, SHORTEST, 9), (1, 1), "the copy lacked the miss");
}
