//! Puts the gateway together: sockets, threads, and who speaks with whom.

mod nodes;
mod policies;
mod sockets;
mod vital;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{Gateway, PolicyName};
use evenkeel_dataplane::flows::Flows;
use evenkeel_dataplane::quic;
use evenkeel_dataplane::worker::{self, Waker, Worker, WorkerStats};
use tokio::sync::{broadcast, mpsc};

use crate::control::{
    self, Drivers, EVENTS_MAX, Handle, Names, QuicListener, REQUESTS_MAX, Request, SessionRegistry,
    Told, WorkerLine,
};
use crate::policy::{Foundry, Recorder};
use crate::settings::Settings;
use nodes::{briefs, port_legs, posts, towards};
pub(crate) use nodes::{equip, has_webhooks, port_leg, wants_briefs};
use policies::{Coming, Firsts, policies};
pub(crate) use policies::{at_place, source, try_out};
use sockets::{advertised_quic, listeners, quic, rings_between};
pub use vital::Ended;
use vital::Vital;

/// How often it is looked whether all threads are there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    control: Vital,
    workers: Vec<Vital>,
    quic_thread: Option<quic::Thread>,
    coming: Coming,
    /// Where its policies are compiled.
    pub(crate) foundry: Foundry,
}

impl Running {
    /// Returns once one of its threads has ended: because it was told to, or because it failed. A gateway that lacks
    /// one is none; whoever runs it shuts it down then.
    ///
    /// # Errors
    /// A policy of the configuration that does not run. Its gateway is none either.
    pub async fn ends(&self) -> Result<(), Failure> {
        let is_whole = || {
            self.control.is_running()
                && self.workers.iter().all(Vital::is_running)
                && self.quic_thread.as_ref().is_none_or(quic::Thread::is_running)
        };
        while is_whole() {
            if let Some(failure) = self.coming.failure() {
                return Err(failure);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// What happens, from the beginning on: how the first revisions came in is part of it. The next time it is asked,
    /// what happens from then on.
    pub fn events(&mut self) -> broadcast::Receiver<Arc<Told>> {
        std::mem::replace(&mut self.told, self.handle.events())
    }

    /// Ends it at once.
    fn abandon(self) {
        let done = tokio::sync::oneshot::channel().0;
        // Nobody else has asked it for anything yet, so there is room for the word.
        let _ = self.handle.requests.try_send(Request::Shutdown { within: Duration::ZERO, done });
        // How it ends does not matter any more.
        let _ = self.join();
    }

    /// Waits for the end of a gateway that was told to shut down, and ends its threads.
    ///
    /// # Errors
    /// The first of its threads that had ended by itself.
    pub fn join(self) -> Result<(), Ended> {
        // When control has ended, however it did, it has told the workers to.
        let control = self.control.join();
        let workers = self.workers.into_iter().map(Vital::join).fold(Ok(()), Result::and);
        let endpoint = match self.quic_thread {
            Some(quic) if !quic.is_running() => {
                Err(Ended { thread: "evenkeel-quic".into(), reason: "it panicked".into() })
            }
            Some(_) | None => Ok(()),
        };
        control.and(workers).and(endpoint)
    }
}

/// Starts a gateway, and returns once its policies are in force.
///
/// # Errors
/// Why it did not start; nothing is left running then.
pub fn start(settings: &Arc<Settings>) -> Result<Running, Failure> {
    let running = begin(settings)?;
    match running.coming.wait() {
        Ok(()) => Ok(running),
        Err(failure) => {
            running.abandon();
            Err(failure)
        }
    }
}

/// Starts a gateway. It forwards as soon as this returns, while its policies are still compiled: who comes by a first
/// packet is served natively, as ever; offers wait for the policies. [`Running::ends`] tells of one that does not run.
///
/// # Errors
/// Why it did not start; nothing is left running then.
pub fn begin(settings: &Arc<Settings>) -> Result<Running, Failure> {
    let (running, firsts) = assemble(settings, settings.core())?;
    match Coming::begin(firsts, running.handle.requests.clone()) {
        Ok(coming) => Ok(Running { coming, ..running }),
        Err(error) => {
            running.abandon();
            Err(error.into())
        }
    }
}

/// A gateway that forwards, and the first revisions of its policies, for which it waits.
fn assemble(
    settings: &Arc<Settings>,
    core: evenkeel_core::Settings,
) -> Result<(Running, Firsts), Failure> {
    let workers_count = settings.limits.workers.map_or_else(default_workers, usize::from);
    let flows = Arc::new(Flows::new(settings.limits.sessions as usize * KEYS_PER_SESSION));
    let (reports_in, reports) = mpsc::channel(REPORTS_MAX);
    let (words_in, words) = mpsc::channel(WORDS_MAX);
    let (requests_in, requests) = mpsc::channel(REQUESTS_MAX);
    let (events, told) = broadcast::channel(EVENTS_MAX);

    // What may be wrong with the configuration shows before a thread or a socket is there.
    let equip = |node| equip(settings, node, workers_count);
    let mut equipment = settings.nodes.iter().map(equip).collect::<Result<Vec<_>, _>>()?;
    let recorder =
        Recorder::start(&settings.gateway.region, SystemTime::now(), events.subscribe())?;
    let (policies, firsts) = policies(settings, &core, words_in, recorder)?;
    let (udp, mut listeners) = listeners(settings, workers_count)?;
    let started = Instant::now();
    let (names, nodes_max) = (Arc::new(Names::of(&core)), core.limits.nodes_max);
    let mut gateway = Gateway::new(core, started);
    gateway.handle_seed(fastrand::u64(..));
    let board = gateway.board();
    let (quic_thread, mut quic_rings) = quic(settings, &flows, workers_count)?;
    let mut rings = rings_between(workers_count)?;
    let (mut lines, mut workers) = (Vec::new(), Vec::new());
    for number in 0..workers_count {
        let (commands_in, commands) = crossbeam_channel::bounded(worker::COMMANDS_MAX);
        let waker = Arc::new(Waker::new()?);
        let stats = Arc::new(WorkerStats::new(started, nodes_max));
        let (from_quic, to_quic) =
            quic_rings.pop().map_or((None, None), |(from, to)| (Some(from), Some(to)));
        let (from_workers, to_workers) = rings.remove(0);
        workers.push(Worker::new(
            worker::Parts {
                number: number as u16,
                listeners: listeners.remove(0),
                trunks: equipment.iter_mut().map(|node| node.trunks.pop()).collect(),
                from_quic,
                to_quic,
                from_workers,
                to_workers,
                commands,
                waker: Arc::clone(&waker),
                reports: reports_in.clone(),
                stats: Arc::clone(&stats),
                flows: Arc::clone(&flows),
                board: Arc::clone(&board),
                gather: settings.limits.batch_delay,
                misses_per_prefix: settings.limits.misses_per_prefix,
                early_limits: worker::EarlyLimits {
                    packets: usize::from(settings.limits.early_packets),
                    wait: settings.limits.early_for,
                },
            },
            started,
        )?);
        lines.push(WorkerLine { commands: commands_in, waker, stats });
    }

    let registry = SessionRegistry::new(
        udp.clone(),
        quic_thread.as_ref().map(|quic| QuicListener {
            address: advertised_quic(settings, quic.address),
            certificate_sha256: quic.certificate_sha256,
        }),
        Arc::clone(&flows),
        port_legs(settings),
        briefs(settings),
        workers_count,
    );
    let foundry = policies.foundry().clone();
    let parts = control::Parts {
        gateway,
        workers: lines,
        registry,
        drivers: Drivers::new(towards),
        equipment,
        posts: posts(settings),
        policies,
        requests,
        reports,
        words,
        events: events.clone(),
        names: Arc::clone(&names),
        quic_counters: quic_thread.as_ref().map(|quic| Arc::clone(&quic.counters)),
        started,
        awaits_policies: !firsts.is_empty(),
        settings: Arc::clone(settings),
    };
    let (control, workers) = launch(workers, parts)?;
    let running = Running {
        handle: Handle { requests: requests_in, events, names },
        udp: udp.iter().map(|listener| listener.address).collect(),
        quic: quic_thread.as_ref().map(|quic| advertised_quic(settings, quic.address)),
        told,
        control,
        workers,
        quic_thread,
        coming: Coming::default(),
        foundry,
    };
    Ok((running, firsts))
}

/// Everything is there and runs from now on: control, and the workers by number.
///
/// # Errors
/// Where the system gives no thread; those that ran have ended.
fn launch(workers: Vec<Worker>, parts: control::Parts) -> std::io::Result<(Vital, Vec<Vital>)> {
    let mut threads = Vec::new();
    let spawned = (0..)
        .zip(workers)
        .try_for_each(|(number, worker): (usize, _)| {
            threads.push(Vital::spawn(&format!("packets-{number}"), move || worker.run())?);
            Ok(())
        })
        // Where it does not come to this, what control is made of is gone, and the workers were told to stop.
        .and_then(move |()| Vital::spawn("control", move || control::run(parts)));
    match spawned {
        Ok(control) => Ok((control, threads)),
        Err(error) => {
            threads.into_iter().for_each(|thread| _ = thread.join());
            Err(error)
        }
    }
}

/// One core is left to control and to the QUIC endpoint.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

#[cfg(test)]
mod tests;
