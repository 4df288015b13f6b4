//! Time of SRTP for a packet of 200 bytes, by profile, without sockets.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use evenkeel_media::rtp;
use evenkeel_media::srtp::{OVERHEAD_MAX, SrtpKey, SrtpProfile, SrtpReceiver, SrtpSender};

/// Length of a packet before protection.
const PACKET: usize = 200;

/// Packets of a timing; they fit the nearest cache.
const BATCH: u16 = 100;

/// Timings, of which the median counts.
const TIMINGS: usize = 3_001;

/// Nanoseconds by name of the row, such as `srtp.AEAD_AES_128_GCM.protect`.
///
/// # Errors
/// A packet was refused.
pub(crate) fn measure() -> Result<BTreeMap<String, f64>, String> {
    let mut rows = BTreeMap::new();
    for profile in SrtpProfile::ALL {
        let [protect, unprotect] = once(profile).map_err(|error| error.to_string())?;
        println!("{}: {protect:.0} ns to protect, {unprotect:.0} to unprotect", profile.name());
        rows.insert(format!("srtp.{}.protect", profile.name()), protect);
        rows.insert(format!("srtp.{}.unprotect", profile.name()), unprotect);
    }
    Ok(rows)
}

fn once(profile: SrtpProfile) -> Result<[f64; 2], Box<dyn std::error::Error>> {
    let (key, salt) = (&[1; 32][..profile.key_len()], &[2; 14][..profile.salt_len()]);
    let key = SrtpKey::new(profile, key, salt)?;
    let (mut sender, mut receiver) = (SrtpSender::new(&key), SrtpReceiver::new(&key));
    sender.lease(1, u64::MAX, u64::MAX)?;
    let protected_len = PACKET + profile.rtp_overhead();
    let mut batch = vec![[0; PACKET + OVERHEAD_MAX]; usize::from(BATCH)];
    let mut sequence = 0_u16;
    let (mut protect, mut unprotect) = (Vec::new(), Vec::new());
    for _ in 0..TIMINGS {
        for buffer in &mut batch {
            buffer[..PACKET].copy_from_slice(&packet(sequence));
            sequence = sequence.wrapping_add(1);
        }
        let began = Instant::now();
        for buffer in &mut batch {
            sender.protect_rtp(black_box(buffer), PACKET)?;
        }
        protect.push(began.elapsed());
        let began = Instant::now();
        for buffer in &mut batch {
            receiver.unprotect_rtp(black_box(&mut buffer[..protected_len]))?;
        }
        unprotect.push(began.elapsed());
    }
    Ok([per_packet(protect), per_packet(unprotect)])
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
