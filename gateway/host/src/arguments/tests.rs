use evenkeel_model::{Measures, UNMEASURED};

use super::*;

#[test]
fn frame_has_granted_columns_in_order() {
    let mut measures = Measures::default();
    measures.set(Metric::LossUp, 5).set(Metric::Cap, 300).set(Metric::Age, 7);
    let rows = [Row { id: 8, measures }, Row { id: 9, measures: Measures::default() }];
    let mut frame = GrantedTable::default();
    for rows in [&[rows[1], rows[0], rows[0]][..], &rows[..]] {
        frame.fill(&[Metric::Cap, Metric::LossUp], rows.iter());
    }
    assert_eq!(frame.ids, [8, 9]);
    assert_eq!(frame.cells, [300, UNMEASURED, 5, UNMEASURED]);
}
