//! The times at which the host of each gateway of a group has the group's address.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_lab::clock;
use evenkeel_lab::network::Host;
use nix::ifaddrs::getifaddrs;

const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A watch over the hosts of a group's gateways, until it is dropped.
pub(crate) struct Addresses {
    /// Of each host the changes, in order.
    changes: Vec<Arc<Mutex<Vec<Change>>>>,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Change {
    at_ns: u64,
    has_it: bool,
}

impl Addresses {
    /// Watches the address that is shared by gateways at these hosts.
    pub(crate) fn watch<'a>(
        gateways: impl IntoIterator<Item = &'a Host>,
        shared: Ipv4Addr,
    ) -> Result<Addresses, String> {
        let ending = Arc::<AtomicBool>::default();
        let (mut changes, mut threads) = (Vec::new(), Vec::new());
        for host in gateways {
            let own = Arc::<Mutex<Vec<Change>>>::default();
            changes.push(Arc::clone(&own));
            let ending = Arc::clone(&ending);
            // The thread stays in the namespace in which it starts.
            let _inside = host.enter()?;
            threads.push(std::thread::spawn(move || {
                while !ending.load(Ordering::Relaxed) {
                    look(shared, &mut own.lock().unwrap_or_else(PoisonError::into_inner));
                    std::thread::sleep(LOOK_EVERY);
                }
            }));
        }
        Ok(Addresses { changes, ending, threads })
    }

    /// Whether a host has the address now.
    pub(crate) fn has_it(&self, gateway: usize) -> bool {
        self.since(gateway).is_some()
    }

    /// The time from which a host has the address: nanoseconds since the Unix epoch.
    pub(crate) fn since(&self, gateway: usize) -> Option<u64> {
        self.of(gateway).last().filter(|change| change.has_it).map(|change| change.at_ns)
    }

    /// The time in this span for which two hosts had the address, nanoseconds.
    pub(crate) fn shared_ns(&self, from_ns: u64, until_ns: u64) -> u64 {
        match &self.changes[..] {
            [_, _] => shared_ns(&self.of(0), &self.of(1), from_ns, until_ns),
            _ => 0,
        }
    }

    fn of(&self, gateway: usize) -> Vec<Change> {
        self.changes[gateway].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

/// Adds a change, if there is one.
fn look(shared: Ipv4Addr, changes: &mut Vec<Change>) {
    let Ok(addresses) = getifaddrs() else { return };
    let is_it = |address: nix::ifaddrs::InterfaceAddress| {
        let address = address.address?;
        Some(address.as_sockaddr_in()?.ip() == shared)
    };
    let has_it = addresses.filter_map(is_it).any(|is_it| is_it);
    if changes.last().is_some_and(|last| last.has_it) != has_it {
        changes.push(Change { at_ns: clock::now_ns(), has_it });
    }
}

fn shared_ns(one: &[Change], other: &[Change], from_ns: u64, until_ns: u64) -> u64 {
    let spans = |changes: &[Change]| -> Vec<(u64, u64)> {
        let end = |next: usize| changes.get(next).map_or(until_ns, |change| change.at_ns);
        let held = changes.iter().enumerate().filter(|(_, change)| change.has_it);
        held.map(|(at, change)| (change.at_ns.max(from_ns), end(at + 1).min(until_ns))).collect()
    };
    let (one, other) = (spans(one), spans(other));
    let pairs = one.iter().flat_map(|one| other.iter().map(move |other| (one, other)));
    pairs.map(|(one, other)| one.1.min(other.1).saturating_sub(one.0.max(other.0))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(at: &[u64]) -> Vec<Change> {
        let changes = at.iter().zip([true, false].iter().cycle());
        changes.map(|(&at_ns, &has_it)| Change { at_ns, has_it }).collect()
    }

    #[test]
    fn shared_time_is_the_overlap_of_owners() {
        let shared = |one: &[u64], other: &[u64]| shared_ns(&changes(one), &changes(other), 0, 100);
        assert_eq!(shared(&[0], &[]), 0);
        assert_eq!(shared(&[0, 40], &[40]), 0);
        assert_eq!(shared(&[0, 40], &[30]), 10);
        assert_eq!(shared(&[0], &[30]), 70, "until the end of the span");
        assert_eq!(shared(&[0, 20, 60], &[10, 70]), 20);
        assert_eq!(shared_ns(&changes(&[0]), &changes(&[30]), 50, 80), 30);
    }
}
