//! The exchange of records with the peer: the owner sends its own, the standby keeps a copy.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::{GatewayConfig, GroupSettings, SecretFile};
use evenkeel_control::{CertificateChannels, Handle, RecordBatch, Replica};
use evenkeel_media::srtp::IndexGrant;
use evenkeel_ownership::Cluster;
use tokio::sync::{mpsc, watch};

use super::certificates::CertificateExchange;
use super::group::{CopyState, GroupInbox};
use super::link::{Link, LinkEvent, LinkFrame, LinkedPeer};
use super::task::{Task, outcome};
use super::unconfirmed::{SentBatches, UnconfirmedBatches};

/// A copy is incomplete once the owner was heard for this long without a connection to it.
const STALE_AFTER: Duration = Duration::from_millis(100);

/// The connection to the peer.
enum Connection {
    /// The copy is not continued since then; `None` once the core knows that it is old.
    Down {
        copy_since: Option<Instant>,
    },
    Up(Feed),
}

/// The batches for the peer, while this member owns.
enum Feed {
    Off,
    Begins(Task<mpsc::Receiver<RecordBatch>>),
    On(mpsc::Receiver<RecordBatch>),
}

pub(super) enum RecordInput {
    Link(LinkEvent),
    /// Control sends batches, or has ended, and the gateway with it.
    FeedBegan(Option<mpsc::Receiver<RecordBatch>>),
    /// `None`: another follower replaced this one, or this one did not keep up.
    Batch(Option<Box<RecordBatch>>),
}

pub(super) struct RecordExchange {
    link: Link,
    connection: Connection,
    /// The owner's records, while this member is the standby.
    copy: Arc<Replica>,
    port_legs: Option<IpAddr>,
    unconfirmed: UnconfirmedBatches,
    /// Batches on this connection that the peer has not acknowledged, oldest first.
    sent: SentBatches,
    grant: Arc<IndexGrant>,
    /// The peer's copy.
    peer_copy: watch::Sender<CopyState>,
    certificates: CertificateExchange,
    refusal: Option<String>,
    /// Node lists, scenarios or voters differ.
    difference: Option<String>,
}

impl RecordExchange {
    pub(super) fn new(
        link: Link,
        settings: &GroupSettings,
        inbox: &GroupInbox,
        grant: Arc<IndexGrant>,
        certificates: CertificateChannels,
    ) -> RecordExchange {
        let records = RecordExchange {
            link,
            connection: Connection::Down { copy_since: None },
            copy: Arc::new(Replica::with_ports_at(settings.port_legs())),
            port_legs: settings.port_legs(),
            unconfirmed: UnconfirmedBatches::new(Instant::now()),
            sent: SentBatches::default(),
            grant,
            peer_copy: inbox.copy.clone(),
            certificates: CertificateExchange::new(certificates),
            refusal: None,
            difference: None,
        };
        records.show_unconfirmed();
        records
    }

    /// Returns the next input. May be cancelled without a loss.
    pub(super) async fn input(&mut self) -> RecordInput {
        let has_room = self.link.has_room();
        let fed = async {
            match &mut self.connection {
                Connection::Up(Feed::Begins(begun)) => {
                    RecordInput::FeedBegan(outcome(begun).await.ok())
                }
                Connection::Up(Feed::On(batches)) if has_room => {
                    RecordInput::Batch(batches.recv().await.map(Box::new))
                }
                Connection::Up(_) | Connection::Down { .. } => pending().await,
            }
        };
        tokio::select! {
            biased;
            event = self.link.recv() => RecordInput::Link(event),
            input = fed => input,
        }
    }

    pub(super) fn handle(&mut self, input: RecordInput, core: &mut Cluster) {
        match input {
            RecordInput::Link(event) => self.handle_link(event, core),
            RecordInput::FeedBegan(batches) => self.set_feed(batches.map_or(Feed::Off, Feed::On)),
            RecordInput::Batch(Some(batch)) => self.send(*batch),
            RecordInput::Batch(None) => self.set_feed(Feed::Off),
        }
    }

    /// A feed ends with its connection.
    fn set_feed(&mut self, next: Feed) {
        if let Connection::Up(feed) = &mut self.connection {
            *feed = next;
        }
    }

    fn handle_link(&mut self, event: LinkEvent, core: &mut Cluster) {
        match event {
            LinkEvent::Connected => {
                self.connection = Connection::Up(Feed::Off);
                (self.refusal, self.difference) = (None, None);
                if !core.is_owner() {
                    self.unconfirmed.clear();
                }
            }
            LinkEvent::Disconnected | LinkEvent::PeerChanged => {
                if event == LinkEvent::Disconnected {
                    core.handle_disconnected(Instant::now());
                }
                if event == LinkEvent::PeerChanged {
                    self.grant.hold();
                }
                let now = Instant::now();
                self.connection = Connection::Down { copy_since: Some(now) };
                self.sent = SentBatches::default();
                // The next follower's batches count from 1.
                self.peer_copy.send_modify(|copy| copy.acknowledged = 0);
                self.unconfirmed.handle_disconnected(now);
                self.certificates.begin();
            }
            LinkEvent::Refused(refused) => self.refusal = Some(refused.to_string()),
            LinkEvent::Differs(difference) => self.difference = difference,
            LinkEvent::Frame(LinkFrame::Batch(bytes)) if !core.is_owner() => {
                self.keep(&bytes, core);
            }
            LinkEvent::Frame(
                LinkFrame::Batch(_)
                | LinkFrame::HandOver
                | LinkFrame::Announce
                | LinkFrame::Announced,
            ) => {}
            LinkEvent::Frame(LinkFrame::Acknowledged(number)) => {
                self.unconfirmed.handle_confirmed(number);
                if let Some(batch) = self.sent.take_acknowledged(number) {
                    self.grant.acknowledge(&batch, Instant::now());
                }
                self.peer_copy.send_modify(|copy| copy.acknowledged = number);
            }
        }
        self.show_unconfirmed();
    }

    /// Adds a batch of the owner to the copy.
    fn keep(&mut self, bytes: &[u8], core: &mut Cluster) {
        let mut batch =
            RecordBatch::decode(bytes, Some(Instant::now())).map_err(|error| error.to_string());
        let certificates = batch.as_mut().ok().and_then(|batch| batch.certificates.take());
        let copy = Arc::make_mut(&mut self.copy);
        let applied = batch.and_then(|batch| copy.apply(batch).map_err(|error| error.to_string()));
        match applied {
            Ok(()) => {
                let number = self.copy.number();
                core.handle_replica(self.copy.is_whole(), number, Instant::now());
                certificates.into_iter().for_each(|taken| self.certificates.take(taken));
                self.link.send(&LinkFrame::Acknowledged(number));
            }
            Err(reason) => {
                tracing::error!(%reason, "records of the owner refused");
                self.link.restart();
            }
        }
    }

    /// Has control continue the owner's revisions of policies, so that a takeover finds them loaded, and keep its records of
    /// ended sessions, its ratings and its documents.
    pub(super) fn pass_on(&mut self, handle: &Handle) {
        // This gateway relays requests to the URLs of the owner's sessions.
        self.copy.url_secret().into_iter().for_each(|it| handle.session_urls.resume(it));
        if !self.copy.has_news() {
            return;
        }
        let replica = Arc::make_mut(&mut self.copy);
        let policies = handle.restore_policies(replica.take_policies());
        let history = handle.copy_history(replica.take_history(), replica.take_ratings());
        let kept = handle.copy_kept(replica.take_kept());
        if let Some(forecasts) = replica.take_forecasts() {
            let store = handle.kept.clone();
            // Beats do not wait for it.
            tokio::task::spawn_blocking(move || match forecasts.read() {
                Ok(part) => store.add_part(part),
                Err(error) => tracing::warn!(%error, "forecasts of the owner cannot be read"),
            });
        }
        if !policies || !history || !kept {
            tracing::error!("decisions or records of the owner not continued: control is busy");
            // The next connection begins with all records.
            self.link.restart();
        }
    }

    /// Sends all records to a connected peer, and then each that changes.
    pub(super) fn follow(&mut self, handle: &Handle) {
        let Connection::Up(feed @ Feed::Off) = &mut self.connection else { return };
        let handle = handle.clone();
        *feed = Feed::Begins(tokio::spawn(async move {
            handle.follow_records(false).await.map_err(|_| "control ended".to_owned())
        }));
        // The numbers of batches begin again.
        self.peer_copy.send_modify(|copy| copy.acknowledged = 0);
    }

    pub(super) fn send(&mut self, mut batch: RecordBatch) {
        let now = Instant::now();
        batch.certificates = self.certificates.next_part();
        self.unconfirmed.handle_sent(batch.number(), batch.is_whole(), now);
        self.show_unconfirmed();
        self.sent.note(batch.take_sent());
        if !self.link.send(&LinkFrame::Batch(batch.encode())) {
            // The peer does not read. The connection ends, and the next one begins with all records.
            self.set_feed(Feed::Off);
        }
    }

    /// Nothing waits for this change.
    fn show_unconfirmed(&self) {
        self.peer_copy.send_if_modified(|copy| {
            copy.unconfirmed_since = self.unconfirmed.oldest();
            false
        });
    }

    /// The member to which this one is connected, or is to be.
    pub(super) fn peer(&self) -> LinkedPeer {
        self.link.peer()
    }

    /// Connects to this member alone from now on. Returns true if it is another one.
    pub(super) fn set_peer(&mut self, peer: LinkedPeer, core: &mut Cluster) -> bool {
        let is_new = self.link.set_peer(peer);
        if is_new && !core.is_owner() {
            // The copy is that of another owner.
            self.copy = Arc::new(Replica::with_ports_at(self.port_legs));
            if let Connection::Down { copy_since } = &mut self.connection {
                *copy_since = None;
            }
            core.handle_replica(false, 0, Instant::now());
        }
        is_new
    }

    /// Asks the owner to hand over to this standby. Returns false without a connection.
    pub(super) fn ask_for_hand_over(&mut self) -> bool {
        self.link.send(&LinkFrame::HandOver)
    }

    /// Has the standby announce the addresses. Returns false without a connection, or if its version cannot.
    pub(super) fn ask_to_announce(&mut self) -> bool {
        self.link.ask_to_announce()
    }

    /// Tells the owner that the addresses are announced here.
    pub(super) fn tell_announced(&mut self) {
        // Without a connection the owner waits no longer.
        self.link.send(&LinkFrame::Announced);
    }

    /// Tells the peer of changed nodes, scenarios and voters.
    pub(super) fn reload(&self, settings: &GatewayConfig) {
        self.link.apply(settings);
    }

    /// Connections to come have these secrets. The open one stays.
    pub(super) fn replace_secrets(&self, secrets: &[SecretFile]) -> Result<(), rustls::Error> {
        self.link.replace_secrets(secrets)
    }

    /// The owner's records, while this member is the standby.
    pub(super) fn copy(&self) -> &Arc<Replica> {
        &self.copy
    }

    pub(super) fn copy_mut(&mut self) -> &mut Arc<Replica> {
        &mut self.copy
    }

    /// The copy is continued here from now on.
    pub(super) fn take_copy(&mut self) -> Arc<Replica> {
        std::mem::take(&mut self.copy)
    }

    /// The peer owns, with all records.
    pub(super) fn note_handed_over(&self) {
        self.peer_copy.send_modify(|copy| copy.acknowledged = u64::MAX);
    }

    /// No offer waits for a peer that is not heard and cannot take over.
    pub(super) fn note_alone(&self, is_alone: bool) {
        self.peer_copy
            .send_if_modified(|copy| std::mem::replace(&mut copy.is_alone, is_alone) != is_alone);
    }

    /// Tells the core the state of the copy again, which it forgets while this member is a spare.
    pub(super) fn confirm_copy(&self, core: &mut Cluster) {
        if let Connection::Up(_) = self.connection {
            core.handle_replica(self.copy.is_whole(), self.copy.number(), Instant::now());
        }
    }

    /// A copy that is not continued while the owner lives grows old. `heard`: the owner's last beat.
    pub(super) fn look_after_copy(&mut self, heard: Option<Instant>, core: &mut Cluster) {
        let lives = |since: &mut Instant| {
            let is_stale = since.elapsed() > STALE_AFTER;
            is_stale && heard.is_some_and(|heard| heard > *since + STALE_AFTER)
        };
        if let Connection::Down { copy_since } = &mut self.connection
            && !core.is_owner()
            && copy_since.take_if(lives).is_some()
        {
            core.handle_replica(false, self.copy.number(), Instant::now());
        }
    }

    /// How the peer's node list, scenarios and voters differ.
    pub(super) fn difference(&self) -> Option<String> {
        self.difference.clone()
    }

    /// The reason why the peer is not connected, or how its configuration differs.
    pub(super) fn refused(&self) -> Option<String> {
        self.refusal.clone().or_else(|| self.difference.clone())
    }
}
