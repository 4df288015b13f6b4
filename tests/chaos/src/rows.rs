//! All rows, in order.

mod gateway;
mod group;
mod link;
mod node;
mod region;
mod store;
mod webrtc;
mod webtransport;
mod zone;

use crate::row::Row;

pub(crate) fn all() -> Vec<Row> {
    [
        node::ROWS,
        link::ROWS,
        zone::ROWS,
        region::ROWS,
        gateway::ROWS,
        group::ROWS,
        store::ROWS,
        webrtc::ROWS,
        webtransport::ROWS,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique() {
        let ids: BTreeSet<&str> = all().iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), all().len());
    }
}
