//! Control's ends of the packet workers' channels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_dataplane::worker::{TrunkSocket, TrunkState, WorkerCommand, WorkerStats};
use evenkeel_dataplane::{Waker, quic};
use evenkeel_model::NodeId;

/// Time for the workers to finish a pass and to copy their sessions.
pub(crate) const WORKERS_WITHIN: Duration = Duration::from_millis(500);

/// Control's handle of a worker. The worker stops when the handle is dropped.
pub struct WorkerLine {
    /// Commands, which the worker reads with its next pass.
    pub commands: crossbeam_channel::Sender<WorkerCommand>,
    /// Wakes the worker if it waits for packets.
    pub waker: Arc<Waker>,
    /// The worker's counters and stamps.
    pub stats: Arc<WorkerStats>,
}

impl Drop for WorkerLine {
    fn drop(&mut self) {
        // Fails only for a worker that has ended.
        let _ = self.commands.send(WorkerCommand::Stop);
        self.waker.wake();
    }
}

/// Control's ends of all workers' channels, and the counters of other threads of packets.
pub(crate) struct WorkerLines {
    lines: Vec<WorkerLine>,
    /// Counts of the thread of handshakes.
    handshakes: Arc<WorkerStats>,
    quic_counters: Option<Arc<quic::Counters>>,
    to_wake: BTreeSet<u16>,
}

impl WorkerLines {
    pub(crate) fn new(
        lines: Vec<WorkerLine>,
        handshakes: Arc<WorkerStats>,
        quic_counters: Option<Arc<quic::Counters>>,
    ) -> WorkerLines {
        WorkerLines { lines, handshakes, quic_counters, to_wake: BTreeSet::new() }
    }

    /// The number of packet workers.
    pub(crate) fn count(&self) -> usize {
        self.lines.len()
    }

    /// The counters and stamps of the packet workers, by number.
    pub(crate) fn stats(&self) -> impl Iterator<Item = &WorkerStats> {
        self.lines.iter().map(|line| &*line.stats)
    }

    /// The sum of a counter over all threads of packets.
    pub(crate) fn sum(&self, counter: impl Fn(&WorkerStats) -> u64) -> u64 {
        self.stats().chain([&*self.handshakes]).map(counter).sum()
    }

    /// Counters of the QUIC endpoint, by name.
    pub(crate) fn quic_counts(&self) -> BTreeMap<&'static str, u64> {
        self.quic_counters.iter().flat_map(|counters| counters.read()).collect()
    }

    /// Wakes the workers that got commands. Returns whether there are such workers.
    pub(crate) fn wake_workers(&mut self) -> bool {
        let commanded = std::mem::take(&mut self.to_wake);
        commanded.iter().for_each(|worker| self.lines[usize::from(*worker)].waker.wake());
        !commanded.is_empty()
    }

    pub(crate) fn command(&mut self, worker: u16, command: WorkerCommand) {
        // Fails only for a worker that has ended, while the process is ending.
        let _ = self.lines[usize::from(worker)].commands.send(command);
        self.to_wake.insert(worker);
    }

    pub(crate) fn command_all(&mut self, command: impl Fn() -> WorkerCommand) {
        for worker in 0..self.lines.len() as u16 {
            self.command(worker, command());
        }
    }

    /// Gives the workers their trunks to a node, by number.
    pub(crate) fn add_trunks(&mut self, node: NodeId, trunks: Vec<TrunkSocket>) {
        for (worker, trunk) in (0..).zip(trunks) {
            self.command(worker, WorkerCommand::AddTrunk { node, trunk });
        }
    }

    /// Sends a command to all workers and waits for their answers. The error is the number of a worker without one.
    pub(crate) fn ask_workers<T>(
        &mut self,
        command: impl Fn(crossbeam_channel::Sender<T>) -> WorkerCommand,
    ) -> Result<Vec<T>, usize> {
        let mut waiting = Vec::new();
        for worker in 0..self.lines.len() as u16 {
            let (done, answer) = crossbeam_channel::bounded(1);
            self.command(worker, command(done));
            waiting.push(answer);
        }
        self.wake_workers();
        let until = Instant::now() + WORKERS_WITHIN;
        let answers = waiting.iter().enumerate();
        answers.map(|(number, answer)| answer.recv_deadline(until).map_err(|_| number)).collect()
    }

    /// Continues the trunks of another process, whose numbers of nodes are the keys of `nodes`.
    pub(crate) fn continue_trunks(
        &mut self,
        trunks: Vec<Vec<TrunkState>>,
        nodes: &BTreeMap<NodeId, NodeId>,
    ) {
        for (worker, trunks) in (0..self.lines.len() as u16).zip(trunks) {
            for mut trunk in trunks {
                if let Some(&node) = nodes.get(&trunk.node) {
                    trunk.node = node;
                    self.command(worker, WorkerCommand::ContinueTrunk(Box::new(trunk)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
