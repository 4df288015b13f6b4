//! A group of gateways: one owns the group's addresses, its standby takes them over with the sessions when it dies. Further
//! members are spares: one of them becomes the standby when a member is gone.
//!
//! `member.rs` runs the core's state machine (`ownership/src/lib.rs`), which decides. Records of the owner's sessions reach
//! the standby over `link.rs`. All members show by `beats.rs` that they live. If they do not hear each other, agents of
//! nodes and witnesses decide by `votes.rs` which one goes on, or the program of `fence.rs` makes sure that the silent one is
//! down; the agent beside a member shows by `peer_agent.rs` that its process has ended. A takeover is the second half of an
//! upgrade: the workers of a standby are suspended from its start; it restores the sessions and resumes.

mod address;
mod beats;
mod certificates;
mod fence;
mod group;
mod keys;
mod link;
mod member;
mod peer_agent;
mod preparation;
mod records;
mod redundancy;
mod refusals;
mod rehearsal;
mod store_vote;
mod task;
mod unconfirmed;
mod votes;

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use address::hold_addresses;
use address::{AddressKeeper, Addresses};
use beats::Beats;
use evenkeel_config::GatewayConfig;
use evenkeel_control::{Inherited, NamedSockets, SocketName};
use evenkeel_drivers::group_number;
use evenkeel_ownership::PeerId;
use evenkeel_process::descriptors;
use evenkeel_process::scheduling::{self, RealTimeThread};
use evenkeel_telemetry::Instruments;
use group::GroupInbox;
pub use group::{
    GatewayStanding, Group, GroupOwnership, GroupRole, GroupStatus, HandOverError, HostWarning,
    OwnershipState, TakeOverError,
};
use link::{Link, LinkTls, LinkedPeer};
pub use link::{PeerApi, PeerStream};
use member::GroupMember;
pub use member::{MemberEnd, MemberGateway};
use refusals::RefusalLog;
use store_vote::StoreVoter;
pub use store_vote::{StoreQuestion, StoreQuestions};
use tokio::sync::{mpsc, oneshot, watch};
use votes::{Votes, VotingAgent};

/// Connections of the peer that wait for the API, which takes each at once.
const STREAMS_MAX: usize = 4;

/// The member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterStartError {
    /// Its addresses cannot be held.
    #[error(transparent)]
    Addresses(#[from] address::AddressError),
    /// `listen` of `[cluster]` cannot be bound.
    #[error("cannot listen on {0} for the group's other gateway: {1}")]
    Listen(std::net::SocketAddr, io::Error),
    /// The system gives no thread.
    #[error("cannot create the thread of the group: {0}")]
    Thread(io::Error),
}

/// A member with open sockets, before the process gives up its privileges.
pub struct BoundMember {
    settings: Arc<GatewayConfig>,
    cluster: evenkeel_config::GroupSettings,
    addresses: Addresses,
    beats: UdpSocket,
    link: TcpListener,
    /// Of the process that this one replaces.
    ownership: Option<OwnershipState>,
    /// The group's state and commands.
    pub group: Group,
    inbox: GroupInbox,
    /// Streams of the peer to [`Access::streams`].
    streams: mpsc::Sender<PeerStream>,
    linked: watch::Sender<LinkedPeer>,
    tls: watch::Sender<LinkTls>,
    /// Taken by the API.
    pub access: Option<Access>,
    store_voter: Option<StoreVoter>,
    thread: Option<WaitingThread>,
    /// Taken by the index if the store of the index votes.
    pub store_questions: Option<StoreQuestions>,
}

/// The API's access to the group and its other gateways.
pub struct Access {
    /// The group's state and commands.
    pub group: Group,
    /// The peer's API.
    pub peer: PeerApi,
    /// Connections of the peer to this gateway's API.
    pub streams: mpsc::Receiver<PeerStream>,
}

/// The thread of a member.
pub struct RunningMember {
    /// The group's state and commands.
    pub group: Group,
    lost: watch::Receiver<Option<MemberEnd>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl BoundMember {
    /// `None`: the gateway belongs to no group.
    pub fn new(
        settings: &Arc<GatewayConfig>,
        program: Option<&Path>,
        inherited: &mut Inherited,
        ownership: Option<OwnershipState>,
    ) -> Result<Option<BoundMember>, ClusterStartError> {
        let Some(cluster) = &settings.cluster else { return Ok(None) };
        let unheard = |error| ClusterStartError::Listen(cluster.listen, error);
        let address = cluster.listen;
        let addresses = match ownership {
            Some(_) => Addresses::inherit(&cluster.addresses, inherited),
            None => Addresses::start(&cluster.addresses, program),
        };
        let beats = inherited.take(&SocketName::Beats { address });
        let link = inherited.take(&SocketName::Link { address });
        let (group, inbox) = Group::new();
        let (streams_in, streams) = mpsc::channel(STREAMS_MAX);
        // More than two have to hear first which one is the standby.
        let first = LinkedPeer { id: PeerId::default(), has_records: cluster.peers.len() == 1 };
        let (linked, peer) = watch::channel(first);
        let tls = LinkTls::of(&cluster.secrets).map_err(io::Error::other);
        let (tls, of_api) = watch::channel(tls.map_err(ClusterStartError::Thread)?);
        let peer = PeerApi::new(cluster, peer, of_api);
        let store_votes = settings.index.as_ref().is_some_and(|index| index.votes);
        let (store_voter, store_questions) = store_votes.then(StoreVoter::new).unzip();
        let access = Some(Access { group: group.clone(), peer, streams });
        Ok(Some(BoundMember {
            addresses: addresses?,
            beats: beats
                .map_or_else(|| Beats::bind(cluster).map(OwnedFd::from), Ok)
                .and_then(|beats| descriptors::closed_early(&beats))
                .map_err(unheard)?
                .into(),
            link: link.map_or_else(|| Link::bind(cluster).map_err(unheard), |it| Ok(it.into()))?,
            cluster: cluster.clone(),
            settings: Arc::clone(settings),
            ownership,
            group,
            inbox,
            streams: streams_in,
            linked,
            tls,
            access,
            store_voter,
            thread: None,
            store_questions,
        }))
    }

    /// Duplicates of the sockets, for the process that replaces this one.
    pub fn duplicates(&self) -> io::Result<NamedSockets> {
        let address = self.cluster.listen;
        let beats = (SocketName::Beats { address }, descriptors::closed_early(&self.beats)?);
        let link = (SocketName::Link { address }, self.link.as_fd().try_clone_to_owned()?);
        Ok([beats, link].into_iter().chain(self.addresses.duplicate()?).collect())
    }

    /// Starts the member's thread by this one, which may make it real-time. It waits for [`BoundMember::start`].
    pub fn start_thread(&mut self, starter: &RealTimeThread) -> Result<(), ClusterStartError> {
        let thread = starter.run(WaitingThread::start);
        self.thread = Some(thread.map_err(ClusterStartError::Thread)?);
        Ok(())
    }

    /// Starts the member. `gateway` reads nothing until it owns the addresses.
    pub fn start(
        self,
        gateway: MemberGateway,
        instruments: Arc<Instruments>,
    ) -> Result<RunningMember, ClusterStartError> {
        let BoundMember {
            settings,
            cluster,
            addresses,
            beats,
            link,
            ownership,
            group,
            inbox,
            store_voter,
            thread,
            ..
        } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(ClusterStartError::Thread)?;
        let refusals = RefusalLog::new(Arc::clone(&instruments));
        let (streams, linked, tls) = (self.streams, self.linked, self.tls);
        let link = Link::start(link, &settings, &cluster, refusals.clone(), streams, linked, tls);
        let (lost_in, lost) = watch::channel(None);
        let (stop, stopped) = oneshot::channel::<()>();
        let (number, voters) = (group_number(&cluster), VotingAgent::all(&settings));
        let link = link.map_err(ClusterStartError::Thread)?;
        let serve = async move |is_real_time| {
            let beats = Beats::start(beats, &cluster, refusals.clone())?;
            let votes = Votes::new(number, voters, store_voter)?;
            let keeper = AddressKeeper::start(addresses, Arc::clone(&gateway.lease));
            let member = GroupMember::new(
                cluster,
                ownership,
                is_real_time,
                gateway,
                keeper,
                beats,
                link,
                votes,
                inbox,
                refusals,
                instruments,
            )?;
            tokio::select! {
                lost = member.run() => drop(lost_in.send_replace(Some(lost))),
                _ = stopped => {}
            }
            Ok::<_, io::Error>(())
        };
        let thread = thread.map_or_else(WaitingThread::start, Ok);
        let thread = thread.map_err(ClusterStartError::Thread)?.run(move |real_time| {
            if let Err(error) = &real_time {
                tracing::info!(%error, "beats wait for packets and other threads: set LimitRTPRIO=1 in the unit");
            }
            if let Err(error) = runtime.block_on(serve(real_time.is_ok())) {
                tracing::error!(%error, "the group's thread ended");
            }
            // A fence may run.
            runtime.shutdown_background();
        });
        Ok(RunningMember { group, lost, stop: Some(stop), thread: Some(thread) })
    }
}

type MemberWork = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The thread of a member before it starts. Beats do not wait for other threads if it may be real-time.
struct WaitingThread {
    work: std::sync::mpsc::Sender<MemberWork>,
    thread: JoinHandle<()>,
}

impl WaitingThread {
    fn start() -> io::Result<WaitingThread> {
        let (work, given) = std::sync::mpsc::channel::<MemberWork>();
        let thread = std::thread::Builder::new().name("evenkeel-cluster".to_owned());
        let thread = thread.spawn(move || {
            let real_time = scheduling::run_before_others();
            // Without work the process ends.
            if let Ok(work) = given.recv() {
                work(real_time);
            }
        })?;
        Ok(WaitingThread { work, thread })
    }

    /// Runs the work, which learns why the thread is not real-time.
    fn run(self, work: impl FnOnce(io::Result<()>) + Send + 'static) -> JoinHandle<()> {
        // Fails only after a panic, which is reported.
        let _ = self.work.send(Box::new(work));
        self.thread
    }
}

impl Drop for RunningMember {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic was reported already.
            let _ = thread.join();
        }
    }
}

/// Returns once the member has lost its ownership, or its thread has ended.
pub async fn lost(member: Option<&RunningMember>) -> MemberEnd {
    let Some(member) = member else { return std::future::pending().await };
    let mut lost = member.lost.clone();
    match lost.wait_for(Option::is_some).await {
        Ok(lost) => lost.clone().expect("it is there"),
        Err(_) => MemberEnd::ThreadEnded,
    }
}
