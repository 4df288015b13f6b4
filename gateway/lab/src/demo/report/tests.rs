use super::*;

fn heard(p99: f64, sessions: usize) -> FailoverFigures {
    FailoverFigures {
        cause: "node-down",
        silent: false,
        unattended: false,
        ingress: "udp",
        node: "east-a1".to_owned(),
        sessions,
        detect_ms: DetectionFigures::default(),
        gap_ms: GapFigures { spread: GapSpread { p50: p99, p99, max: p99 }, clock: "kernel" },
        packets_lost: 0,
        by_witness: BTreeMap::new(),
    }
}

#[test]
fn late_machine_fails_no_check_by_time_alone() {
    let [timely, late] = [false, true];
    let kept = |p99, sessions, machine_is_late| gap(&heard(p99, sessions), machine_is_late).kept;
    assert_eq!(kept(50.0, 9, timely), Some(true));
    assert_eq!(kept(50.1, 9, timely), Some(false));
    assert_eq!(kept(50.0, 9, late), Some(true));
    assert_eq!(kept(50.1, 9, late), None);
    assert_eq!(kept(150.1, 9, late), Some(false), "no machine is that late");
    assert_eq!(kept(10.0, 0, late), Some(false), "no receiver was affected");
}

#[test]
fn takeover_must_keep_each_session() {
    let takeover = |p99, unheard| Takeover {
        sessions: 40,
        unheard,
        gap_ms: GapFigures { spread: GapSpread { p50: p99, p99, max: p99 }, clock: "kernel" },
        packets_lost: 80,
        twice: 0,
        misdelivered: 0,
    };
    let kept = |p99, unheard| taken_over(&takeover(p99, unheard), false).map(|check| check.kept);
    assert_eq!(kept(60.0, 0), [Some(true), Some(true)]);
    assert_eq!(kept(60.1, 1), [Some(false), Some(false)]);
    let twice = Takeover { twice: 1, ..takeover(1.0, 0) };
    assert_eq!(taken_over(&twice, false)[1].kept, Some(false));
}
