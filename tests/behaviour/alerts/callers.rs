//! Clients that talk until they are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::Phone;

/// The packet interval of audio.
const PACE: Duration = Duration::from_millis(20);

/// Packets of voice between two receiver reports.
const REPORTS_EACH: u64 = 50;

/// Reports the loss of the voice that came since the last report.
fn report(phone: &mut Phone) {
    let heard = std::mem::take(&mut phone.heard);
    if let [first, .., last] = &heard[..] {
        let expected = last.header.sequence.wrapping_sub(first.header.sequence) + 1;
        let lost = usize::from(expected).saturating_sub(heard.len());
        phone.report_loss(std::slice::from_ref(last), (lost * 256 / usize::from(expected)) as u8);
    }
}

/// All clients, on one thread.
pub(super) struct Callers {
    /// The loss on the uplink of the client with this number.
    lost_percent: Vec<Arc<AtomicU32>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Callers {
    /// Has these phones, whose sessions are open, talk.
    pub(super) fn start(mut phones: Vec<Phone>) -> Callers {
        let lost_percent: Vec<Arc<AtomicU32>> = phones.iter().map(|_| Arc::default()).collect();
        let ending = Arc::<AtomicBool>::default();
        let (lost, ends) = (lost_percent.clone(), Arc::clone(&ending));
        let thread = std::thread::spawn(move || {
            let mut due = Instant::now();
            while !ends.load(Ordering::Relaxed) {
                let is_due = Instant::now() >= due;
                due += if is_due { PACE } else { Duration::ZERO };
                for (phone, lost) in phones.iter_mut().zip(&lost) {
                    // Spreads the losses evenly.
                    let is_lost =
                        phone.voice.sent * 37 % 100 < u64::from(lost.load(Ordering::Relaxed));
                    match is_due {
                        true if is_lost => drop(phone.voice.packet(phone.number)),
                        true => {
                            phone.send_media();
                            if phone.voice.sent.is_multiple_of(REPORTS_EACH) {
                                report(phone);
                            }
                        }
                        false => phone.listen(),
                    }
                }
            }
        });
        Callers { lost_percent, ending, thread: Some(thread) }
    }

    pub(super) fn lose(&self, caller: usize, percent: u32) {
        self.lost_percent[caller].store(percent, Ordering::Relaxed);
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
