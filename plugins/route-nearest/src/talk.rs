//! Whether the people of a room can talk to each other by way of a node.

use evenkeel_plugin_sdk::prelude::*;

use crate::cost::Seen;
use crate::{RouteNearest, Stay};

/// A node is worth a move only where it keeps clear of the limit by this part of it: what it is like with the room on it
/// is a guess.
const CLEAR_BY: f64 = 0.1;

/// R with nothing impaired but what the defaults of ITU-T G.107 take.
const R_BEST: f64 = 93.2;

/// From this one-way delay on people begin to interrupt each other. Milliseconds.
const DELAY_KNEE: f64 = 177.3;

/// How well a codec that conceals loss takes it: Bpl of G.711 with concealment (ITU-T G.113, appendix I). In per cent.
const ROBUSTNESS: f64 = 25.1;

/// A room's own part of the way: from its people to the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    /// From one to the gateway and from there to the other, in milliseconds; 0 where nobody measured it.
    delay: f64,
    /// Part of the packets that is lost there.
    loss: f64,
}

impl Talk {
    /// That of the session that fares worst: its round trip stands for half of it and half of the other one's.
    pub(crate) fn of(room: &Room<'_, Stay>) -> Talk {
        let loss_ppm = room.loss_up_ppm().max(room.loss_down_ppm()).unwrap_or(0);
        Talk {
            delay: f64::from(room.rtt_client_us().unwrap_or(0)) / 1000.0,
            loss: f64::from(loss_ppm) / 1e6,
        }
    }

    /// Whether it goes badly by way of this node: too late, or too little of it.
    pub(crate) fn is_poor(&self, settings: &RouteNearest, node: &Seen<'_>) -> bool {
        self.fails(settings, node, 0.0)
    }

    /// Whether it would go well, and by a clear margin. Of a node whose delay nobody measured that is not known.
    pub(crate) fn is_well(&self, settings: &RouteNearest, node: &Seen<'_>) -> bool {
        node.delay().is_some() && !self.fails(settings, node, CLEAR_BY)
    }

    fn fails(&self, settings: &RouteNearest, node: &Seen<'_>, clear_by: f64) -> bool {
        // To the node and back.
        let delay = self.delay + 2.0 * node.delay().unwrap_or(0.0);
        let loss = 1.0 - (1.0 - self.loss) * (1.0 - node.loss());
        let delay_most = settings.delay_most.as_secs_f64() * 1000.0;
        let late = delay_most > 0.0 && delay > delay_most * (1.0 - clear_by);
        late || r_factor(delay, loss) < settings.r_least * (1.0 + clear_by)
    }
}

/// The E-model's R, simplified as usual for packet networks: R = 93.2 - Id - Ie,eff.
fn r_factor(delay: f64, loss: f64) -> f64 {
    let delay = 0.024 * delay + 0.11 * (delay - DELAY_KNEE).max(0.0);
    let per_cent = loss * 100.0;
    R_BEST - delay - 95.0 * per_cent / (per_cent + ROBUSTNESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_is_what_the_gateway_says_it_is() {
        // The figures of the gateway's own tests, in hundredths.
        for (delay, loss, r) in [
            (0.0, 0.0, 93.2),
            (100.0, 0.0, 90.8),
            (177.0, 0.0, 88.95),
            (400.0, 0.0, 59.10),
            (0.0, 0.01, 89.56),
            (0.0, 0.05, 77.42),
        ] {
            assert!((r_factor(delay, loss) - r).abs() < 0.01, "{delay} {loss}");
        }
    }
}
