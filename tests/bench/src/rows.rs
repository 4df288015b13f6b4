//! The rows: a list, not a product.

use crate::row::{Direction, Leg, Load, Row, Sizes, Suite};

/// The three loads that most targets name.
const LOADS: [Load; 3] = [Load::Paced(20_000), Load::Paced(50_000), Load::Saturated];
const LEGS: [Leg; 2] = [Leg::Port, Leg::Trunk];

/// Voice to six nodes: each load, 100 and 1,000 sessions, both legs.
pub(crate) fn quick() -> Vec<Row> {
    every([Direction::ToNode].as_slice())
}

/// The rows of targets, and the base row with each axis varied alone.
pub(crate) fn full() -> Vec<Row> {
    let mut rows = every(&[Direction::ToNode, Direction::ToClient, Direction::Both]);
    for leg in LEGS {
        let base = Row::base(leg);
        for sizes in [Sizes::Video, Sizes::Constant(160), Sizes::Constant(1_200)] {
            rows.push(Row { sizes, ..base });
        }
        for destinations in [1, 100] {
            rows.push(Row { destinations, ..base });
        }
        for sessions in [1, 10_000] {
            rows.push(Row { sessions, ..base });
        }
    }
    for leg in LEGS {
        let base = Row { load: Load::Saturated, ..Row::base(leg) };
        for suite in Suite::ALL {
            for direction in [Direction::ToNode, Direction::ToClient] {
                rows.push(Row { direction, srtp: Some(suite), ..base });
            }
        }
    }
    rows
}

fn every(directions: &[Direction]) -> Vec<Row> {
    let mut rows = Vec::new();
    for leg in LEGS {
        for sessions in [100, 1_000] {
            for &direction in directions {
                let row = |load| Row { direction, load, sessions, ..Row::base(leg) };
                rows.extend(LOADS.map(row));
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_are_unique_and_include_the_base() {
        let rows = full();
        let titles: BTreeSet<String> = rows.iter().map(Row::title).collect();
        assert_eq!(titles.len(), rows.len());
        for leg in LEGS {
            assert!(rows.contains(&Row::base(leg)) && quick().contains(&Row::base(leg)));
        }
        assert!(quick().iter().all(|row| rows.contains(row)));
    }
}
