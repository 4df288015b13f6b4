//! Who may send: every address, flow identifier and ufrag that a session was promised, and the session's home.
//!
//! The one table that threads share. Packets only look things up; control puts them in and takes them out.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry;

/// So long after a check, nobody else's check takes an address away: a client checks every five seconds, give or take
/// one (RFC 7675, 5.1), and who could forge its address must not get its packets.
pub const CHECKED_FOR: Duration = Duration::from_secs(6);

/// Where a session lives: a slot of its home worker.
///
/// A slot is used again when its session is gone; the generation then is another, so that nothing meant for the old
/// session reaches the new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Home {
    /// The worker that owns the session for life.
    pub worker: u16,
    /// Its place there.
    pub slot: u32,
    /// Which session of that place.
    pub generation: u32,
}

/// The first half of a STUN username on our side (RFC 8445, 5.3), up to 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ufrag {
    length: u8,
    bytes: [u8; Ufrag::LENGTH_MAX],
}

impl Ufrag {
    /// We make them ourselves, so none is longer; one that is belongs to nobody.
    pub const LENGTH_MAX: usize = 16;

    /// The ufrag with these bytes. `None` if there are more than 16.
    pub fn new(ufrag: &[u8]) -> Option<Ufrag> {
        let mut bytes = [0; Ufrag::LENGTH_MAX];
        bytes.get_mut(..ufrag.len())?.copy_from_slice(ufrag);
        Some(Ufrag { length: ufrag.len() as u8, bytes })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ufrag({})", self.as_bytes().escape_ascii())
    }
}

/// What a packet shows to be let in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    /// Its source address at a UDP listener.
    Udp {
        /// The listener, by its place in the configuration.
        listener: u8,
        /// The packet's source.
        address: SocketAddr,
    },
    /// Its RoQ flow identifier, at any QUIC listener.
    Roq(u64),
    /// Its source at a UDP listener, where the port is yet to be learned.
    DeclaredIp {
        /// The listener, by its place in the configuration.
        listener: u8,
        /// The packet's source without its port.
        ip: IpAddr,
    },
    /// The ufrag of its STUN username; it must prove the entry's password too.
    Ufrag(Ufrag),
}

/// Whom a [`Key`] belongs to.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The session's home.
    pub home: Home,
    /// What STUN's MESSAGE-INTEGRITY must be made with; for a ufrag only.
    pub password: Option<Arc<[u8]>>,
    /// When the last check that holds came from there; for an address that was learned by checks only.
    pub checked: Option<Instant>,
}

impl Entry {
    /// An entry that needs no password.
    pub fn of(home: Home) -> Entry {
        Entry { home, password: None, checked: None }
    }
}

/// Without the password, so that it never reaches a log.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("home", &self.home).finish_non_exhaustive()
    }
}

/// A key in as many bytes as it needs: there is one of each session, and more room in the table than keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Packed {
    kind: u8,
    listener: u8,
    port: u16,
    /// Of an address that is of one link only (RFC 4007); else 0.
    scope: u32,
    bytes: [u8; 16],
}

impl Packed {
    fn of(key: &Key) -> Packed {
        let packed = |kind, bytes| Packed { kind, listener: 0, port: 0, scope: 0, bytes };
        let ip = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => packed(0, v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => packed(1, v6.octets()),
        };
        match *key {
            Key::Udp { listener, address } => {
                let scope = match address {
                    SocketAddr::V4(_) => 0,
                    SocketAddr::V6(v6) => v6.scope_id(),
                };
                Packed { listener, port: address.port(), scope, ..ip(address.ip()) }
            }
            Key::DeclaredIp { listener, ip: of } => {
                let ip = ip(of);
                Packed { kind: ip.kind + 2, listener, ..ip }
            }
            Key::Roq(flow) => packed(4, u128::from(flow).to_be_bytes()),
            Key::Ufrag(Ufrag { length, bytes }) => Packed { listener: length, ..packed(5, bytes) },
        }
    }
}

/// An entry as it is kept: most have no more than the home.
struct Kept {
    home: Home,
    more: Option<Box<More>>,
}

#[derive(Clone, Default)]
struct More {
    password: Option<Arc<[u8]>>,
    checked: Option<Instant>,
}

impl From<Entry> for Kept {
    fn from(Entry { home, password, checked }: Entry) -> Kept {
        let has_more = password.is_some() || checked.is_some();
        let more = has_more.then(|| Box::new(More { password, checked }));
        Kept { home, more }
    }
}

impl From<&Kept> for Entry {
    fn from(kept: &Kept) -> Entry {
        let More { password, checked } = kept.more.as_deref().cloned().unwrap_or_default();
        Entry { home: kept.home, password, checked }
    }
}

/// Why a key was not put in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It belongs to a session already; that one's home.
    Taken(Home),
    /// The table holds as much as it may; this much.
    Full(usize),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Taken(_) => f.write_str("another session has it"),
            Refused::Full(entries) => write!(f, "the table is full with {entries} entries"),
        }
    }
}

impl std::error::Error for Refused {}

/// How many keys of each kind there are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// [`Key::Udp`].
    pub udp: usize,
    /// [`Key::Roq`].
    pub roq: usize,
    /// [`Key::DeclaredIp`].
    pub declared_ip: usize,
    /// [`Key::Ufrag`].
    pub ufrag: usize,
}

impl Counts {
    /// All of them.
    pub fn sum(&self) -> usize {
        self.udp + self.roq + self.declared_ip + self.ufrag
    }
}

/// The table of who may send. Shared by all threads; a look-up takes one shard's lock for reading.
pub struct Flows {
    entries: DashMap<Packed, Kept>,
    entries_max: usize,
    counts: [AtomicUsize; 4],
}

impl Flows {
    /// A table of at most so many entries.
    pub fn new(entries_max: usize) -> Flows {
        Flows { entries: DashMap::new(), entries_max, counts: Default::default() }
    }

    /// Lets whoever shows this key send for the entry's session. A session may have several keys; putting the same
    /// one in twice for one session renews its entry.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the table is as it was.
    pub fn insert(&self, key: Key, entry: Entry) -> Result<(), Refused> {
        // Read before the shard is locked. Racing threads may overfill the table by one entry each; it stays bounded.
        let count = self.count(&key);
        let held = self.counts().sum();
        match self.entries.entry(Packed::of(&key)) {
            entry::Entry::Occupied(mut standing) => {
                if standing.get().home != entry.home {
                    return Err(Refused::Taken(standing.get().home));
                }
                standing.insert(entry.into());
            }
            entry::Entry::Vacant(_) if held >= self.entries_max => {
                return Err(Refused::Full(self.entries_max));
            }
            entry::Entry::Vacant(vacant) => {
                count.fetch_add(1, Ordering::Relaxed);
                vacant.insert(entry.into());
            }
        }
        Ok(())
    }

    /// A connectivity check that holds came from this source: it belongs to the session from now on. Another session
    /// that learned it so gives way once it has gone without a check for [`CHECKED_FOR`]: its client is gone, and came
    /// again as this one. That session's home, if one gave way.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the table is as it was.
    pub fn check(&self, key: Key, home: Home, now: Instant) -> Result<Option<Home>, Refused> {
        let entry = Entry { checked: Some(now), ..Entry::of(home) };
        if let Some(mut standing) = self.entries.get_mut(&Packed::of(&key)) {
            let Entry { home: before, checked, .. } = Entry::from(&*standing);
            let silent = |at: Instant| now.saturating_duration_since(at) >= CHECKED_FOR;
            return match checked {
                _ if before == home => {
                    *standing = entry.into();
                    Ok(None)
                }
                Some(at) if silent(at) => {
                    *standing = entry.into();
                    Ok(Some(before))
                }
                Some(_) | None => Err(Refused::Taken(before)),
            };
        }
        self.insert(key, entry).map(|()| None)
    }

    /// Takes the key away from the session with this home; if another has it by now, nothing happens. Says whether
    /// something did.
    pub fn remove(&self, key: &Key, home: Home) -> bool {
        let removed =
            self.entries.remove_if(&Packed::of(key), |_, entry| entry.home == home).is_some();
        if removed {
            self.count(key).fetch_sub(1, Ordering::Relaxed);
        }
        removed
    }

    /// The home of the session that this key belongs to.
    pub fn home(&self, key: &Key) -> Option<Home> {
        self.entries.get(&Packed::of(key)).map(|kept| kept.home)
    }

    /// The whole entry of this key.
    pub fn entry(&self, key: &Key) -> Option<Entry> {
        self.entries.get(&Packed::of(key)).map(|kept| Entry::from(&*kept))
    }

    /// How many keys there are now.
    pub fn counts(&self) -> Counts {
        let [udp, roq, declared_ip, ufrag] =
            [0, 1, 2, 3].map(|kind: usize| self.counts[kind].load(Ordering::Relaxed));
        Counts { udp, roq, declared_ip, ufrag }
    }

    fn count(&self, key: &Key) -> &AtomicUsize {
        match key {
            Key::Udp { .. } => &self.counts[0],
            Key::Roq(_) => &self.counts[1],
            Key::DeclaredIp { .. } => &self.counts[2],
            Key::Ufrag(_) => &self.counts[3],
        }
    }
}

impl fmt::Debug for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flows").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Home = Home { worker: 1, slot: 7, generation: 1 };
    const NEXT: Home = Home { worker: 1, slot: 7, generation: 2 };

    #[test]
    fn only_the_key_that_was_promised_leads_home() {
        let flows = Flows::new(10);
        let address: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        flows.insert(Key::Udp { listener: 0, address }, Entry::of(FIRST)).unwrap();
        assert_eq!(flows.home(&Key::Udp { listener: 0, address }), Some(FIRST));
        let strangers = [
            Key::Udp { listener: 1, address },
            Key::Udp { listener: 0, address: "192.0.2.1:4001".parse().unwrap() },
            Key::DeclaredIp { listener: 0, ip: address.ip() },
            Key::Roq(0),
        ];
        for stranger in strangers {
            assert_eq!(flows.home(&stranger), None, "{stranger:?}");
        }
    }

    #[test]
    fn keys_that_differ_in_anything_are_others() {
        let udp =
            |listener, address: &str| Key::Udp { listener, address: address.parse().unwrap() };
        let ip = |listener, ip: &str| Key::DeclaredIp { listener, ip: ip.parse().unwrap() };
        let ufrag = |text: &[u8]| Key::Ufrag(Ufrag::new(text).unwrap());
        let keys = [
            udp(0, "192.0.2.1:4000"),
            udp(1, "192.0.2.1:4000"),
            udp(0, "192.0.2.2:4000"),
            udp(0, "192.0.2.1:4001"),
            udp(0, "192.0.2.1:0"),
            udp(0, "[::ffff:192.0.2.1]:4000"),
            udp(0, "[fe80::1%1]:4000"),
            udp(0, "[fe80::1%2]:4000"),
            ip(0, "192.0.2.1"),
            ip(1, "192.0.2.1"),
            ip(0, "::ffff:192.0.2.1"),
            Key::Roq(1),
            Key::Roq(u64::MAX),
            ufrag(b""),
            ufrag(b"\0"),
            ufrag(b"EsAw"),
        ];
        let flows = Flows::new(keys.len());
        let home = |slot: usize| Home { slot: slot as u32, ..FIRST };
        for (slot, key) in keys.iter().enumerate() {
            assert_eq!(flows.insert(*key, Entry::of(home(slot))), Ok(()), "{key:?}");
        }
        for (slot, key) in keys.iter().enumerate() {
            assert_eq!(flows.home(key), Some(home(slot)), "{key:?}");
        }
    }

    #[test]
    fn a_session_that_is_gone_cannot_take_the_key_of_its_successor() {
        let flows = Flows::new(10);
        let key = Key::Roq(77);
        flows.insert(key, Entry::of(FIRST)).unwrap();
        assert!(flows.remove(&key, FIRST));
        flows.insert(key, Entry::of(NEXT)).unwrap();
        assert!(!flows.remove(&key, FIRST));
        assert_eq!(flows.home(&key), Some(NEXT));
    }

    #[test]
    fn a_key_belongs_to_one_session_at_a_time() {
        let flows = Flows::new(10);
        let key = Key::DeclaredIp { listener: 0, ip: "192.0.2.1".parse().unwrap() };
        flows.insert(key, Entry::of(FIRST)).unwrap();
        assert_eq!(flows.insert(key, Entry::of(NEXT)), Err(Refused::Taken(FIRST)));
        assert_eq!(flows.insert(key, Entry::of(FIRST)), Ok(()));
        assert_eq!(flows.counts(), Counts { declared_ip: 1, ..Counts::default() });
    }

    #[test]
    fn the_table_is_bounded_and_room_comes_back() {
        let flows = Flows::new(2);
        flows.insert(Key::Roq(1), Entry::of(FIRST)).unwrap();
        flows.insert(Key::Roq(2), Entry::of(FIRST)).unwrap();
        assert_eq!(flows.insert(Key::Roq(3), Entry::of(FIRST)), Err(Refused::Full(2)));
        assert_eq!(flows.home(&Key::Roq(3)), None);
        assert_eq!(flows.insert(Key::Roq(2), Entry::of(FIRST)), Ok(()), "renewing needs no room");
        flows.remove(&Key::Roq(1), FIRST);
        assert_eq!(flows.insert(Key::Roq(3), Entry::of(FIRST)), Ok(()));
    }

    #[test]
    fn a_ufrag_leads_to_its_password_and_none_is_longer_than_ours() {
        let flows = Flows::new(2);
        let key = Key::Ufrag(Ufrag::new(b"EsAw").unwrap());
        let entry = Entry { password: Some(Arc::from(&b"secret"[..])), ..Entry::of(FIRST) };
        flows.insert(key, entry.clone()).unwrap();
        assert_eq!(flows.entry(&key), Some(entry.clone()));
        assert_eq!(flows.entry(&Key::Ufrag(Ufrag::new(b"EsAw\0").unwrap())), None);
        assert!(Ufrag::new(&[b'a'; 16]).is_some());
        assert!(Ufrag::new(&[b'a'; 17]).is_none());
        assert!(!format!("{entry:?}").contains("secret"));
    }

    #[test]
    fn an_address_is_taken_over_by_a_check_when_its_holder_went_silent_and_never_when_declared() {
        let (flows, now) = (Flows::new(10), Instant::now());
        let key = |port| {
            let address = SocketAddr::from(([192, 0, 2, 1], port));
            Key::Udp { listener: 0, address }
        };
        let after = |ms| now + Duration::from_millis(ms);
        assert_eq!(flows.check(key(1), FIRST, now), Ok(None));
        assert_eq!(flows.check(key(1), FIRST, after(5_000)), Ok(None), "it goes on checking");
        assert_eq!(flows.check(key(1), NEXT, after(10_999)), Err(Refused::Taken(FIRST)));
        assert_eq!(flows.check(key(1), NEXT, after(11_000)), Ok(Some(FIRST)));
        assert_eq!(flows.home(&key(1)), Some(NEXT));
        assert!(!flows.remove(&key(1), FIRST), "it is no longer its own");
        flows.insert(key(2), Entry::of(FIRST)).unwrap();
        assert_eq!(flows.check(key(2), NEXT, after(60_000)), Err(Refused::Taken(FIRST)));
        assert_eq!(flows.counts().udp, 2);
    }

    #[test]
    fn counts_follow_what_is_there() {
        let flows = Flows::new(10);
        let udp = Key::Udp { listener: 0, address: "[2001:db8::1]:9".parse().unwrap() };
        flows.insert(udp, Entry::of(FIRST)).unwrap();
        flows.insert(Key::Roq(5), Entry::of(FIRST)).unwrap();
        flows.insert(Key::Ufrag(Ufrag::new(b"u").unwrap()), Entry::of(FIRST)).unwrap();
        assert_eq!(flows.counts(), Counts { udp: 1, roq: 1, declared_ip: 0, ufrag: 1 });
        flows.remove(&udp, FIRST);
        flows.remove(&udp, FIRST);
        assert_eq!(flows.counts(), Counts { udp: 0, roq: 1, declared_ip: 0, ufrag: 1 });
    }
}
