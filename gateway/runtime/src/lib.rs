//! Assembles the gateway: sockets, threads and the channels between them.

mod buffer;
mod certificates;
mod policies;
mod sockets;
mod threads;

use std::hash::RandomState;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use buffer::UpgradeBuffer;
use certificates::ClientCertificates;
use evenkeel_config::GatewayConfig;
use evenkeel_control::history::{HistoryWriter, LeftSessions};
use evenkeel_control::{
    CertificateChannels, ControlRequest, EventRecord, Handle, NamedSockets, NodeNames,
    OperationLog, QuicListener, SessionRegistry, SocketName, TraceRegistry, TraceShare, WorkerLine,
    needs_session_facts, port_legs, posts, source_of_ports,
};
use evenkeel_core::Gateway;
use evenkeel_dataplane::flows::Flows;
use evenkeel_dataplane::handshakes::{HandshakeParts, HandshakeWorker};
use evenkeel_dataplane::worker::{self, PacketWorker, WorkerStats};
use evenkeel_dataplane::{SendLease, Waker, quic};
use evenkeel_drivers::{DriverTable, Drivers, Fencing, group_number};
use evenkeel_kept::StoreThread;
use evenkeel_media::srtp::IndexGrant;
use evenkeel_model::SessionId;
use evenkeel_policies::{Foundry, PolicyRecorder, PolicyRecords, PolicyThreads};
use evenkeel_process::random::draw;
use evenkeel_process::scheduling;
use policies::{FirstPolicies, FirstRevisionQueue, start_policies};
pub use sockets::Sockets;
use sockets::{advertised_quic, is_self_made, quic, quic_address, rings_between};
use threads::GatewayThread;
pub use threads::{EndedThread, RunError};
use tokio::sync::{broadcast, mpsc};

/// Interval of the check that all threads run.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Queued reports to control; lost ones are repeated or unimportant.
const REPORTS_MAX: usize = 16_384;

/// Queued answers of policies.
const POLICY_REPORTS_MAX: usize = 1_024;

/// Flow-table keys per session: RTP, RTCP, a user fragment, verified addresses.
const KEYS_PER_SESSION: usize = 8;

/// A gateway's threads. Dropping it ends them.
#[derive(Debug)]
pub struct RunningGateway {
    /// Requests to control.
    pub handle: Handle,
    /// Addresses in the order of the listeners.
    pub udp: Vec<SocketAddr>,
    /// The QUIC listener's address, if there is one.
    pub quic: Option<SocketAddr>,
    /// The time until which workers and the QUIC endpoint may send.
    pub lease: Arc<SendLease>,
    /// The indices of SRTP that a standby allows.
    pub grant: Arc<IndexGrant>,
    /// The epoch in messages to nodes.
    pub fencing: Arc<Fencing>,
    /// Newer epochs because of which nodes refuse messages of this gateway.
    pub refused_epochs: mpsc::Receiver<u64>,
    /// Duplicates of the UDP listeners' sockets, for the process that replaces this one.
    duplicates: NamedSockets,
    told: broadcast::Receiver<Arc<EventRecord>>,
    control: GatewayThread,
    workers: Vec<GatewayThread>,
    quic_thread: Option<quic::QuicThread>,
    certificates: ClientCertificates,
    kept: StoreThread,
    first_policies: FirstPolicies,
    /// Compiles the gateway's policies.
    pub foundry: Foundry,
}

impl RunningGateway {
    /// Returns once one of its threads has ended, on request or by failure. The caller then shuts the gateway down.
    /// Fails if a policy of the configuration failed to load.
    pub async fn ends(&self) -> Result<(), RunError> {
        let is_whole = || {
            self.control.is_running()
                && self.workers.iter().all(GatewayThread::is_running)
                && self.quic_thread.as_ref().is_none_or(quic::QuicThread::is_running)
        };
        while is_whole() {
            if let Some(failure) = self.first_policies.failure() {
                return Err(failure);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Events from the beginning, including the first revisions. A later call returns only events from then on.
    pub fn events(&mut self) -> broadcast::Receiver<Arc<EventRecord>> {
        std::mem::replace(&mut self.told, self.handle.events())
    }

    /// The end of the certificate of the QUIC endpoint, if it has one.
    pub fn quic_certificate_ends(&self) -> Option<SystemTime> {
        self.quic_thread.as_ref()?.certificate_ends
    }

    /// Renews the certificates that browsers accept by their SHA-256, and replaces those that clients see by the owner's, at a standby. A
    /// caller begins it once.
    pub async fn follow_certificates(&self) -> std::convert::Infallible {
        self.certificates.follow().await
    }

    /// The channels by which the members of a group share the certificates that clients see.
    pub fn certificate_channels(&self) -> CertificateChannels {
        self.certificates.channels()
    }

    /// Duplicates of the listeners' sockets, and the next process's identity of the QUIC endpoint.
    pub fn duplicates(
        &self,
        settings: &GatewayConfig,
    ) -> std::io::Result<(NamedSockets, Option<quic::EndpointIdentity>)> {
        let duplicate = |(name, socket): &(SocketName, OwnedFd)| {
            Ok::<_, std::io::Error>((name.clone(), socket.try_clone()?))
        };
        let mut duplicates =
            self.duplicates.iter().map(duplicate).collect::<Result<Vec<_>, _>>()?;
        if let Some((thread, address)) = self.quic_thread.as_ref().zip(quic_address(settings)) {
            let socket = thread.try_clone_socket()?;
            duplicates.push((SocketName::Quic { address }, socket.into()));
        }
        let identity = self.quic_thread.as_ref().map(|thread| thread.identity.successor());
        Ok((duplicates, identity))
    }

    /// Duplicates of the sockets that packets wait in during an upgrade.
    pub async fn packet_sockets(&self) -> std::io::Result<NamedSockets> {
        let mut sockets = self.handle.trunks().await?;
        for (name, socket) in &self.duplicates {
            sockets.push((name.clone(), socket.try_clone()?));
        }
        Ok(sockets)
    }

    /// Reads from the QUIC socket, of a gateway that was begun suspended, or after [`pause_quic`](RunningGateway::pause_quic).
    /// `connections` are those of the processes before this one.
    pub fn resume_quic(&self, connections: Option<quic::HandedConnections>) {
        let Some(thread) = &self.quic_thread else { return };
        if let Some(connections) = connections {
            thread.adopt(connections);
        }
        thread.resumer().resume();
    }

    /// Reads no more from the QUIC socket. Returns what the next process needs to continue the connections, unless there is no QUIC
    /// listener.
    pub fn pause_quic(&self) -> Option<quic::HandedConnections> {
        self.quic_thread.as_ref()?.pause()
    }

    /// Keeps the QUIC connections for the process that has what [`pause_quic`](RunningGateway::pause_quic) returned.
    pub fn keep_quic(&self) {
        self.quic_thread.iter().for_each(quic::QuicThread::follow);
    }

    /// Takes the QUIC thread, if it keeps connections for another process.
    pub fn take_predecessor(&mut self) -> Option<quic::PredecessorThread> {
        self.quic_thread.take().and_then(quic::QuicThread::into_predecessor)
    }

    /// Resumes the QUIC thread; `None` without a QUIC listener.
    pub fn quic_resumer(&self) -> Option<quic::Resumer> {
        self.quic_thread.as_ref().map(quic::QuicThread::resumer)
    }

    /// Closes all QUIC connections, of a suspended gateway that another process continues.
    pub fn close_quic(&self) {
        self.quic_thread.iter().for_each(quic::QuicThread::close_connections);
    }

    /// Ends a suspended gateway. Its sessions continue at another process or at none.
    pub fn leave(mut self) -> Result<(), EndedThread> {
        self.close_quic();
        self.quic_thread = None;
        self.join()
    }

    fn abandon(self) {
        let done = tokio::sync::oneshot::channel().0;
        // No other request was sent yet, so the channel has room.
        let _ = self.handle.requests.try_send(ControlRequest::Shutdown(Duration::ZERO, done));
        // The result no longer matters.
        let _ = self.join();
    }

    /// Waits for a gateway that is shutting down, and ends its threads.
    /// The error names the first thread that had ended by itself.
    pub fn join(self) -> Result<(), EndedThread> {
        // Control makes the workers end when it ends, for any reason.
        let control = self.control.join();
        let workers = self.workers.into_iter().map(GatewayThread::join).fold(Ok(()), Result::and);
        let endpoint = match self.quic_thread {
            Some(quic) if !quic.is_running() => {
                Err(EndedThread { thread: "evenkeel-quic".into(), reason: "it panicked".into() })
            }
            Some(_) | None => Ok(()),
        };
        // Writes the last documents of control.
        drop(self.kept);
        control.and(workers).and(endpoint)
    }
}

/// Starts a gateway, and returns once its policies are active. `drivers` are those with which its settings were read. On an
/// error nothing is left running.
pub fn start(
    settings: &Arc<GatewayConfig>,
    drivers: DriverTable,
) -> Result<RunningGateway, RunError> {
    let running = begin(settings, drivers)?;
    match running.first_policies.wait() {
        Ok(()) => Ok(running),
        Err(failure) => {
            running.abandon();
            Err(failure)
        }
    }
}

/// Starts a gateway. It forwards as soon as this returns, while its policies are being compiled: sessions opened by a
/// first packet are served natively, offers wait for the policies. [`RunningGateway::ends`] reports a policy that fails.
/// On an error nothing is left running.
pub fn begin(
    settings: &Arc<GatewayConfig>,
    drivers: DriverTable,
) -> Result<RunningGateway, RunError> {
    let sockets = Sockets::open(settings)?;
    begin_with(settings, drivers, sockets, Reads::Now, PolicyRecords::default())
}

/// Starts a gateway, as [`begin`], with the sockets of its settings, and the policies of the process that it replaces.
pub fn begin_with(
    settings: &Arc<GatewayConfig>,
    drivers: DriverTable,
    sockets: Sockets,
    reads: Reads,
    inherited: PolicyRecords,
) -> Result<RunningGateway, RunError> {
    let core = settings.core();
    let (running, firsts) = assemble(settings, drivers, &core, sockets, reads, inherited)?;
    match FirstPolicies::begin(firsts, running.handle.requests.clone()) {
        Ok(first_policies) => Ok(RunningGateway { first_policies, ..running }),
        Err(error) => {
            running.abandon();
            Err(error.into())
        }
    }
}

/// The name of this gateway in records: that in the group, or of its host.
fn name(settings: &GatewayConfig) -> Box<str> {
    let group = settings.cluster.as_ref();
    group.map_or_else(|| evenkeel_process::host::name().into(), |group| (*group.name).into())
}

/// When a gateway begins to read packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reads {
    /// At the start.
    Now,
    /// Once it owns the addresses of its group.
    AsStandby,
    /// Once it has the sessions of the process that it replaces.
    AsSuccessor,
}

/// A gateway that forwards, and the first revisions of its policies, which it waits for.
fn assemble(
    settings: &Arc<GatewayConfig>,
    drivers: DriverTable,
    core: &evenkeel_model::CoreSettings,
    sockets: Sockets,
    reads: Reads,
    inherited: PolicyRecords,
) -> Result<(RunningGateway, FirstRevisionQueue), RunError> {
    let (workers_count, suspended) = (settings.workers(), reads != Reads::Now);
    let Sockets { mut equipment, udp, mut listeners, quic: quic_listener, duplicates } = sockets;
    let lease = Arc::new(SendLease::forever());
    let group = settings.cluster.as_ref().map_or(0, group_number);
    let (fencing, refused_epochs) = Fencing::new(group);
    let flows = Arc::new(Flows::new(settings.limits.sessions as usize * KEYS_PER_SESSION));
    let (reports_in, reports) = mpsc::channel(REPORTS_MAX);
    let (policy_reports_in, policy_reports) = mpsc::channel(POLICY_REPORTS_MAX);
    let traces = TraceRegistry::new(settings.admin.traceparent);
    let traces = Arc::new(match settings.telemetry.traces {
        Some(_) => traces.sending(TraceShare(settings.telemetry.sample_ratio)),
        None => traces,
    });
    let (handle, requests) = Handle::new(Arc::new(NodeNames::of(core)), Arc::clone(&traces));
    let told = handle.events();

    let recorder = PolicyRecorder::start(&settings.gateway.region, SystemTime::now())?;
    let started = Instant::now();
    let mut gateway = Gateway::new(core.clone(), started);
    let (unwritten, socket) = (handle.unwritten.clone(), &settings.admin.socket);
    let catalog = evenkeel_policies::catalog_of(core);
    let policies = PolicyThreads::new(catalog, &core.limits, policy_reports_in);
    let policies = policies.with_settings(settings).recorded_by(recorder);
    let kept = handle.kept.open(policies.foundry().folder(), socket, &unwritten)?;
    let policies = policies.keeping(&handle.kept, settings).map_err(RunError::Records)?;
    let mut policies = policies.inheriting(inherited);
    let firsts = start_policies(&mut policies, settings, &mut gateway)?;
    // The process that serves decides about revisions.
    if suspended {
        gateway.hold_rollouts();
    }
    // Replaced by the record of a process that this one continues.
    let first_session = SessionId::first_of_group(draw());
    gateway.resume_numbers(first_session);
    traces.set_group(first_session);
    let nodes_max = core.limits.nodes_max;
    gateway.handle_seed(fastrand::u64(..));
    let hash_keys = RandomState::new();
    let board = gateway.board();
    let grant = Arc::new(IndexGrant::new(workers_count, started));
    let folder = policies.foundry().folder();
    let certificates = ClientCertificates::open(folder, socket, is_self_made(settings), unwritten)?;
    let short_lived = certificates.webtransport.clone();
    let (quic_thread, mut quic_rings) = quic(
        quic_listener,
        short_lived.clone(),
        &flows,
        &handle.client_probes,
        workers_count,
        suspended,
        &lease,
    )?;
    let mut rings = rings_between(workers_count)?;
    let (to_handshakes, handshakes) = worker::handshake_channel();
    let (mut lines, mut workers) = (Vec::new(), Vec::new());
    let repair_memory = worker::RepairMemory::new((settings.limits.repair_memory as usize) << 20);
    for number in 0..workers_count {
        let (commands_in, commands) = crossbeam_channel::bounded(worker::COMMANDS_MAX);
        let waker = Arc::new(Waker::new()?);
        let stats = Arc::new(WorkerStats::new(started, nodes_max));
        let (from_quic, to_quic) =
            quic_rings.pop().map_or((None, None), |(from, to)| (Some(from), Some(to)));
        let (from_workers, to_workers) = rings.remove(0);
        workers.push(PacketWorker::new(
            worker::WorkerParts {
                number: number as u16,
                listeners: listeners.remove(0),
                trunks: equipment.iter_mut().map(|node| pop_front(&mut node.trunks)).collect(),
                from_quic,
                to_quic,
                to_handshakes: to_handshakes.clone(),
                from_workers,
                to_workers,
                commands,
                waker: Arc::clone(&waker),
                reports: reports_in.clone(),
                stats: Arc::clone(&stats),
                flows: Arc::clone(&flows),
                probes: Arc::clone(&handle.client_probes),
                board: Arc::clone(&board),
                gather: settings.limits.batch_delay,
                lease: Arc::clone(&lease),
                grant: Arc::clone(&grant),
                suspended,
                repair_memory: repair_memory.clone(),
                misses_per_prefix: settings.limits.misses_per_prefix,
                hash_keys: hash_keys.clone(),
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
            addresses: advertised_quic(settings, quic.address),
            certificate_sha256: quic.certificate_sha256,
            short_lived,
        }),
        Arc::clone(&flows),
        port_legs(settings),
        needs_session_facts(settings),
        workers_count,
        traces,
    )
    .with_certificate(certificates.dtls())
    .with_session_urls(Arc::clone(&handle.session_urls));
    let foundry = policies.foundry().clone();
    let folder = foundry.folder();
    let handshakes = HandshakeParts {
        certificate: certificates.dtls(),
        inputs: handshakes,
        workers: lines.iter().map(handshake_worker).collect(),
        reports: reports_in,
        stats: Arc::new(WorkerStats::new(started, 0)),
    };
    let handshake_stats = Arc::clone(&handshakes.stats);
    let left = match reads {
        Reads::Now => LeftSessions::Ended,
        Reads::AsStandby => LeftSessions::Elsewhere,
        Reads::AsSuccessor => LeftSessions::Continue,
    };
    let mut operations = OperationLog::of(&handle.kept);
    // Another process has the documents.
    if !suspended {
        operations.resume();
        policies.forget_others();
        handle.idempotency_keys.read_kept();
    }
    let history = HistoryWriter::start(&handle.kept, folder, socket, name(settings), left);
    let operations = operations.telling(handle.log_filter.clone());
    let parts = evenkeel_control::ControlParts {
        gateway,
        workers: lines,
        registry,
        drivers: Drivers::new(drivers, source_of_ports(settings), Arc::clone(&fencing)),
        fencing: Arc::clone(&fencing),
        lease: Arc::clone(&lease),
        grant: Arc::clone(&grant),
        equipment,
        posts: posts(settings),
        policies,
        requests,
        reports,
        policy_reports,
        events: handle.events.clone(),
        history,
        operations,
        kept: handle.kept.clone(),
        names: handle.names(),
        idempotency_keys: Arc::clone(&handle.idempotency_keys),
        is_replaced: Arc::clone(&handle.is_replaced),
        handshakes: handshake_stats,
        quic_counters: quic_thread.as_ref().map(|quic| Arc::clone(&quic.counters)),
        started,
        awaits_policies: !firsts.is_empty(),
        settings: Arc::clone(settings),
    };
    // The thread of handshakes ends after the last worker.
    drop(to_handshakes);
    let (control, workers) = launch(workers, handshakes, parts)?;
    let running = RunningGateway {
        handle,
        udp: udp.iter().map(|listener| listener.addresses.default.rtp).collect(),
        quic: quic_thread.as_ref().map(|quic| advertised_quic(settings, quic.address).default.rtp),
        lease,
        grant,
        fencing,
        refused_epochs,
        duplicates,
        told,
        control,
        workers,
        quic_thread,
        certificates,
        kept,
        first_policies: FirstPolicies::default(),
        foundry,
    };
    Ok((running, firsts))
}

fn handshake_worker(line: &WorkerLine) -> HandshakeWorker {
    HandshakeWorker { commands: line.commands.clone(), waker: Arc::clone(&line.waker) }
}

fn pop_front<T>(list: &mut Vec<T>) -> Option<T> {
    (!list.is_empty()).then(|| list.remove(0))
}

/// Starts control and the workers. On an error those that had started have ended.
fn launch(
    workers: Vec<PacketWorker>,
    handshakes: HandshakeParts,
    parts: evenkeel_control::ControlParts,
) -> std::io::Result<(GatewayThread, Vec<GatewayThread>)> {
    let mut threads = Vec::new();
    let spawned = (0..)
        .zip(workers)
        .try_for_each(|(number, worker): (usize, _)| {
            threads.push(GatewayThread::spawn(&format!("packets-{number}"), move || worker.run())?);
            Ok(())
        })
        // The thread ends after the workers.
        .and_then(|()| {
            let run = move || {
                // Media does not wait for handshakes.
                scheduling::run_after_others();
                handshakes.run();
                Ok(())
            };
            threads.push(GatewayThread::spawn("handshakes", run)?);
            Ok(())
        })
        // On an error the parts of control are dropped, and the workers were already told to stop.
        .and_then(move |()| GatewayThread::spawn("control", move || evenkeel_control::run(parts)));
    match spawned {
        Ok(control) => Ok((control, threads)),
        Err(error) => {
            threads.into_iter().for_each(|thread| _ = thread.join());
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
