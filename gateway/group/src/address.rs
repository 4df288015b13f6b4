//! The addresses that move between the members of a group.
//!
//! The gateway gives up its capabilities at the start, and adding an address to an interface needs CAP_NET_ADMIN. So it
//! starts a process that keeps this capability, the [holder](hold_addresses). It can do nothing but add and remove the
//! configured addresses, and ask the default router of their links. Each order to it and each answer is one message of a
//! socket pair. An upgrade hands the gateway's end over.
//!
//! The kernel removes an address that was not renewed for [`VALID_FOR`], so an owner that is stopped, or killed together
//! with its holder, loses it although its host lives. If only the gateway ends, its end of the socket pair closes and the
//! holder removes the addresses at once.

mod announce;
mod holder;
mod hook;
mod netlink;
mod router;

use std::fmt::{self, Display, Formatter};
use std::future::pending;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_config::{AddressPlace, MovingAddress};
use evenkeel_control::{Inherited, SocketName};
use evenkeel_dataplane::SendLease;
pub use holder::hold_addresses;
use hook::AddressHook;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The subcommand that calls [`hold_addresses`].
const VERB: &str = "hold-addresses";

/// Lifetime of an address that is not renewed. The kernel counts whole seconds.
const VALID_FOR: Duration = Duration::from_secs(2);

/// Time for the holder to start, on a machine that is busy.
const STARTED_WITHIN: Duration = Duration::from_secs(5);

/// Time for an answer of the holder. The kernel changes one address at a time, in all namespaces.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// Interval of renewals; an address that is not renewed disappears after 2 s.
const RENEWED_EVERY: Duration = Duration::from_millis(500);

/// Time for which a standby keeps addresses that it has announced before it owns them; less than [`VALID_FOR`].
const AHEAD_FOR: Duration = Duration::from_secs(1);

/// Interval of attempts after a failure.
const RETRIED_EVERY: Duration = Duration::from_millis(50);

/// Length of a message in bytes: longer failures are cut.
const MESSAGE_MAX: usize = 4 << 10;

/// Addresses could not be held.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The holder could not execute the order, for this reason.
    #[error("group addresses: {0}")]
    Refused(String),
    /// Another host uses the address.
    #[error("group address {0}")]
    Conflict(String),
    /// Their holder was not asked to renew them.
    #[error("group addresses were not renewed for 2 s and are gone; take them again")]
    Lapsed,
    /// The holder's process ended.
    #[error("group addresses: `evenkeel hold-addresses` has ended; restart the gateway")]
    Ended,
    /// The holder did not answer in time.
    #[error("group addresses: `evenkeel hold-addresses` has not answered within 1 s")]
    Late,
    /// An upgrade would change them.
    #[error("group addresses differ from those of the running gateway; restart it")]
    Changed,
    /// This program cannot be started as the holder.
    #[error("group addresses at an interface need the program `evenkeel`")]
    NoProgram,
    /// The holder was not started.
    #[error("group addresses: cannot start `{program} hold-addresses`: {error}")]
    Start {
        program: String,
        /// The error of the system.
        error: io::Error,
    },
}

/// An address and the interface to which the holder adds it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct LocalAddress {
    address: IpAddr,
    prefix: u8,
    interface: String,
}

impl Display for LocalAddress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.address, self.prefix, self.interface)
    }
}

impl FromStr for LocalAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<LocalAddress, String> {
        let parse = || {
            let (network, interface) = text.split_once('@')?;
            let (address, prefix) = network.split_once('/')?;
            let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
            Some(LocalAddress { address, prefix, interface: interface.to_owned() })
        };
        parse().ok_or_else(|| format!("found {text:?}, expected 192.0.2.10/24@eth0"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AddressOrder {
    Hold,
    /// Keeps the addresses for another [`VALID_FOR`]; twice a second while the lease is held. Adds none that is
    /// [gone](AddressError::Lapsed): until a lease is held again, another member may have it. A
    /// [conflict](AddressError::Conflict) is found twice a minute; the addresses are renewed nevertheless.
    Renew,
    /// Drops packets that the kernel has not sent yet because no neighbour answers: another member may have taken over.
    DropWaiting,
    Release,
    /// Asks whether a default router answers at an interface of the addresses. The next order ends the wait.
    AskRouter,
}

impl AddressOrder {
    const ALL: [Self; 5] =
        [Self::Hold, Self::Renew, Self::DropWaiting, Self::Release, Self::AskRouter];

    fn word(self) -> &'static str {
        match self {
            AddressOrder::Hold => "hold",
            AddressOrder::Renew => "renew",
            AddressOrder::DropWaiting => "drop-waiting",
            AddressOrder::Release => "release",
            AddressOrder::AskRouter => "ask-router",
        }
    }
}

/// A message is a number and words. An answer has the number of its order.
fn message(number: u64, words: &dyn Display) -> Vec<u8> {
    let mut message = format!("{number} {words}").into_bytes();
    message.truncate(MESSAGE_MAX);
    message
}

fn read_message(message: &[u8]) -> Option<(u64, String)> {
    let text = String::from_utf8_lossy(message);
    let (number, words) = text.split_once(' ')?;
    Some((number.parse().ok()?, words.to_owned()))
}

/// The words of an answer.
fn answer(outcome: &Result<(), AddressError>) -> String {
    match outcome {
        Ok(()) => "done".to_owned(),
        Err(AddressError::Lapsed) => "lapsed".to_owned(),
        Err(AddressError::Conflict(found)) => format!("conflict: {found}"),
        Err(AddressError::Refused(reason)) => format!("failed: {reason}"),
        Err(other) => format!("failed: {other}"),
    }
}

fn read_answer(words: &str) -> Result<(), AddressError> {
    Err(match words.split_once(": ") {
        None if words == "done" => return Ok(()),
        None if words == "lapsed" => AddressError::Lapsed,
        Some(("conflict", found)) => AddressError::Conflict(found.to_owned()),
        Some(("failed", reason)) => AddressError::Refused(reason.to_owned()),
        _ => AddressError::Refused(words.to_owned()),
    })
}

/// The addresses of a group. Dropped without [`release`](Addresses::release), it leaves those at interfaces to a process
/// that [inherits](Addresses::inherit) them; without one they are removed.
#[derive(Debug)]
pub(crate) struct Addresses {
    holder: Option<HolderProcess>,
    hooks: Vec<AddressHook>,
}

impl Addresses {
    /// Starts the holder, with the capabilities of this process. Adds no address. Waits for the holder.
    pub(crate) fn start(
        addresses: &[MovingAddress],
        program: Option<&Path>,
    ) -> Result<Addresses, AddressError> {
        let local = local(addresses);
        let start = || HolderProcess::start(&local, program.ok_or(AddressError::NoProgram)?);
        let holder = (!local.is_empty()).then(start).transpose()?;
        Ok(Addresses { holder, hooks: hooks(addresses) })
    }

    /// Takes the addresses of the process that this one replaces.
    pub(crate) fn inherit(
        addresses: &[MovingAddress],
        inherited: &mut Inherited,
    ) -> Result<Addresses, AddressError> {
        let local = local(addresses);
        let holder = if local.is_empty() {
            None
        } else {
            let stream = inherited.take(&name(&local)).ok_or(AddressError::Changed)?;
            Some(HolderProcess::over(&local, stream.into()))
        };
        Ok(Addresses { holder, hooks: hooks(addresses) })
    }

    /// A descriptor for the process that replaces this one.
    pub(crate) fn duplicate(&self) -> io::Result<Option<(SocketName, OwnedFd)>> {
        let Some(HolderProcess { name, stream, .. }) = &self.holder else { return Ok(None) };
        Ok(Some((name.clone(), stream.as_fd().try_clone_to_owned()?)))
    }

    /// Adds the addresses to their interfaces and announces them, at once and for 5 s. They have to be
    /// [renewed](AddressOrder::Renew) from then on. Hooks are called, until they succeed, but not waited for.
    ///
    /// Returns the failures of all addresses; the others are held.
    pub(crate) async fn hold(&mut self) -> Result<(), AddressError> {
        self.hooks.iter_mut().for_each(AddressHook::acquire);
        self.order(AddressOrder::Hold).await
    }

    /// Removes the addresses, and drops packets as [`AddressOrder::DropWaiting`]. Hooks are called and waited for, unless
    /// they fail.
    pub(crate) async fn release(&mut self) -> Result<(), AddressError> {
        let released: Vec<_> = self.hooks.iter_mut().map(AddressHook::release).collect();
        let outcome = self.order(AddressOrder::Release).await;
        for hook in released {
            // Fails if the hook failed, which is logged.
            let _ = hook.await;
        }
        outcome
    }

    /// As [`hold`](Addresses::hold), at interfaces only: a hook would move the address away from its owner.
    async fn announce(&mut self) -> Result<(), AddressError> {
        self.order(AddressOrder::Hold).await
    }

    /// Removes addresses that were [announced](Addresses::announce).
    async fn withdraw(&mut self) -> Result<(), AddressError> {
        self.order(AddressOrder::Release).await
    }

    /// Returns an error unless a default router answers at an interface of the addresses.
    async fn ask_router(&mut self) -> Result<(), AddressError> {
        if self.holder.is_none() {
            let reason = "none is at an interface of this host";
            return Err(AddressError::Refused(reason.to_owned()));
        }
        self.order(AddressOrder::AskRouter).await
    }

    /// Returns once the holder has ended; never without one.
    async fn ended(&mut self) {
        match &mut self.holder {
            Some(holder) => holder.ended().await,
            None => pending().await,
        }
    }

    async fn order(&mut self, order: AddressOrder) -> Result<(), AddressError> {
        match &mut self.holder {
            Some(holder) => tokio::time::timeout(ANSWERED_WITHIN, holder.order(order))
                .await
                .unwrap_or(Err(AddressError::Late)),
            None => Ok(()),
        }
    }
}

fn local(addresses: &[MovingAddress]) -> Vec<LocalAddress> {
    let local = addresses.iter().filter_map(|address| match &address.place {
        AddressPlace::Interface(interface) => Some(LocalAddress {
            address: address.address,
            prefix: address.prefix,
            interface: interface.clone(),
        }),
        AddressPlace::Hook(_) => None,
    });
    local.collect()
}

fn hooks(addresses: &[MovingAddress]) -> Vec<AddressHook> {
    let hooks = addresses.iter().filter_map(|address| match &address.place {
        AddressPlace::Hook(words) => Some(AddressHook::new(words.clone(), address.address)),
        AddressPlace::Interface(_) => None,
    });
    hooks.collect()
}

fn name(addresses: &[LocalAddress]) -> SocketName {
    SocketName::Addresses { addresses: addresses.iter().map(ToString::to_string).collect() }
}

/// The process that adds and removes addresses.
#[derive(Debug)]
struct HolderProcess {
    name: SocketName,
    stream: net::UnixStream,
    /// The stream in the event loop that gave the first order.
    registered: Option<UnixStream>,
    /// Number of the last order. The answer to an order of a replaced process must not pass for another's.
    number: u64,
}

impl HolderProcess {
    fn start(addresses: &[LocalAddress], program: &Path) -> Result<HolderProcess, AddressError> {
        let failed = |error| AddressError::Start { program: program.display().to_string(), error };
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).map_err(failed)?;
        let mut command = Command::new(program);
        command.arg(VERB).args(addresses.iter().map(ToString::to_string));
        // A reader of the gateway's output would wait for this process too.
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        command.spawn().map_err(failed)?;
        // It has the only other end of the pair, which closes if it ends.
        drop(command);
        ours.set_read_timeout(Some(STARTED_WITHIN)).map_err(failed)?;
        let mut stream = net::UnixStream::from(OwnedFd::from(ours));
        let mut answer = [0; MESSAGE_MAX];
        let length = stream.read(&mut answer).map_err(failed)?;
        let (_, words) = read_message(&answer[..length]).ok_or(AddressError::Ended)?;
        read_answer(&words)?;
        Ok(HolderProcess::over(addresses, stream))
    }

    fn over(addresses: &[LocalAddress], stream: net::UnixStream) -> HolderProcess {
        HolderProcess {
            name: name(addresses),
            stream,
            registered: None,
            number: fastrand::u64(..u64::from(u32::MAX)),
        }
    }

    async fn order(&mut self, order: AddressOrder) -> Result<(), AddressError> {
        self.number += 1;
        let number = self.number;
        let stream = self.registered().map_err(|_| AddressError::Ended)?;
        let order = message(number, &order.word());
        stream.write_all(&order).await.map_err(|_| AddressError::Ended)?;
        loop {
            let mut answer = [0; MESSAGE_MAX];
            let length = stream.read(&mut answer).await.map_err(|_| AddressError::Ended)?;
            if length == 0 {
                return Err(AddressError::Ended);
            }
            match read_message(&answer[..length]) {
                Some((answered, words)) if answered == number => return read_answer(&words),
                // To an order whose answer was late.
                Some(_) | None => {}
            }
        }
    }

    /// Returns once the process has ended. It sends nothing but answers, of which one may be late.
    async fn ended(&mut self) {
        let Ok(stream) = self.registered() else { return };
        let mut answer = [0; MESSAGE_MAX];
        while stream.read(&mut answer).await.is_ok_and(|length| length > 0) {}
    }

    fn registered(&mut self) -> io::Result<&mut UnixStream> {
        let stream = match self.registered.take() {
            Some(stream) => stream,
            None => {
                let stream = self.stream.try_clone()?;
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream)?
            }
        };
        Ok(self.registered.insert(stream))
    }
}

/// Keeps the group's addresses while this member owns them. The kernel and hooks may be slow, and the beats do not wait.
#[derive(Debug)]
pub(super) struct AddressKeeper {
    orders: watch::Sender<OrderCounts>,
    router_check: RouterCheck,
    signs: mpsc::Receiver<KeeperSign>,
    /// The member knows that the holder has ended.
    has_ended: bool,
    task: JoinHandle<()>,
}

/// The orders that a keeper was given.
#[derive(Clone, Copy, Default, Debug)]
struct OrderCounts {
    announce: u64,
    hold: u64,
    drop_waiting: u64,
}

/// An event of the addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeeperSign {
    /// A member that does not own them has announced them.
    Announced,
    /// The holder has ended. The kernel removes the addresses within [`VALID_FOR`].
    Ended,
}

/// More than the signs between two reads: one of an announcement comes per hand-over, that of the holder's end once.
const SIGNS_MAX: usize = 4;

impl AddressKeeper {
    /// Starts in the event loop of the caller.
    pub(super) fn start(addresses: Addresses, lease: Arc<SendLease>) -> AddressKeeper {
        let (orders, ordered) = watch::channel(OrderCounts::default());
        let (signs_in, signs) = mpsc::channel(SIGNS_MAX);
        let (asked, questions) = mpsc::channel(1);
        let keeping = async move {
            let member = signs_in.clone();
            let mut keeping = Keeping { addresses, lease, signs: signs_in, failure: None };
            if keeping.run(ordered, questions).await.is_err() {
                // Fails only if the member ends.
                let _ = member.send(KeeperSign::Ended).await;
                member.closed().await;
                // Hooks need no holder, whose end is known.
                let _ = keeping.addresses.release().await;
            }
        };
        let task = tokio::spawn(keeping);
        AddressKeeper { orders, router_check: RouterCheck(asked), signs, has_ended: false, task }
    }

    pub(super) fn router_check(&self) -> &RouterCheck {
        &self.router_check
    }

    /// Adds and announces the addresses, again if they are held.
    pub(super) fn hold(&self) {
        self.orders.send_modify(|orders| orders.hold += 1);
    }

    /// Adds and announces the addresses at interfaces, of which this member becomes the owner soon: packets wait at its sockets
    /// meanwhile. They are removed unless it [holds](AddressKeeper::hold) them within [`AHEAD_FOR`].
    pub(super) fn announce(&self) {
        self.orders.send_modify(|orders| orders.announce += 1);
    }

    /// The number of orders to hold the addresses.
    #[cfg(test)]
    pub(super) fn holds(&self) -> u64 {
        self.orders.borrow().hold
    }

    /// Drops what the kernel has not sent: the lease has ended.
    pub(super) fn drop_waiting(&self) {
        self.orders.send_modify(|orders| orders.drop_waiting += 1);
    }

    /// The next sign. May be cancelled without a loss.
    pub(super) async fn sign(&mut self) -> KeeperSign {
        let Some(sign) = self.signs.recv().await else { return pending().await };
        self.has_ended |= sign == KeeperSign::Ended;
        sign
    }

    /// [`AddressKeeper::sign`] has returned [`KeeperSign::Ended`].
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Removes the addresses, and returns once they are gone.
    pub(super) async fn release(self) {
        drop((self.orders, self.router_check, self.signs));
        // The task removes them at its end. A panic is reported, and the kernel removes what is not renewed.
        let _ = self.task.await;
    }
}

type RouterQuestion = oneshot::Sender<Result<(), AddressError>>;

/// Asks whether the default router answers this host, of a member that does not own the addresses.
#[derive(Clone, Debug)]
pub(super) struct RouterCheck(mpsc::Sender<RouterQuestion>);

impl RouterCheck {
    /// Returns an error unless it answers.
    pub(super) async fn ask(&self) -> Result<(), String> {
        let (reply, answered) = oneshot::channel();
        let unanswered = || "this gateway owns the group's addresses, or ends".to_owned();
        self.0.send(reply).await.map_err(|_| unanswered())?;
        answered.await.map_err(|_| unanswered())?.map_err(|error| error.to_string())
    }
}

/// The holder has ended.
struct HolderEnded;

struct Keeping {
    addresses: Addresses,
    lease: Arc<SendLease>,
    signs: mpsc::Sender<KeeperSign>,
    /// The failure that was logged last, while it lasts.
    failure: Option<String>,
}

impl Keeping {
    /// Returns once the member has lost its ownership and the addresses are gone.
    async fn run(
        &mut self,
        mut orders: watch::Receiver<OrderCounts>,
        questions: mpsc::Receiver<RouterQuestion>,
    ) -> Result<(), HolderEnded> {
        if !self.stand_by(&mut orders, questions).await? {
            return Ok(());
        }
        let mut seen = *orders.borrow_and_update();
        let mut held = self.hold().await?;
        loop {
            let due = Instant::now() + if held { RENEWED_EVERY } else { RETRIED_EVERY };
            // The end of the sender ends this: a member that lost its ownership ends.
            let lost = loop {
                let changed = tokio::select! {
                    changed = tokio::time::timeout_at(due, orders.changed()) => changed,
                    () = self.addresses.ended() => return Err(HolderEnded),
                };
                match changed {
                    Ok(Ok(())) => {
                        let before = std::mem::replace(&mut seen, *orders.borrow_and_update());
                        if seen.drop_waiting > before.drop_waiting {
                            let dropped = self.addresses.order(AddressOrder::DropWaiting).await;
                            self.note(dropped)?;
                        }
                        if seen.hold > before.hold {
                            held = false;
                            break false;
                        }
                    }
                    Ok(Err(_)) => break true,
                    Err(_) => break false,
                }
            };
            if lost {
                break;
            }
            // A process that was stopped may have been replaced.
            if !self.lease.is_held(std::time::Instant::now) {
                held = false;
                continue;
            }
            held = match held {
                true => {
                    let renewed = self.addresses.order(AddressOrder::Renew).await;
                    self.note(renewed)?
                }
                false => self.hold().await?,
            };
        }
        let released = self.addresses.release().await;
        self.note(released).map(drop)
    }

    /// Returns true once this member is to hold the addresses, and false once it has ended.
    async fn stand_by(
        &mut self,
        orders: &mut watch::Receiver<OrderCounts>,
        mut questions: mpsc::Receiver<RouterQuestion>,
    ) -> Result<bool, HolderEnded> {
        let mut question: Option<RouterQuestion> = None;
        let (mut seen, mut ahead_until) = (OrderCounts::default(), None);
        loop {
            let addresses = &mut self.addresses;
            let attended = async {
                if question.is_some() {
                    return addresses.ask_router().await;
                }
                addresses.ended().await;
                Err(AddressError::Ended)
            };
            let answered = tokio::select! {
                biased;
                changed = orders.changed() => {
                    let before = std::mem::replace(&mut seen, *orders.borrow_and_update());
                    if seen.hold > before.hold {
                        return Ok(true);
                    }
                    if changed.is_err() {
                        self.withdraw(ahead_until.take()).await?;
                        return Ok(false);
                    }
                    if seen.announce > before.announce {
                        ahead_until = Some(Instant::now() + AHEAD_FOR);
                        let announced = self.addresses.announce().await;
                        if self.note(announced)? {
                            // The member has not read the sign of seconds ago: it is not about to own.
                            let _ = self.signs.try_send(KeeperSign::Announced);
                        }
                    }
                    continue;
                }
                () = sleep_until(ahead_until) => {
                    self.withdraw(ahead_until.take()).await?;
                    continue;
                }
                answered = attended => answered,
                Some(asked) = questions.recv(), if question.is_none() => {
                    question = Some(asked);
                    continue;
                }
            };
            let has_ended = matches!(answered, Err(AddressError::Ended));
            // Fails only for a fence that has ended.
            if let Some(question) = question.take() {
                let _ = question.send(answered);
            }
            if has_ended {
                return Err(HolderEnded);
            }
        }
    }

    /// Removes addresses that were announced, of which this member does not become the owner.
    async fn withdraw(&mut self, announced: Option<Instant>) -> Result<(), HolderEnded> {
        if announced.is_none() {
            return Ok(());
        }
        let withdrawn = self.addresses.withdraw().await;
        self.note(withdrawn).map(drop)
    }

    async fn hold(&mut self) -> Result<bool, HolderEnded> {
        let held = self.addresses.hold().await;
        self.note(held)
    }

    /// Logs a failure once, and returns whether the addresses are held.
    fn note(&mut self, outcome: Result<(), AddressError>) -> Result<bool, HolderEnded> {
        let Err(failure) = outcome else {
            if self.failure.take().is_some() {
                tracing::info!("group addresses are held again");
            }
            return Ok(true);
        };
        let text = failure.to_string();
        if self.failure.as_ref() != Some(&text) {
            tracing::error!("{text}");
            self.failure = Some(text);
        }
        match failure {
            AddressError::Ended => Err(HolderEnded),
            AddressError::Conflict(_) => Ok(true),
            _ => Ok(false),
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
