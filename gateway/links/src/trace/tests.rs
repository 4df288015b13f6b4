use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn dead_node_answers_nothing_and_trace_repeats() {
    let link = Conditions { delay: MS, jitter: MS * 3, ..Conditions::default() };
    let stretches = [
        Stretch { lasts: MS * 1_000, link, alive: true },
        Stretch { lasts: MS * 500, link, alive: false },
    ];
    let clocks = Clocks { probe_every: MS * 10, media_every: MS * 2 };
    let start = Instant::now();
    let trace = Trace::record(3, clocks, &stretches, start);
    assert_eq!(trace, Trace::record(3, clocks, &stretches, start));
    assert_eq!(trace.probes.len(), 150);
    let answered = |probe: &&TraceProbe| probe.answered.is_some();
    assert_eq!(trace.probes.iter().filter(answered).count(), 100);
    assert!(trace.media.len() > 400 && trace.media.is_sorted());
    let last = trace.media.last().copied().into_iter().max();
    assert!(last < Some(trace.marks[1] + MS * 8), "sent before the death");
}
