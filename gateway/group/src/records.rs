//! The exchange of records with the peer: the owner sends its own, the standby keeps a copy.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::GroupSettings;
use evenkeel_control::{CertificateChannels, Handle, RecordBatch, Replica};
use evenkeel_media::srtp::IndexGrant;
use evenkeel_ownership::Cluster;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::certificates::CertificateExchange;
use super::changes::ChangeExchange;
use super::forecasts::ForecastExchange;
use super::group::{CopyState, GroupInbox};
use super::link::{Link, LinkEvent, LinkFrame};
use super::unconfirmed::{SentBatches, UnconfirmedBatches};

/// A copy is incomplete once the owner was heard for this long without a connection to it.
const STALE_AFTER: Duration = Duration::from_millis(100);

/// A change of control that other inputs do not wait for.
pub(super) type PendingChange<T> = Option<JoinHandle<Result<T, String>>>;

pub(super) struct RecordExchange {
    pub(super) link: Link,
    /// The owner's records, while this member is the standby.
    pub(super) replica: Arc<Replica>,
    port_legs: Option<IpAddr>,
    /// Batches for the peer, while this member owns and is connected.
    pub(super) batches: Option<mpsc::Receiver<RecordBatch>>,
    pub(super) following: PendingChange<mpsc::Receiver<RecordBatch>>,
    unconfirmed: UnconfirmedBatches,
    /// Batches on this connection that the peer has not acknowledged, oldest first.
    sent: SentBatches,
    grant: Arc<IndexGrant>,
    /// Of the peer.
    copy: watch::Sender<CopyState>,
    forecasts: ForecastExchange,
    changes: ChangeExchange,
    certificates: CertificateExchange,
    connected: bool,
    disconnected_at: Option<Instant>,
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
            replica: Arc::new(Replica::with_ports_at(settings.port_legs())),
            port_legs: settings.port_legs(),
            batches: None,
            following: None,
            unconfirmed: UnconfirmedBatches::new(Instant::now()),
            sent: SentBatches::default(),
            grant,
            copy: inbox.copy.clone(),
            forecasts: inbox.forecasts.clone(),
            changes: inbox.changes.clone(),
            certificates: CertificateExchange::new(certificates),
            connected: false,
            disconnected_at: None,
            refusal: None,
            difference: None,
        };
        records.show_unconfirmed();
        records
    }

    pub(super) fn handle(&mut self, event: LinkEvent, core: &mut Cluster) {
        match event {
            LinkEvent::Connected => {
                (self.connected, self.refusal, self.difference) = (true, None, None);
                self.disconnected_at = None;
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
                (self.connected, self.batches, self.following) = (false, None, None);
                self.sent = SentBatches::default();
                // The next follower's batches count from 1.
                self.copy.send_modify(|copy| copy.acknowledged = 0);
                let now = Instant::now();
                self.unconfirmed.handle_disconnected(now);
                self.disconnected_at = Some(now);
                self.forecasts.begin();
                self.changes.begin();
                self.certificates.begin();
            }
            LinkEvent::Refused(refused) => self.refusal = Some(refused.to_string()),
            LinkEvent::Differs(difference) => self.difference = difference,
            LinkEvent::Frame(LinkFrame::Batch(bytes)) if !core.is_owner() => {
                self.keep(&bytes, core);
            }
            LinkEvent::Frame(LinkFrame::Batch(_) | LinkFrame::HandOver) => {}
            LinkEvent::Frame(LinkFrame::Acknowledged(number)) => {
                self.unconfirmed.handle_confirmed(number);
                if let Some(batch) = self.sent.take_acknowledged(number) {
                    self.grant.acknowledge(&batch, Instant::now());
                }
                self.copy.send_modify(|copy| copy.acknowledged = number);
            }
        }
        self.changes.add_received();
        self.show_unconfirmed();
    }

    /// Adds a batch of the owner to the copy.
    fn keep(&mut self, bytes: &[u8], core: &mut Cluster) {
        let mut batch =
            RecordBatch::decode(bytes, Some(Instant::now())).map_err(|error| error.to_string());
        let part = batch.as_mut().ok().and_then(|batch| batch.forecasts.take());
        let changes = batch.as_mut().map(|batch| std::mem::take(&mut batch.changes));
        let changes = changes.unwrap_or_default();
        let certificates = batch.as_mut().ok().and_then(|batch| batch.certificates.take());
        let replica = Arc::make_mut(&mut self.replica);
        let applied =
            batch.and_then(|batch| replica.apply(batch).map_err(|error| error.to_string()));
        match applied {
            Ok(()) => {
                let number = self.replica.number();
                core.handle_replica(self.replica.is_whole(), number, Instant::now());
                part.into_iter().for_each(|part| self.forecasts.take(part));
                self.changes.take(changes);
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
    /// ended sessions, its operators' decisions and its alerts.
    pub(super) fn pass_on(&mut self, handle: &Handle) {
        // This gateway relays requests to the URLs of the owner's sessions.
        self.replica.url_secret().into_iter().for_each(|it| handle.session_urls.resume(it));
        if !self.replica.has_news() {
            return;
        }
        let replica = Arc::make_mut(&mut self.replica);
        let policies = handle.restore_policies(replica.take_policies());
        let history = handle.copy_history(replica.take_history());
        let operations = handle.copy_operations(replica.take_operations());
        let alerts = handle.copy_alerts(replica.take_alerts());
        let tokens = replica.take_used_tokens();
        // Nothing waits for the disk of a standby.
        drop(handle.used_tokens.keep(tokens.iter().map(|token| &**token)));
        if !policies || !history || !operations || !alerts {
            tracing::error!("decisions or records of the owner not continued: control is busy");
            // The next connection begins with all records.
            self.link.restart();
        }
    }

    /// Sends all records to a connected peer, and then each that changes.
    pub(super) fn follow(&mut self, handle: &Handle) {
        if !self.connected || self.batches.is_some() || self.following.is_some() {
            return;
        }
        let handle = handle.clone();
        // The numbers of batches begin again.
        self.copy.send_modify(|copy| copy.acknowledged = 0);
        self.following = Some(tokio::spawn(async move {
            handle.follow_records(false).await.map_err(|_| "control ended".to_owned())
        }));
    }

    pub(super) fn send(&mut self, mut batch: RecordBatch) {
        let now = Instant::now();
        batch.forecasts = self.forecasts.next_part(now);
        batch.changes = self.changes.next_part();
        batch.certificates = self.certificates.next_part();
        self.unconfirmed.handle_sent(batch.number(), batch.is_whole(), now);
        self.show_unconfirmed();
        self.sent.note(batch.take_sent());
        if !self.link.send(&LinkFrame::Batch(batch.encode())) {
            // The peer does not read. The connection ends, and the next one begins with all records.
            self.batches = None;
        }
    }

    /// Nothing waits for this change.
    fn show_unconfirmed(&self) {
        self.copy.send_if_modified(|copy| {
            copy.unconfirmed_since = self.unconfirmed.oldest();
            false
        });
    }

    /// The copy is that of another owner.
    pub(super) fn discard_copy(&mut self, core: &mut Cluster) {
        self.replica = Arc::new(Replica::with_ports_at(self.port_legs));
        self.disconnected_at = None;
        core.handle_replica(false, 0, Instant::now());
    }

    /// The peer owns, with all records.
    pub(super) fn note_handed_over(&self) {
        self.copy.send_modify(|copy| copy.acknowledged = u64::MAX);
    }

    /// No offer waits for a peer that is not heard and cannot take over.
    pub(super) fn note_alone(&self, is_alone: bool) {
        self.copy
            .send_if_modified(|copy| std::mem::replace(&mut copy.is_alone, is_alone) != is_alone);
    }

    /// Tells the core the state of the copy again, which it forgets while this member is a spare.
    pub(super) fn confirm_copy(&self, core: &mut Cluster) {
        if self.connected {
            core.handle_replica(self.replica.is_whole(), self.replica.number(), Instant::now());
        }
    }

    /// A copy that is not continued while the owner lives grows old. `heard`: the owner's last beat.
    pub(super) fn look_after_copy(&mut self, heard: Option<Instant>, core: &mut Cluster) {
        let lives = |since: Instant| {
            since.elapsed() > STALE_AFTER && heard.is_some_and(|heard| heard > since + STALE_AFTER)
        };
        if !core.is_owner() && self.disconnected_at.is_some_and(lives) {
            self.disconnected_at = None;
            core.handle_replica(false, self.replica.number(), Instant::now());
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

/// Returns the result of a change once it is there.
pub(super) async fn finish<T>(change: &mut PendingChange<T>) -> Result<T, String> {
    let Some(task) = change else { return pending().await };
    let outcome = task.await.unwrap_or_else(|_| Err("a task panicked".to_owned()));
    *change = None;
    outcome
}
