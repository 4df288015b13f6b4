//! The socket of beats, the signed datagrams by which the members hear each other.
//!
//! ```text
//! 0xE4 | version u8 | 2 zero bytes | key id | time u64 | HMAC-SHA256 | payload
//! ```
//!
//! The time is in microseconds since the Unix epoch, and grows with each beat. The HMAC covers all other bytes; its key
//! depends on the secret, the sender and the recipient, so that a beat to another member, or one that is returned to
//! its sender, is forged. It stands before the payload, because ICMP may quote only the start of a datagram.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use evenkeel_config::GroupSettings;
use evenkeel_dataplane::mmsg;
use evenkeel_drivers::socket as probe_socket;
use evenkeel_drivers::socket::Received;
use evenkeel_ownership::PeerId;
use nix::sys::socket::{setsockopt, sockopt};
use ring::hmac;
use socket2::SockRef;

use super::keys::{BeatKeyId, GroupKeys};
use super::refusals::RefusalLog;
use super::votes::now_us;

const MARK: u8 = 0xE4;
const VERSION: u8 = 1;
const HEAD_LEN: usize = 16;
const MAC_LEN: usize = 32;

/// Longest payload. With its head a beat fits any path.
pub(crate) const PAYLOAD_MAX: usize = 256;

/// Largest accepted difference between a beat's time and this clock.
const SKEW_MAX_US: u64 = 5_000_000;

/// Datagrams that are read before other inputs have a turn: forged ones may come as fast as they are read.
const READ_PER_TURN: usize = 32;

/// Beats that an ICMP error may quote: those of the last second.
const QUOTABLE_MAX: usize = 256;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BeatInput {
    /// The payload of a member's beat.
    Beat(PeerId, Vec<u8>),
    /// The host of the member says that no process has its port. Each beat is quoted at most once.
    Closed(PeerId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BeatRefusal {
    #[error("a datagram that is no beat")]
    Malformed,
    #[error("version {0} of beats, this gateway has version {here}", here = VERSION)]
    Version(u8),
    #[error("a beat with another secret")]
    Secret,
    #[error("a beat with a wrong signature")]
    Forged,
    #[error("a beat whose time is {} ms ahead of this clock", .ahead_us / 1_000)]
    Clock { ahead_us: i64 },
    #[error("a beat that was heard before, or is older than one, or than this process")]
    Replayed,
}

impl BeatRefusal {
    pub(super) fn reason(self) -> &'static str {
        match self {
            BeatRefusal::Malformed => "malformed",
            BeatRefusal::Version(_) => "version",
            BeatRefusal::Secret => "secret",
            BeatRefusal::Forged => "forged",
            BeatRefusal::Clock { .. } => "clock",
            BeatRefusal::Replayed => "replayed",
        }
    }
}

pub(crate) struct Beats {
    socket: tokio::net::UdpSocket,
    /// The only other member's, until the socket is connected: there may be no route yet. Of more than one, the kernel cannot
    /// tell strangers apart.
    unconnected: Option<SocketAddr>,
    members: Vec<BeatMember>,
    /// Hosts of these members refused beats, which is not reported yet.
    refused: Vec<PeerId>,
    refusals: RefusalLog,
    /// Datagrams read in this turn.
    read: usize,
}

impl Beats {
    /// Opens the socket. Needs no event loop.
    pub(crate) fn bind(settings: &GroupSettings) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(settings.listen)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        mmsg::keep_errors(socket.as_fd(), mmsg::Family::of(settings.listen))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Must be called in an event loop.
    pub(crate) fn start(
        socket: UdpSocket,
        settings: &GroupSettings,
        refusals: RefusalLog,
    ) -> io::Result<Beats> {
        Ok(Beats {
            socket: tokio::net::UdpSocket::from_std(socket)?,
            unconnected: match &settings.peers[..] {
                [peer] => Some(peer.address),
                _ => None,
            },
            members: settings
                .peers
                .iter()
                .map(|peer| BeatMember {
                    address: peer.address,
                    signed: BeatSigner::new(settings, &peer.name, now_us()),
                })
                .collect(),
            refused: Vec::new(),
            refusals,
            read: 0,
        })
    }

    /// Signs by the first secret of these settings, and accepts theirs alone.
    pub(crate) fn replace_secrets(&mut self, settings: &GroupSettings) {
        for (member, peer) in self.members.iter_mut().zip(&settings.peers) {
            member.signed.replace_secrets(settings, &peer.name);
        }
    }

    /// A beat that cannot be sent is lost.
    pub(crate) fn send(&mut self, to: PeerId, payload: &[u8]) {
        // Not by the event loop, which does not know at first that the socket takes a datagram.
        let socket = SockRef::from(&self.socket);
        if let Some(peer) = self.unconnected
            && socket.connect(&peer.into()).is_ok()
        {
            self.unconnected = None;
        }
        if self.unconnected.is_none() {
            let is_alone = self.members.len() == 1;
            let BeatMember { address, signed } = &mut self.members[to.0];
            let (datagram, address) = (signed.write(payload, now_us()), (*address).into());
            let send = || match is_alone {
                true => socket.send(datagram),
                false => socket.send_to(datagram, &address),
            };
            // The kernel may return the error of an earlier beat instead of sending.
            let _lost_at_worst = send().or_else(|_| send());
        }
    }

    /// May be cancelled without a loss.
    pub(crate) async fn recv(&mut self) -> BeatInput {
        let mut buffer = [0; HEAD_LEN + MAC_LEN + PAYLOAD_MAX + 1];
        loop {
            if let Some(member) = self.refused.pop() {
                return BeatInput::Closed(member);
            }
            if self.read == READ_PER_TURN {
                self.read = 0;
                tokio::task::yield_now().await;
            }
            let received = probe_socket::receive(&self.socket, &mut buffer).await;
            self.read += 1;
            match received {
                Ok(Received::Datagram(length, _)) => match self.read_beat(&buffer[..length]) {
                    Ok((from, payload)) => return BeatInput::Beat(from, payload.to_vec()),
                    Err(refused) if self.refusals.count(refused.reason()) => {
                        tracing::warn!("refused from another gateway of the group: {refused}");
                    }
                    Err(_) => {}
                },
                Ok(Received::Refused(quotes)) => {
                    self.note_refused(&quotes);
                }
                // Another error of the network; beats that are not heard say more.
                Err(_) => {}
            }
        }
    }
}

impl Beats {
    /// Returns the signer of the beat, and the payload.
    fn read_beat<'a>(&mut self, datagram: &'a [u8]) -> Result<(PeerId, &'a [u8]), BeatRefusal> {
        let mut refused = BeatRefusal::Malformed;
        for (at, member) in self.members.iter_mut().enumerate() {
            match member.signed.read(datagram, now_us()) {
                Ok(payload) => return Ok((PeerId(at), payload)),
                // Another one may have signed it.
                Err(BeatRefusal::Forged) => refused = BeatRefusal::Forged,
                Err(refused) => return Err(refused),
            }
        }
        Err(refused)
    }

    /// Notes the members to which these beats went.
    fn note_refused(&mut self, quotes: &[Box<[u8]>]) {
        for (at, member) in self.members.iter_mut().enumerate() {
            let sent = quotes.iter().filter(|quoted| member.signed.was_sent(quoted)).count();
            self.refused.extend((sent > 0).then_some(PeerId(at)));
        }
    }
}

struct BeatMember {
    address: SocketAddr,
    signed: BeatSigner,
}

type IdentifiedKey = (BeatKeyId, hmac::Key);

struct BeatSigner {
    /// Signs with the first secret.
    out: IdentifiedKey,
    /// Of each secret.
    accepted: Vec<IdentifiedKey>,
    /// Time of the last beat sent.
    last_us: u64,
    /// Time of the newest beat read.
    newest_us: u64,
    /// Signatures of the last beats sent.
    quotable: VecDeque<[u8; MAC_LEN]>,
    datagram: Vec<u8>,
}

impl BeatSigner {
    /// Accepts beats from this time on: a process that starts has no memory of earlier ones.
    fn new(settings: &GroupSettings, peer: &str, started_us: u64) -> BeatSigner {
        let (out, accepted) = BeatSigner::keys(settings, peer);
        BeatSigner {
            out,
            accepted,
            last_us: 0,
            newest_us: started_us,
            quotable: VecDeque::with_capacity(QUOTABLE_MAX),
            datagram: Vec::with_capacity(HEAD_LEN + MAC_LEN + PAYLOAD_MAX),
        }
    }

    fn replace_secrets(&mut self, settings: &GroupSettings, peer: &str) {
        (self.out, self.accepted) = BeatSigner::keys(settings, peer);
    }

    /// The key of beats to the peer, and those of beats from it.
    fn keys(settings: &GroupSettings, peer: &str) -> (IdentifiedKey, Vec<IdentifiedKey>) {
        let own = &settings.name;
        let keys: Vec<GroupKeys> = settings.secrets.iter().map(GroupKeys::of).collect();
        let first = keys.first().expect("a group has a secret");
        let accepted = keys.iter().map(|keys| (keys.id(), keys.beats(peer, own)));
        ((first.id(), first.beats(own, peer)), accepted.collect())
    }

    fn write(&mut self, payload: &[u8], now_us: u64) -> &[u8] {
        debug_assert!(payload.len() <= PAYLOAD_MAX, "{} bytes", payload.len());
        // The clock may be set back.
        self.last_us = now_us.max(self.last_us + 1);
        let (id, key) = &self.out;
        let mut head = [0; HEAD_LEN];
        head[..2].copy_from_slice(&[MARK, VERSION]);
        head[4..8].copy_from_slice(&id.0);
        head[8..].copy_from_slice(&self.last_us.to_be_bytes());
        let mac = mac(key, &head, payload);
        if self.quotable.len() == QUOTABLE_MAX {
            self.quotable.pop_front();
        }
        self.quotable.push_back(mac);
        self.datagram.clear();
        for part in [&head[..], &mac, payload] {
            self.datagram.extend_from_slice(part);
        }
        &self.datagram
    }

    fn read<'a>(&mut self, datagram: &'a [u8], now_us: u64) -> Result<&'a [u8], BeatRefusal> {
        let (head, rest) =
            datagram.split_first_chunk::<HEAD_LEN>().ok_or(BeatRefusal::Malformed)?;
        let (found, payload) = rest.split_first_chunk::<MAC_LEN>().ok_or(BeatRefusal::Malformed)?;
        let [MARK, version, 0, 0, a, b, c, d, time @ ..] = *head else {
            return Err(BeatRefusal::Malformed);
        };
        if version != VERSION {
            return Err(BeatRefusal::Version(version));
        }
        if payload.len() > PAYLOAD_MAX {
            return Err(BeatRefusal::Malformed);
        }
        let id = BeatKeyId([a, b, c, d]);
        let key = self.accepted.iter().find(|(known, _)| *known == id);
        let (_, key) = key.ok_or(BeatRefusal::Secret)?;
        let signed = [&head[..], payload].concat();
        hmac::verify(key, &signed, found).map_err(|_| BeatRefusal::Forged)?;
        let sent_us = u64::from_be_bytes(time);
        if sent_us.abs_diff(now_us) > SKEW_MAX_US {
            return Err(BeatRefusal::Clock {
                ahead_us: sent_us.wrapping_sub(now_us).cast_signed(),
            });
        }
        if sent_us <= self.newest_us {
            return Err(BeatRefusal::Replayed);
        }
        self.newest_us = sent_us;
        Ok(payload)
    }

    /// True once for each of the last beats. Any host can forge ICMP, but only one that saw the beat can quote it.
    fn was_sent(&mut self, quoted: &[u8]) -> bool {
        let mac = quoted.get(HEAD_LEN..HEAD_LEN + MAC_LEN);
        // Most errors are about the newest beats.
        let place = self.quotable.iter().rposition(|sent| Some(&sent[..]) == mac);
        place.is_some_and(|place| self.quotable.remove(place).is_some())
    }
}

fn mac(key: &hmac::Key, head: &[u8], payload: &[u8]) -> [u8; MAC_LEN] {
    let mut context = hmac::Context::with_key(key);
    context.update(head);
    context.update(payload);
    context.sign().as_ref().try_into().expect("an HMAC-SHA256 has 32 bytes")
}

#[cfg(test)]
pub(super) mod tests;
