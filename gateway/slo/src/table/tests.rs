use std::time::Duration;

use super::*;
use crate::{ActivationJudges, SloRecord};

const SLO: ServiceObjective = ServiceObjective {
    objective: 0.99,
    refusals: true,
    set_up: None,
    gap: None,
    r_factor_centi: None,
};

#[test]
fn burn_rate_needs_ten_sessions() {
    let mut now = Instant::now();
    let mut table = SloTable::new(now);
    let call: Arc<str> = "call".into();
    let mut offers = |bad: u32, good: u32| {
        now += Duration::from_secs(1);
        for is_bad in (0..bad + good).map(|number| number < bad) {
            table.note_offer(&call, SloIndicator::Refusals, is_bad, now);
        }
        let (tick, of) = (table.tick(now), SloIndicator::Refusals);
        [0, 1, 2, 3].map(|place| table.window(&call, of, &SLO, place, tick).burn_rate)
    };
    assert_eq!(offers(1, 8), [None; 4]);
    assert_eq!(offers(0, 1), [Some(10.0); 4], "1 of 10, where 1 % may be bad");
    assert_eq!(offers(10, 180), [Some(5.5); 4]);
}

#[test]
fn window_tells_for_how_long_it_counts() {
    let began = Instant::now();
    let table = SloTable::new(began);
    let counted = |after_s: u64| {
        let tick = table.tick(began + Duration::from_secs(after_s));
        let window = |place| table.window("call", SloIndicator::Gap, &SLO, place, tick);
        [0, 1, 3].map(|place| window(place).counted.map(|it| it.as_secs()))
    };
    assert_eq!(counted(0), [Some(0), Some(0), Some(0)]);
    assert_eq!(counted(300), [None, Some(300), Some(300)]);
    assert_eq!(counted(3_599), [None, Some(3_590), Some(3_590)]);
    assert_eq!(counted(3_600), [None, None, Some(3_600)]);
    assert_eq!(counted(30 * 86_400), [None; 3]);
}

#[test]
fn records_of_single_scenarios_add_up() {
    let now = Instant::now();
    let mut table = SloTable::new(now);
    let judges = ActivationJudges::default();
    assert_eq!(table.record(&judges), None);
    assert_eq!(table.next_record(&mut None, &judges), None);
    let refuse = |table: &mut SloTable, name: &str| {
        table.note_offer(&name.into(), SloIndicator::Refusals, true, now);
    };
    ["a", "b", "c"].iter().for_each(|name| refuse(&mut table, name));
    let (mut last, mut whole) = (None, None);
    for _ in 0..3 {
        whole = SloRecord::merged(whole, table.next_record(&mut last, &judges));
    }
    assert_eq!(whole, table.record(&judges));
    refuse(&mut table, "a");
    whole = SloRecord::merged(whole, table.next_record(&mut last, &judges));
    assert_eq!(whole, table.record(&judges), "the first one comes again");
    assert_eq!(SloRecord::merged(whole.clone(), None), whole);
}
