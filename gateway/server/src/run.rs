//! Puts the gateway together: sockets, threads, and who speaks with whom.

mod nodes;
mod policies;
mod sockets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{Gateway, PolicyName};
use tokio::sync::{broadcast, mpsc};

use crate::control::{
    self, Drivers, EVENTS_MAX, Handle, Homes, QuicListener, REQUESTS_MAX, Told, WorkerLine,
};
use crate::flows::Flows;
use crate::quic;
use crate::settings::Settings;
use crate::worker::{self, Bell, Stamps, Worker};
use nodes::{drivers, port_legs, probes, trunks};
use policies::policies;
pub(crate) use policies::{changed_bindings, differs_beyond_policies, source, try_binding};
use sockets::{advertised_quic, listeners, quic, rings_between};

/// Reports to control that may wait; what does not fit is told again or counts for little.
const REPORTS_MAX: usize = 16_384;

/// Answers of policies that may wait.
const WORDS_MAX: usize = 1_024;

/// Keys a session may have in the flow table: RTP, RTCP, a user fragment, addresses that passed a check.
const KEYS_PER_SESSION: usize = 8;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A listener's address cannot be used.
    #[error(
        "cannot listen on {address}: {error}; is another gateway running, or the address not of this machine?"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The QUIC endpoint did not start.
    #[error(transparent)]
    Quic(#[from] quic::Failure),
    /// A node cannot be reached from here at all.
    #[error("node {node} at {address} cannot be reached from this machine: {error}")]
    Node {
        /// Its name.
        node: Box<str>,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// A node's secret is too short.
    #[error("the secret of node {node} is too short: at least 16 bytes are needed")]
    Secret {
        /// Its name.
        node: Box<str>,
    },
    /// A policy of the configuration does not run.
    #[error("policy {policy}: {reason}")]
    Policy {
        /// The policy.
        policy: PolicyName,
        /// Why.
        reason: Box<str>,
    },
    /// The system gave no thread or no descriptor.
    #[error("the system gave no thread or descriptor: {0}")]
    System(#[from] std::io::Error),
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Running {
    /// Speaks with its control.
    pub handle: Handle,
    /// Where UDP clients reach it, listener by listener.
    pub udp: Vec<SocketAddr>,
    /// Where QUIC clients reach it.
    pub quic: Option<SocketAddr>,
    told: broadcast::Receiver<Arc<Told>>,
    control: Option<std::thread::JoinHandle<()>>,
    workers: Vec<std::thread::JoinHandle<()>>,
    quic_thread: Option<quic::Thread>,
}

impl Running {
    /// What happens, from the beginning on: how the first revisions came in is part of it. The next time it is asked,
    /// what happens from then on.
    pub fn events(&mut self) -> broadcast::Receiver<Arc<Told>> {
        std::mem::replace(&mut self.told, self.handle.events())
    }

    /// Waits for the end of a gateway that was told to shut down, and ends its threads.
    pub fn join(mut self) {
        self.control.take().map(std::thread::JoinHandle::join);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        if let Some(quic) = self.quic_thread.take() {
            quic.shut_down();
        }
    }
}

/// Starts a gateway. It forwards as soon as this returns.
///
/// # Errors
/// Why it did not start; nothing is left running then.
pub fn start(settings: &Arc<Settings>) -> Result<Running, Failure> {
    let core = settings.core();
    let workers_count = settings.limits.workers.map_or_else(default_workers, usize::from);
    let flows = Arc::new(Flows::new(settings.limits.sessions as usize * KEYS_PER_SESSION));
    let (reports_in, reports) = mpsc::channel(REPORTS_MAX);
    let (words_in, words) = mpsc::channel(WORDS_MAX);
    let (requests_in, requests) = mpsc::channel(REQUESTS_MAX);
    let (events, told) = broadcast::channel(EVENTS_MAX);

    // What may be wrong with the configuration shows before a thread or a socket is there.
    let policies = policies(settings, &core, words_in)?;
    let (drivers, probes) = (Drivers::new(drivers(settings)?), probes(settings)?);
    let (udp, mut listeners) = listeners(settings, workers_count)?;
    let started = Instant::now();
    let gateway = Gateway::new(core, started);
    let board = gateway.board();
    let (quic_thread, mut quic_rings) = quic(settings, &flows, workers_count)?;
    let mut rings = rings_between(workers_count)?;
    let mut lines = Vec::new();
    let mut threads = Vec::new();
    for number in 0..workers_count {
        let (commands_in, commands) = crossbeam_channel::bounded(worker::COMMANDS_MAX);
        let bell = Arc::new(Bell::new()?);
        let stamps = Arc::new(Stamps::new(started, settings.nodes.len()));
        let (from_quic, to_quic) =
            quic_rings.pop().map_or((None, None), |(from, to)| (Some(from), Some(to)));
        let (from_workers, to_workers) = rings.remove(0);
        let worker = Worker::new(
            worker::Parts {
                number: number as u16,
                listeners: listeners.remove(0),
                trunks: trunks(settings)?,
                from_quic,
                to_quic,
                from_workers,
                to_workers,
                commands,
                bell: Arc::clone(&bell),
                reports: reports_in.clone(),
                stamps: Arc::clone(&stamps),
                flows: Arc::clone(&flows),
                board: Arc::clone(&board),
                misses_per_prefix: settings.limits.misses_per_prefix,
                patience: worker::Patience {
                    packets: usize::from(settings.limits.early_packets),
                    wait: settings.limits.early_for,
                },
            },
            started,
        )?;
        let thread =
            std::thread::Builder::new().name(format!("packets-{number}")).spawn(move || {
                if let Err(error) = worker.run() {
                    tracing::error!(%error, number, "a packet worker ended");
                }
            })?;
        threads.push(thread);
        lines.push(WorkerLine { commands: commands_in, bell, stamps });
    }

    let homes = Homes::new(
        udp.clone(),
        quic_thread.as_ref().map(|quic| QuicListener {
            address: advertised_quic(settings, quic.address),
            certificate_sha256: quic.certificate_sha256,
        }),
        Arc::clone(&flows),
        port_legs(settings),
        workers_count,
    );
    let parts = control::Parts {
        gateway,
        workers: lines,
        homes,
        drivers,
        probes,
        policies,
        requests,
        reports,
        words,
        events: events.clone(),
        quic_counters: quic_thread.as_ref().map(|quic| Arc::clone(&quic.counters)),
        started,
        settings: Arc::clone(settings),
    };
    let control = std::thread::Builder::new().name("control".into()).spawn(move || {
        if let Err(error) = control::run(parts) {
            tracing::error!(%error, "control ended");
        }
    })?;
    Ok(Running {
        handle: Handle { requests: requests_in, events },
        udp: udp.iter().map(|listener| listener.address).collect(),
        quic: quic_thread.as_ref().map(|quic| advertised_quic(settings, quic.address)),
        told,
        control: Some(control),
        workers: threads,
        quic_thread,
    })
}

/// One core is left to control and to the QUIC endpoint.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}
