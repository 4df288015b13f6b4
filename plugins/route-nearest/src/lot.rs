//! Weighted draws of rooms for nodes.

use evenkeel_plugin_sdk::prelude::*;

/// Returns a room's draw for a node. The room takes the node with the highest draw, so that each node gets rooms in
/// proportion to its weight.
///
/// The draw is equal on every gateway. A node that is added, removed or changes its weight gains or loses rooms, but
/// moves no room between two other nodes (weighted rendezvous hashing: the logarithm of a uniform number, divided by
/// the weight).
pub(crate) fn lot(room: RoomId, node: NodeId, weight: f64) -> f64 {
    let bits = mix(mix(room.0).wrapping_add(u64::from(node.0))) >> 11;
    // The argument is in (0, 1): an f64 holds 53 bits.
    logarithm((bits as f64 + 0.5) / (1_u64 << 53) as f64) / weight
}

/// Returns an approximate base-2 logarithm of a positive number. The error is at most 0.01, or a tenth of the value
/// near 1, where the highest draws are. It is equal for all nodes, and the function takes a tenth of the exact one's
/// time.
fn logarithm(number: f64) -> f64 {
    let bits = number.to_bits();
    let exponent = (bits >> 52) as f64 - 1024.0;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1.0_f64.to_bits());
    exponent + (2.0 - mantissa / 3.0) * mantissa - 2.0 / 3.0
}

/// Mixes bits like SplitMix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_is_accurate_enough() {
        for thousandth in 1..1_000 {
            let number = f64::from(thousandth) / 1_000.0;
            assert!((logarithm(number) - number.log2()).abs() < 0.01, "{number}");
        }
        for close in [1e-3, 1e-6, 1e-9] {
            let exact = (1.0_f64 - close).log2();
            assert!((logarithm(1.0 - close) / exact - 1.0).abs() < 0.1, "{close}");
        }
    }

    #[test]
    fn nodes_win_in_proportion_to_weights() {
        let weights = [1.0, 2.0, 5.0];
        let mut wins = [0; 3];
        for room in 0..8_000 {
            let lots = weights
                .iter()
                .zip(0..)
                .map(|(&weight, node)| (lot(RoomId(room), NodeId(node), weight), node));
            let (_, node) = lots.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
            wins[node as usize] += 1;
        }
        for (won, expected) in wins.into_iter().zip([1_000, 2_000, 5_000]) {
            assert!(i32::abs(won - expected) < 200, "{wins:?}");
        }
    }

    #[test]
    fn weight_gain_moves_no_room_between_others() {
        let winner = |room, weights: [f64; 3]| {
            let lots = weights.into_iter().zip(0..);
            let lots = lots.map(|(weight, node)| (lot(RoomId(room), NodeId(node), weight), node));
            lots.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1
        };
        let mut moved = 0;
        for room in 0..1_000 {
            let (before, after) = (winner(room, [1.0, 1.0, 1.0]), winner(room, [1.0, 1.0, 2.0]));
            assert!(after == before || after == 2, "room {room} went from {before} to {after}");
            moved += i32::from(after != before);
        }
        assert!((100..240).contains(&moved), "a half from a third: {moved}");
    }
}
