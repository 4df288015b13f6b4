//! Quality of conversation over a node.

use evenkeel_plugin_sdk::prelude::*;

use crate::cost::UsableNode;
use crate::{RouteNearest, Stay};

/// Margin to the limits that a node needs to be worth a move, because its quality with the room on it is an estimate.
const CLEAR_BY: f64 = 0.1;

/// R at the defaults of ITU-T G.107, without delay or loss.
const R_BEST: f64 = 93.2;

/// One-way delay from which people interrupt each other. Milliseconds.
const DELAY_KNEE: f64 = 177.3;

/// Robustness to loss of a codec with concealment: Bpl of G.711 (ITU-T G.113, appendix I). Per cent.
const ROBUSTNESS: f64 = 25.1;

/// Quality of the path from the participants to the gateway, without the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    /// Delay from one participant to the gateway and on to another, in milliseconds; 0 if unmeasured.
    delay: f64,
    /// Share of packets lost on that path.
    loss: f64,
}

impl Talk {
    /// Returns the values of the worst session. Half of its round trip is its own path; the other half stands for the
    /// other participant's path.
    pub(crate) fn of(room: &Room<'_, Stay>) -> Talk {
        let loss_ppm = room.loss_up_ppm().max(room.loss_down_ppm()).unwrap_or(0);
        Talk {
            delay: f64::from(room.rtt_client_us().unwrap_or(0)) / 1000.0,
            loss: f64::from(loss_ppm) / 1e6,
        }
    }

    /// Returns whether the delay over this node is too long, or the R-factor too low.
    pub(crate) fn is_poor(&self, settings: &RouteNearest, node: &UsableNode<'_>) -> bool {
        self.fails(settings, node, 0.0)
    }

    /// Returns whether delay and R-factor are good by a clear margin. False for a node with unmeasured delay.
    pub(crate) fn is_well(&self, settings: &RouteNearest, node: &UsableNode<'_>) -> bool {
        node.delay().is_some() && !self.fails(settings, node, CLEAR_BY)
    }

    fn fails(&self, settings: &RouteNearest, node: &UsableNode<'_>, clear_by: f64) -> bool {
        // The path leads to the node and back.
        let delay = self.delay + 2.0 * node.delay().unwrap_or(0.0);
        let loss = 1.0 - (1.0 - self.loss) * (1.0 - node.loss());
        let max_delay = settings.max_delay.as_secs_f64() * 1000.0;
        let late = max_delay > 0.0 && delay > max_delay * (1.0 - clear_by);
        late || r_factor(delay, loss) < settings.min_r_factor * (1.0 + clear_by)
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
    fn r_equals_the_gateways() {
        // The values are those of the gateway's own tests, in hundredths.
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
