//! Time of SRTP for a packet of 200 bytes, by profile, without sockets, beside libsrtp 2 by its C API.

mod libsrtp;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use evenkeel_media::rtp;
use evenkeel_media::srtp::{OVERHEAD_MAX, SrtpKey, SrtpProfile, SrtpReceiver, SrtpSender};

use crate::report::{SrtpCost, SrtpReport};
use crate::rounds::{median, spread};

pub(crate) use libsrtp::Libsrtp;

/// Length of a packet before protection.
const PACKET: usize = 200;

/// Packets of a timing; they fit the nearest cache.
const BATCH: u16 = 100;

/// Timings of a round, of which the median counts.
const TIMINGS: usize = 201;

/// Rounds of each library in turn.
const ROUNDS: usize = 15;

/// Nanoseconds per packet to protect, and to unprotect.
type Round = [f64; 2];

/// Costs by name of the row, such as `srtp.AEAD_AES_128_GCM.protect`, beside libsrtp unless it was skipped.
///
/// # Errors
/// A packet was refused, or the process of libsrtp ended.
pub(crate) fn measure(mut peer: Option<Libsrtp>) -> Result<SrtpReport, String> {
    let mut rows = BTreeMap::new();
    let title = format!("ns per packet of {PACKET} bytes, with spread");
    println!("{title:<40} {:>14} {:>14} {:>14}", "ours", "libsrtp", "ratio");
    if let Some(peer) = &peer {
        println!("libsrtp is {}", peer.version());
    }
    for profile in SrtpProfile::ALL {
        let mut own = Own::new(profile).map_err(|error| error.to_string())?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(own.round().map_err(|error| error.to_string())?);
            if let Some(peer) = &mut peer {
                theirs.push(peer.round(profile)?);
            }
        }
        for (place, name) in row_names(profile).into_iter().enumerate() {
            let cost = cost(place, &ours, &theirs);
            println!("{}", line(&name, &cost));
            rows.insert(name, cost);
        }
    }
    Ok(SrtpReport { libsrtp: peer.map(|peer| peer.version().to_owned()), rows })
}

/// The rows of a profile, in the order of a [`Round`].
pub(crate) fn row_names(profile: SrtpProfile) -> [String; 2] {
    ["protect", "unprotect"].map(|call| format!("srtp.{}.{call}", profile.name()))
}

/// The cost of the call at this place of a round. Ratios are those of neighbouring rounds.
fn cost(place: usize, ours: &[Round], theirs: &[Round]) -> SrtpCost {
    let of = |rounds: &[Round]| rounds.iter().map(|round| round[place]).collect::<Vec<_>>();
    let (ours, theirs) = (of(ours), of(theirs));
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    let is_compared = !ratios.is_empty();
    SrtpCost {
        ours_ns: median(ours.iter().copied()),
        ours_spread: spread(ours),
        libsrtp_ns: is_compared.then(|| median(theirs.iter().copied())),
        libsrtp_spread: is_compared.then(|| spread(theirs)),
        ratio: is_compared.then(|| median(ratios.iter().copied())),
        ratio_spread: is_compared.then(|| spread(ratios)),
    }
}

fn line(name: &str, cost: &SrtpCost) -> String {
    let spread = |share: f64| format!("{:>3.0}%", share * 100.0);
    let mut line = format!("{name:<40} {:>9.0} {}", cost.ours_ns, spread(cost.ours_spread));
    let theirs = cost.libsrtp_ns.zip(cost.libsrtp_spread);
    let ratio = cost.ratio.zip(cost.ratio_spread);
    if let Some(((ns, ns_spread), (ratio, ratio_spread))) = theirs.zip(ratio) {
        let (ns_spread, ratio_spread) = (spread(ns_spread), spread(ratio_spread));
        line += &format!(" {ns:>9.0} {ns_spread} {ratio:>9.2} {ratio_spread}");
    }
    line
}

/// A sender and a receiver of the gateway's library.
struct Own {
    sender: SrtpSender,
    receiver: SrtpReceiver,
    batch: Vec<[u8; PACKET + OVERHEAD_MAX]>,
    protected_len: usize,
    sequence: u16,
}

impl Own {
    fn new(profile: SrtpProfile) -> Result<Own, Box<dyn std::error::Error>> {
        let (key, salt) = (&[1; 32][..profile.key_len()], &[2; 14][..profile.salt_len()]);
        let key = SrtpKey::new(profile, key, salt)?;
        let (mut sender, receiver) = (SrtpSender::new(&key), SrtpReceiver::new(&key));
        sender.lease(1, u64::MAX, u64::MAX)?;
        let batch = vec![[0; PACKET + OVERHEAD_MAX]; usize::from(BATCH)];
        let protected_len = PACKET + profile.rtp_overhead();
        Ok(Own { sender, receiver, batch, protected_len, sequence: 0 })
    }

    fn round(&mut self) -> Result<Round, Box<dyn std::error::Error>> {
        let Own { sender, receiver, batch, protected_len, sequence } = self;
        let (mut protect, mut unprotect) = (Vec::new(), Vec::new());
        for _ in 0..TIMINGS {
            for buffer in &mut *batch {
                buffer[..PACKET].copy_from_slice(&packet(*sequence));
                *sequence = sequence.wrapping_add(1);
            }
            let began = Instant::now();
            for buffer in &mut *batch {
                sender.protect_rtp(black_box(buffer), PACKET)?;
            }
            protect.push(began.elapsed());
            let began = Instant::now();
            for buffer in &mut *batch {
                receiver.unprotect_rtp(black_box(&mut buffer[..*protected_len]))?;
            }
            unprotect.push(began.elapsed());
        }
        Ok([per_packet(protect), per_packet(unprotect)])
    }
}

fn packet(sequence: u16) -> Vec<u8> {
    let fields =
        rtp::Fields { payload_type: 111, marker: false, sequence, timestamp: 960, ssrc: 1 };
    let mut packet = Vec::new();
    rtp::write(&fields, &[0x5a; PACKET - rtp::HEADER_LEN], &mut packet);
    packet
}

/// The median of the timings of a batch, in nanoseconds per packet.
fn per_packet(mut timings: Vec<Duration>) -> f64 {
    timings.sort();
    timings[timings.len() / 2].as_nanos() as f64 / f64::from(BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_that_of_neighbouring_rounds() {
        let (ours, theirs) = ([[1.0, 9.0], [4.0, 9.0], [3.0, 9.0]], [[2.0, 9.0]; 3]);
        let compared = cost(0, &ours, &theirs);
        assert_eq!((compared.ours_ns, compared.libsrtp_ns), (3.0, Some(2.0)));
        assert_eq!((compared.ratio, compared.ratio_spread), (Some(1.5), Some(1.0)));
        let alone = cost(1, &ours, &[]);
        assert_eq!((alone.ours_ns, alone.libsrtp_ns, alone.ratio), (9.0, None, None));
    }
}
