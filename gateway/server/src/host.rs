//! Turns the resources of the host and of this process into metrics.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_process::descriptors;
use evenkeel_process::host::{HostReading, ProcessorTime};
use evenkeel_telemetry::Instruments;
use evenkeel_telemetry::registry::{Attribute, Count, Level};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::counters::TotalCounter;

/// Time between two readings.
const READ_EVERY: Duration = Duration::from_secs(10);

/// Reads the host apart from other metrics, since a disk may hang.
pub(super) struct HostFollower {
    instruments: Arc<Instruments>,
    /// Compiled plugins, on the disk whose free space is reported.
    cache: Option<PathBuf>,
    totals: TotalCounter,
    processor: Option<ProcessorTime>,
}

impl HostFollower {
    pub(super) fn new(instruments: Arc<Instruments>, cache: Option<PathBuf>) -> HostFollower {
        let totals = TotalCounter::new(Arc::clone(&instruments));
        HostFollower { instruments, cache, totals, processor: None }
    }

    /// Reads until it is dropped.
    pub(super) async fn follow(&mut self) -> Infallible {
        loop {
            let cache = self.cache.clone();
            let read = move || (HostReading::now(cache.as_deref()), descriptors::left());
            match spawn_blocking(read).await {
                Ok((host, descriptors_left)) => self.set(host, descriptors_left),
                Err(error) => tracing::warn!(%error, "host was not read"),
            }
            sleep(READ_EVERY).await;
        }
    }

    fn set(&mut self, host: HostReading, descriptors_left: Option<u64>) {
        if let Some(now) = host.processor
            && let Some(before) = self.processor.replace(now)
        {
            let ProcessorTime { used, stolen, idle } = now.since(before);
            let share = stolen as f64 / (used + idle).max(1) as f64;
            self.instruments.level(Level::HostSteal, share, &[]);
        }
        for (level, value) in [
            (Level::HostMemory, host.memory_available),
            (Level::HostDisk, host.disk_free),
            (Level::HostPorts, host.ports_left),
            (Level::ProcessDescriptors, descriptors_left),
        ] {
            if let Some(value) = value {
                self.instruments.level(level, value as f64, &[]);
            }
        }
        for (interface, drops) in host.interface_drops {
            self.totals.add(Count::HostDrops, &[(Attribute::Interface, &interface)], drops);
        }
    }
}

#[cfg(test)]
mod tests;
