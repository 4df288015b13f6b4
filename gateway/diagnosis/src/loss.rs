//! Loss of packets, and its certainty.

/// Loss of a segment that impairs a session, in ppm. By G.113, 3 % cost voice with concealment 10 points of R.
pub(crate) const IMPAIRS_PPM: u32 = 30_000;

/// Everyday loss. A higher loss needs the certainty [`CERTAIN`].
pub(crate) const EVERYDAY: f64 = 0.01;
pub(crate) const CERTAIN: f64 = 0.95;

/// Fewer packets than this prove nothing: 800 ms of voice.
const PACKETS_MIN: u32 = 40;

/// Lost packets of a number of packets.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct LossShare {
    pub(crate) lost: u32,
    pub(crate) of: u32,
}

/// The loss in a segment, and the certainty that it is more than everyday loss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnLoss {
    pub(crate) ppm: u32,
    pub(crate) certainty: f64,
}

impl LossShare {
    pub(crate) fn of_ppm(ppm: u32, of: u32) -> LossShare {
        LossShare { lost: (u64::from(of) * u64::from(ppm) / 1_000_000) as u32, of }
    }

    pub(crate) fn share(&self) -> f64 {
        f64::from(self.lost) / f64::from(self.of.max(1))
    }

    pub(crate) fn ppm(&self) -> u32 {
        (self.share() * 1e6) as u32
    }

    pub(crate) fn measured(&self) -> Option<u32> {
        (self.of > 0).then(|| self.ppm())
    }

    /// The square of the standard error.
    fn variance(&self) -> f64 {
        self.share() * (1.0 - self.share()) / f64::from(self.of.max(1))
    }

    /// The loss beyond that of the segments before this one, if it impairs a session.
    pub(crate) fn beyond(self, before: LossShare) -> Option<OwnLoss> {
        let own = self.share() - before.share();
        let ppm = (own.max(0.0) * 1e6) as u32;
        let error = (self.variance() + before.variance()).sqrt().max(f64::EPSILON);
        let certainty = certainty((own - EVERYDAY) / error);
        let impairs = self.of >= PACKETS_MIN && ppm >= IMPAIRS_PPM && certainty >= CERTAIN;
        impairs.then_some(OwnLoss { ppm, certainty })
    }
}

/// The probability of a normal deviate below this one, to 1 %, by the logistic distribution.
pub(crate) fn certainty(deviate: f64) -> f64 {
    1.0 / (1.0 + (-1.702 * deviate).exp())
}

pub(crate) fn per_cent(share: f64) -> u8 {
    (share * 100.0) as u8
}
