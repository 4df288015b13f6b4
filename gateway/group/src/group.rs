//! The group as the API sees it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::{GatewayConfig, SecretFile};
use evenkeel_contract::blast::GatewayLoss;
use evenkeel_contract::gateway::{NewOwner, TakenOver};
use evenkeel_ownership::{Blocked, HandOverRefusal};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

/// Requests that wait for the member, which handles each within microseconds.
const REQUESTS_MAX: usize = 16;

/// Time for a standby to get all records of a gateway that is to end: 64,000 sessions.
const IN_SYNC_WITHIN: Duration = Duration::from_secs(10);

const IN_SYNC_EVERY: Duration = Duration::from_millis(20);

/// Time for the standby to confirm that it takes nothing over by silence. Longer than the agents need to bar one that is
/// gone.
const RESTS_WITHIN: Duration = Duration::from_secs(3);

/// The group's members, this one first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GroupStatus {
    /// This gateway, then the other ones.
    pub gateways: Vec<GatewayStanding>,
    /// Losses of redundancy that have lasted, each a sentence.
    pub warnings: Vec<Arc<str>>,
    /// Reasons, among the warnings once they have lasted, for which this standby could not continue all sessions.
    pub unready: usize,
}

/// The gateway that serves the group's sessions, as far as this one knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupOwnership {
    /// This gateway.
    Here,
    /// This gateway, which sends nothing until it knows that no other member does.
    Doubting,
    /// The other gateway, by name.
    Peer(Arc<str>),
    /// No owner was heard.
    Unknown,
}

impl GroupStatus {
    fn owner(&self) -> GroupOwnership {
        let owner = |gateway: &GatewayStanding| match (gateway.role, gateway.here) {
            (GroupRole::Owner, true) => Some(GroupOwnership::Here),
            (GroupRole::Doubting, true) => Some(GroupOwnership::Doubting),
            (GroupRole::Owner, false) => Some(GroupOwnership::Peer(Arc::clone(&gateway.gateway))),
            _ => None,
        };
        self.gateways.iter().find_map(owner).unwrap_or(GroupOwnership::Unknown)
    }

    /// The loss of a member with its host; of this gateway, if the name is empty. `None`: the group has no such member.
    pub fn loss_of(&self, name: &str) -> Option<GatewayLoss> {
        let is_lost = |it: &&GatewayStanding| match name {
            "" => it.here,
            _ => *it.gateway == *name,
        };
        let lost = self.gateways.iter().find(is_lost)?;
        let (gateway, here) = (Some(Arc::clone(&lost.gateway)), lost.here);
        let role = lost.role.name().into();
        let loss = GatewayLoss { gateway, here, role, ..GatewayLoss::default() };
        let serves = match lost.role {
            GroupRole::Owner | GroupRole::Restoring | GroupRole::Doubting => true,
            GroupRole::Silent => self.owner() == GroupOwnership::Unknown,
            GroupRole::Joining | GroupRole::Standby | GroupRole::Spare => false,
        };
        let warnings = self.warnings.clone();
        if !serves {
            return Some(GatewayLoss { continues: true, warnings, ..loss });
        }
        let mut others = self.gateways.iter().filter(|it| it.gateway != lost.gateway);
        let Some(standby) = others.find(|it| it.role == GroupRole::Standby) else {
            let reasons = vec!["no standby follows it".to_owned()];
            let (sessions, continues) = (lost.sessions, lost.sessions == 0);
            return Some(GatewayLoss { sessions, continues, reasons, warnings, ..loss });
        };
        let mut reasons = Vec::new();
        if !standby.in_sync {
            reasons.push(format!("{} does not hold all records yet", standby.gateway));
        }
        if !standby.armed {
            reasons.push(format!(
                "{} takes over only if the process of {} ends, not if its host falls silent",
                standby.gateway, lost.gateway
            ));
        }
        reasons.extend(standby.blocked.clone());
        Some(GatewayLoss {
            sessions: lost.sessions,
            successor: Some(Arc::clone(&standby.gateway)),
            copied_sessions: standby.sessions,
            continues: reasons.is_empty() || lost.sessions == 0,
            reasons,
            warnings,
            ..loss
        })
    }
}

/// A member as this gateway knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayStanding {
    /// Its name.
    pub gateway: Arc<str>,
    /// This is the gateway that answers.
    pub here: bool,
    pub role: GroupRole,
    /// The number of the ownership that it knows.
    pub epoch: u64,
    /// Sessions that it serves, or holds copies of.
    pub sessions: usize,
    /// The standby can continue all sessions that the owner has answered.
    pub in_sync: bool,
    /// The standby takes over an owner that is silent too, not only one whose process has ended.
    pub armed: bool,
    /// Age of its last beat; `None` for this gateway, and for one that was not heard.
    pub heard_ms: Option<u64>,
    /// The group's addresses.
    pub addresses: Vec<IpAddr>,
    /// The reason why it is not connected.
    pub refused: Option<String>,
    /// The reason why it does not serve although its peer is silent.
    pub blocked: Option<String>,
}

evenkeel_model::named! {
    /// The role of a member.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum GroupRole {
        /// Listens for its peer before it takes a role.
        #[default]
        Joining = "joining",
        /// Holds copies and waits.
        Standby = "standby",
        /// Holds no copies; becomes the standby if a member is gone.
        Spare = "spare",
        /// Owns the addresses; the sessions do not continue yet.
        Restoring = "restoring",
        /// Serves the sessions.
        Owner = "owner",
        /// Owns the addresses, and sends nothing until it knows that no other member does.
        Doubting = "doubting",
        /// Not heard.
        Silent = "silent",
    }
}

/// The owner does not hand the addresses over.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandOverError {
    /// The group has no such gateway.
    #[error("the group has no gateway `{found}`; its gateways are {members}")]
    Unknown {
        /// The name in the request.
        found: String,
        /// The members' names.
        members: String,
    },
    /// The named gateway is the owner.
    #[error("`{0}` owns the addresses already")]
    OwnerAlready(String),
    /// Only the owner can; this is its name.
    #[error("this gateway does not own the addresses; ask {0}")]
    NotOwner(Arc<str>),
    /// The owner has another standby.
    #[error("`{found}` is a spare and holds no records; `{peer}` is the standby")]
    Spare {
        /// The name in the request.
        found: String,
        /// The standby's name.
        peer: Arc<str>,
    },
    /// The standby, named here, would lose sessions.
    #[error("`{0}` does not hold all records yet; `evenkeel gateway list` shows when it does")]
    NotInSync(Arc<str>),
    /// The peer is no standby.
    #[error("`{peer}` {}; it can take the calls once it is the standby", last_heard(*silent_for))]
    NoStandby {
        /// The peer's name.
        peer: Arc<str>,
        /// The age of its last beat; `None` if it was not heard.
        silent_for: Option<Duration>,
    },
    /// Another hand-over has begun.
    #[error("another hand-over is under way")]
    UnderWay,
    /// The owner continues, for this reason.
    #[error("hand-over failed, this gateway continues: {0}")]
    Failed(String),
}

/// The reason for which an operator does not make this gateway the owner.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The request does not name another member.
    #[error("found `{found}`, expected another gateway of the group: {peers}")]
    NotPeer {
        /// The name in the request.
        found: String,
        /// The names of the other members.
        peers: String,
    },
    /// Another member, named here, is the owner or holds its records.
    #[error(
        "`{0}` holds the records of the calls, this gateway does not; repeat the command there"
    )]
    HeldElsewhere(Arc<str>),
    /// This gateway is the owner.
    #[error("this gateway owns the addresses already")]
    OwnerAlready,
    /// The peer owns and answers.
    #[error(
        "`{peer}` owns the addresses and was heard within the last second; `evenkeel gateway hand-over --to {here}` at `{peer}` replaces it"
    )]
    PeerOwns {
        /// The peer's name.
        peer: Arc<str>,
        /// This gateway's name.
        here: Arc<str>,
    },
    /// The peer, named here, is heard.
    #[error(
        "`{0}` was heard within the last second and does not own; if neither takes over within seconds, stop `{0}`, or repeat the command there"
    )]
    PeerHeard(Arc<str>),
    /// Another member, named here, is silent too.
    #[error(
        "`{0}` is silent too and may own; once it is down as well, name both, separated by a comma"
    )]
    AlsoSilent(Arc<str>),
    /// This gateway has not listened long enough for the peer, named here.
    #[error("this gateway listens for `{0}` in its first second; repeat the command")]
    Joining(Arc<str>),
    /// Agents hear the peer, named here.
    #[error(
        "agents of nodes heard `{0}` as the owner within the last 2 s; restore the link between the gateways, or stop `{0}`"
    )]
    AgentsHearPeer(Arc<str>),
    /// The member is ending.
    #[error("the gateway ends; its log has the reason")]
    Ends,
}

/// A host that may lack room for a takeover. The text has no session counts, since each change of the text is a new warning.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum HostWarning {
    /// All processes of the host together would serve too many sessions.
    #[error(
        "after a takeover from the host of `{owner}` this host would serve more sessions than `[limits] host_sessions = {limit}`: move an owner or a standby to another host, or raise it"
    )]
    Full {
        /// The name of the owner.
        owner: Arc<str>,
        /// The limit at this process.
        limit: u32,
    },
    /// The sessions of the host are unknown, for this reason.
    #[error("`[limits] host_sessions` is not checked: {0}")]
    Unchecked(String),
}

impl HandOverError {
    pub(super) fn of(
        refusal: HandOverRefusal,
        peer: Arc<str>,
        silent_for: Option<Duration>,
    ) -> HandOverError {
        match refusal {
            HandOverRefusal::NotOwner => HandOverError::NotOwner(peer),
            HandOverRefusal::PeerSilent => HandOverError::NoStandby { peer, silent_for },
            HandOverRefusal::RecordsIncomplete => HandOverError::NotInSync(peer),
        }
    }
}

fn last_heard(silent_for: Option<Duration>) -> String {
    match silent_for {
        Some(silent_for) if silent_for.as_secs() > 0 => {
            format!("was last heard {} s ago", silent_for.as_secs())
        }
        Some(_) => "is not the standby yet".to_owned(),
        None => "was not heard since this gateway started".to_owned(),
    }
}

/// The reason for which the silent peer, "it", is not replaced.
pub(super) fn blocked_reason(blocked: Blocked) -> &'static str {
    match blocked {
        Blocked::NotArmed => {
            "its records are incomplete here, no agent and no witness answered it, or a hold-down lasts"
        }
        Blocked::OwnerHeard => "agents or witnesses hear it, or hold for it",
        Blocked::NoAgent => "too few agents and witnesses answer this gateway",
        Blocked::Unknown => "this gateway has not followed it as the owner; it may own",
    }
}

/// To an operator who waits for the result.
pub(super) type HandOverReply = oneshot::Sender<Result<NewOwner, HandOverError>>;

/// To an operator who waits for the result.
pub(super) type TakeOverReply = oneshot::Sender<Result<TakenOver, TakeOverError>>;

#[derive(Debug)]
pub(super) enum GroupRequest {
    HandOver {
        /// The standby; `None`: whichever gateway is the peer.
        to: Option<String>,
        reply: HandOverReply,
    },
    TakeOver {
        /// The members that are down, as the operator named them, separated by commas.
        down: String,
        reply: TakeOverReply,
    },
    /// The standby is not to take over by silence; the reply has what another process continues.
    Rest(oneshot::Sender<OwnershipState>),
    EndRest,
    /// Nodes, witnesses or policy sets were reloaded.
    Reload(Arc<GatewayConfig>),
    /// The group's secrets, of which the first signs.
    ReplaceSecrets(Vec<SecretFile>),
}

/// What another process of the same member continues.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnershipState {
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    pub(super) epoch: u64,
    pub(super) highest: u64,
    /// Processes of older versions have no such number.
    #[serde(default)]
    pub(super) takeovers: u8,
    /// The name of the standby. Processes of older versions have one peer.
    #[serde(default)]
    pub(super) standby: Option<String>,
}

/// The API's access to the group.
#[derive(Clone, Debug)]
pub struct Group {
    standing: watch::Receiver<GroupStatus>,
    requests: mpsc::Sender<GroupRequest>,
    copy: watch::Receiver<CopyState>,
    host_warning: watch::Sender<Option<HostWarning>>,
}

/// The copy of an owner's records at its standby.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct CopyState {
    /// The number of the last batch that it contains.
    pub(super) acknowledged: u64,
    /// The standby is not heard, and cannot take over from this gateway while it lives.
    pub(super) is_alone: bool,
    /// When the oldest batch was sent that it does not contain.
    pub(super) unconfirmed_since: Option<Instant>,
}

/// The member's ends of a [`Group`].
pub(super) struct GroupInbox {
    pub(super) requests: mpsc::Receiver<GroupRequest>,
    pub(super) standing: watch::Sender<GroupStatus>,
    pub(super) copy: watch::Sender<CopyState>,
    pub(super) host_warning: watch::Receiver<Option<HostWarning>>,
}

impl Group {
    pub(super) fn new() -> (Group, GroupInbox) {
        let (requests_in, requests) = mpsc::channel(REQUESTS_MAX);
        let (standing, shown) = watch::channel(GroupStatus::default());
        let (copied, copy) = watch::channel(CopyState::default());
        let (warned, host_warning) = watch::channel(None);
        let group = Group { standing: shown, requests: requests_in, copy, host_warning: warned };
        (group, GroupInbox { requests, standing, copy: copied, host_warning })
    }

    /// The members, as this gateway knows them.
    pub fn status(&self) -> GroupStatus {
        self.standing.borrow().clone()
    }

    /// The role of this gateway and its epoch.
    pub fn role(&self) -> (GroupRole, u64) {
        let standing = self.standing.borrow();
        let here = standing.gateways.iter().find(|gateway| gateway.here);
        here.map_or((GroupRole::Joining, 0), |here| (here.role, here.epoch))
    }

    /// The gateway that serves the sessions.
    pub fn owner(&self) -> GroupOwnership {
        self.standing.borrow().owner()
    }

    /// The age of the oldest change that the standby of this owner has not confirmed, also while the owner doubts. `None` at another
    /// member.
    pub fn lag(&self) -> Option<Duration> {
        let since = self.copy.borrow().unconfirmed_since;
        let age = since.map_or(Duration::ZERO, |since| since.elapsed());
        matches!(self.owner(), GroupOwnership::Here | GroupOwnership::Doubting).then_some(age)
    }

    /// Reports that the host may not have room for a takeover, or that it has.
    pub fn set_host_warning(&self, warning: Option<HostWarning>) {
        self.host_warning.send_replace(warning);
    }

    /// Returns once the owner is another one, or after this time.
    pub async fn owner_changed(&self, from: &GroupOwnership, within: Duration) {
        let mut standing = self.standing.clone();
        let changed = standing.wait_for(|standing| standing.owner() != *from);
        // The gateway may end.
        let _ = tokio::time::timeout(within, changed).await;
    }

    /// Returns once this gateway owns the addresses and its sessions continue.
    pub async fn owned_here(&self) {
        let mut standing = self.standing.clone();
        if standing.wait_for(|standing| standing.owner() == GroupOwnership::Here).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns true once the standby has the records up to this batch, or false after this time.
    pub async fn confirmed(&self, number: u64, within: Duration) -> bool {
        self.copied(within, |copy| copy.acknowledged >= number).await
    }

    /// The same, but returns true too once the standby is not heard and cannot take over.
    pub async fn confirmed_unless_alone(&self, number: u64, within: Duration) -> bool {
        self.copied(within, |copy| copy.is_alone || copy.acknowledged >= number).await
    }

    async fn copied(&self, within: Duration, enough: impl Fn(CopyState) -> bool) -> bool {
        let mut copy = self.copy.clone();
        let waiting = copy.wait_for(|copy| enough(*copy));
        // An error: the member has ended.
        tokio::time::timeout(within, waiting).await.is_ok_and(|copied| copied.is_ok())
    }

    /// Keeps the standby from taking over by silence, for an upgrade.
    ///
    /// # Errors
    /// This gateway is not the owner, or its standby does not confirm.
    pub async fn suspend(&self) -> Result<OwnershipState, String> {
        let (reply, answer) = oneshot::channel();
        // Fails only if the member has ended, as does the wait.
        let _ = self.requests.send(GroupRequest::Rest(reply)).await;
        match tokio::time::timeout(RESTS_WITHIN, answer).await {
            Ok(Ok(ownership)) => Ok(ownership),
            Ok(Err(_)) => Err("this gateway is a standby: restart it instead".to_owned()),
            Err(_) => Err(format!("the standby did not confirm within {RESTS_WITHIN:?}")),
        }
    }

    /// The upgrade failed: the standby may take over by silence again.
    pub async fn end_rest(&self) {
        // Fails only if the member has ended.
        let _ = self.requests.send(GroupRequest::EndRest).await;
    }

    /// Tells the peer of changed nodes and scenarios, and asks the agents and witnesses of the new configuration.
    pub async fn reload(&self, settings: &Arc<GatewayConfig>) {
        // Fails only if the member has ended.
        let _ = self.requests.send(GroupRequest::Reload(Arc::clone(settings))).await;
    }

    /// Signs by the first of these secrets, and accepts those alone, in beats and in connections to come.
    pub async fn replace_secrets(&self, secrets: Vec<SecretFile>) {
        // Fails only if the member has ended.
        let _ = self.requests.send(GroupRequest::ReplaceSecrets(secrets)).await;
    }

    /// Hands the addresses to the standby, of this name if it is given.
    pub async fn hand_over(&self, to: Option<String>) -> Result<NewOwner, HandOverError> {
        let (reply, answer) = oneshot::channel();
        let ended = || HandOverError::Failed("the gateway ends".to_owned());
        let request = GroupRequest::HandOver { to, reply };
        self.requests.send(request).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Hands the addresses to the standby before this gateway ends. A standby that is heard and lacks records is waited for.
    /// The loss of the ownership then ends the member.
    pub async fn leave(&self) -> Result<NewOwner, HandOverError> {
        let until = Instant::now() + IN_SYNC_WITHIN;
        loop {
            match self.hand_over(None).await {
                Err(HandOverError::NotInSync(_) | HandOverError::UnderWay)
                    if Instant::now() < until =>
                {
                    tokio::time::sleep(IN_SYNC_EVERY).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Makes this gateway the owner. `down`: the silent members, separated by commas, which an operator confirms to be down. Returns once the sessions
    /// continue here.
    pub async fn take_over(&self, down: String) -> Result<TakenOver, TakeOverError> {
        let (reply, answer) = oneshot::channel();
        let request = GroupRequest::TakeOver { down, reply };
        self.requests.send(request).await.map_err(|_| TakeOverError::Ends)?;
        answer.await.map_err(|_| TakeOverError::Ends)?
    }
}

#[cfg(test)]
mod tests;
