//! Loss that is congestion, and loss that is not.

/// A window has at least this many packets and this time: it is shorter than a fall of the estimate may take.
const WINDOW_PACKETS: u32 = 20;
const WINDOW_US: i64 = 200_000;

/// Less loss is no congestion (gcc-02, section 6).
const TOLERATED: f64 = 0.1;

/// Loss counts as more than what is tolerated if it exceeds it by this many standard deviations of random loss: once in some minutes
/// by chance.
const DEVIATIONS: f64 = 3.0;

/// Loss that a lower rate leaves at this share or more of itself is not caused by the rate.
const UNCHANGED: f64 = 0.75;

/// Counts packets between two decisions.
#[derive(Default, Debug)]
pub(super) struct LossWindow {
    arrived: u32,
    lost: u32,
    since_us: Option<i64>,
}

/// The loss of a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowLoss {
    pub(super) packets: u32,
    lost: u32,
}

impl LossWindow {
    pub(super) fn note_arrived(&mut self) {
        self.arrived += 1;
    }

    pub(super) fn note_lost(&mut self) {
        self.lost += 1;
    }

    /// Notes that a packet arrived that was lost before.
    pub(super) fn note_late(&mut self) {
        self.lost = self.lost.saturating_sub(1);
        self.arrived += 1;
    }

    /// Returns the loss and begins another window, if there are enough packets.
    pub(super) fn close(&mut self, now_us: i64) -> Option<WindowLoss> {
        let since_us = *self.since_us.get_or_insert(now_us);
        let packets = self.arrived + self.lost;
        if packets < WINDOW_PACKETS || now_us - since_us < WINDOW_US {
            return None;
        }
        let loss = WindowLoss { packets, lost: self.lost };
        *self = LossWindow { since_us: Some(now_us), ..LossWindow::default() };
        Some(loss)
    }
}

impl WindowLoss {
    pub(super) fn share(self) -> f64 {
        f64::from(self.lost) / f64::from(self.packets)
    }
}

/// The loss that does not lower the rate. Random loss remains at any rate, and is tolerated once a lower rate did not lessen it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LossTolerance {
    share: f64,
    trial: LossTrial,
}

/// Whether a lower rate lessens the loss.
#[derive(Clone, Copy, Debug)]
enum LossTrial {
    None,
    /// The rate was lowered for this loss. Most packets of the next window were sent before.
    Begun(f64),
    Due(f64),
}

impl Default for LossTolerance {
    fn default() -> Self {
        LossTolerance { share: TOLERATED, trial: LossTrial::None }
    }
}

impl LossTolerance {
    /// Returns whether this loss among so many packets is congestion, for which the caller lowers the rate.
    pub(super) fn is_exceeded(&mut self, loss: f64, packets: f64) -> bool {
        match self.trial {
            LossTrial::Begun(before) => {
                self.trial = LossTrial::Due(before);
                return false;
            }
            LossTrial::Due(before) if loss >= UNCHANGED * before => self.share = loss + TOLERATED,
            LossTrial::Due(_) | LossTrial::None => {}
        }
        self.share = self.share.min(loss + TOLERATED).max(TOLERATED);
        let deviation = (self.share * (1.0 - self.share).max(0.0) / packets).sqrt();
        let is_exceeded = loss > self.share + DEVIATIONS * deviation;
        self.trial = if is_exceeded { LossTrial::Begun(loss) } else { LossTrial::None };
        is_exceeded
    }

    /// Returns whether the effect of a lower rate is not known yet.
    pub(super) fn is_trying(&self) -> bool {
        matches!(self.trial, LossTrial::Due(_))
    }
}

#[cfg(test)]
mod tests;
