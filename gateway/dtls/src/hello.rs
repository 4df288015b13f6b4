//! The ClientHello, read before a handshake has a state of the library: it decides the version, and whether there will be SRTP.

/// Handshake records (RFC 6347, section 4.1).
pub(crate) const HANDSHAKE: u8 = 22;

/// First bytes of the records that have a header of DTLS 1.2: ChangeCipherSpec, alert, handshake, application data.
const RECORD_TYPES: std::ops::RangeInclusive<u8> = 20..=23;

/// Type of the handshake message ClientHello.
pub(crate) const CLIENT_HELLO: u8 = 1;

/// Extension `use_srtp` (RFC 5764, section 4.1.1).
const USE_SRTP: u16 = 14;

/// Extension `supported_versions` (RFC 8446, section 4.2.1).
const SUPPORTED_VERSIONS: u16 = 43;

const DTLS_1_2: u16 = 0xfefd;
const DTLS_1_3: u16 = 0xfefc;

/// SRTP profiles of the library (RFC 5764, section 4.1.2; RFC 7714, section 14.2).
const SRTP_PROFILES: [u16; 3] = [0x0001, 0x0007, 0x0008];

/// Version of a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    Dtls12,
    Dtls13,
}

/// The offer of SRTP profiles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SrtpOffer {
    None,
    Unsupported,
    Supported,
}

/// A fragment of a ClientHello (RFC 6347, section 4.2.3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    /// 0 for the first ClientHello of a handshake, 1 for one after a HelloRetryRequest.
    pub(crate) message_seq: u16,
    /// Bytes of the whole message.
    pub(crate) length: usize,
    pub(crate) offset: usize,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// The random of the client, if the fragment has it. It is the same in each retransmission.
    pub(crate) fn random(&self) -> Option<[u8; 32]> {
        let random = self.bytes.get(2..)?.first_chunk();
        random.filter(|_| self.offset == 0).copied()
    }

    pub(crate) fn is_within_message(&self) -> bool {
        self.offset + self.bytes.len() <= self.length
    }

    /// Reads the fragments of ClientHellos in a datagram, up to the first byte that cannot be parsed.
    pub(crate) fn all(datagram: &'a [u8]) -> Vec<Self> {
        let mut fragments = Vec::new();
        let mut records = Reader(datagram);
        while let Some((kind, mut messages)) = records.record() {
            while kind == Some(HANDSHAKE) && !messages.0.is_empty() {
                let Some((kind, fragment)) = messages.fragment() else { break };
                if kind == CLIENT_HELLO && fragment.is_within_message() {
                    fragments.push(fragment);
                }
            }
        }
        fragments
    }

    /// Returns whether the datagram begins with a record of a handshake: ChangeCipherSpec, a message, or an encrypted record of DTLS
    /// 1.3 (RFC 9147, section 4).
    pub(crate) fn has_handshake(datagram: &[u8]) -> bool {
        datagram.first().is_some_and(|first| matches!(first, 20 | 22 | 32..=63))
    }

    /// Joins the fragments of a message, in any order and overlapping. Returns `None` while one is absent.
    pub(crate) fn join(mut fragments: Vec<Self>) -> Option<Vec<u8>> {
        let length = fragments.first()?.length;
        fragments.retain(|fragment| fragment.length == length);
        fragments.sort_by_key(|fragment| fragment.offset);
        let mut message = Vec::new();
        for fragment in fragments {
            let known = message.len().checked_sub(fragment.offset)?;
            message.extend(fragment.bytes.iter().skip(known));
        }
        (message.len() == length).then_some(message)
    }

    /// Writes the first ClientHello of a handshake as one record.
    pub(crate) fn record(message: &[u8]) -> Vec<u8> {
        let [_, high, middle, low] = (message.len() as u32).to_be_bytes();
        let head = [CLIENT_HELLO, high, middle, low, 0, 0, 0, 0, 0, high, middle, low];
        let length = (head.len() + message.len()) as u16;
        let [version, length] = [DTLS_1_2, length].map(u16::to_be_bytes);
        [&[HANDSHAKE][..], &version, &[0; 8], &length, &head, message].concat()
    }
}

/// The parts of a ClientHello that concern this crate (RFC 6347, section 4.2.1).
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct ClientHello {
    /// `None` if the client offers neither DTLS 1.2 nor 1.3.
    pub(crate) version: Option<Version>,
    pub(crate) srtp: SrtpOffer,
}

impl ClientHello {
    /// Returns `None` if the message is malformed.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let mut reader = Reader(message);
        let legacy_version = reader.u16()?;
        reader.take(32)?;
        // Session, cookie, cipher suites, compression methods.
        reader.vector8()?;
        reader.vector8()?;
        reader.vector16()?;
        reader.vector8()?;
        let mut hello = Self {
            version: (legacy_version == DTLS_1_2).then_some(Version::Dtls12),
            srtp: SrtpOffer::None,
        };
        if reader.0.is_empty() {
            return Some(hello);
        }
        let mut extensions = Reader(reader.vector16()?);
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let mut extension = Reader(extensions.vector16()?);
            match kind {
                SUPPORTED_VERSIONS => {
                    let versions = numbers(extension.vector8()?);
                    hello.version = if versions.contains(&DTLS_1_2) {
                        Some(Version::Dtls12)
                    } else {
                        versions.contains(&DTLS_1_3).then_some(Version::Dtls13)
                    };
                }
                USE_SRTP => {
                    let profiles = numbers(extension.vector16()?);
                    let common = profiles.iter().any(|profile| SRTP_PROFILES.contains(profile));
                    hello.srtp = if common { SrtpOffer::Supported } else { SrtpOffer::Unsupported };
                }
                _ => {}
            }
        }
        Some(hello)
    }
}

fn numbers(vector: &[u8]) -> Vec<u16> {
    vector.as_chunks().0.iter().map(|number| u16::from_be_bytes(*number)).collect()
}

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    fn u24(&mut self) -> Option<usize> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        let [high, middle, low] = number.map(usize::from);
        Some(high << 16 | middle << 8 | low)
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// Returns the type of a record in plain text and its contents; `None` as type if the record is encrypted. `None` at the end, at
    /// a header of DTLS 1.3 and at a record that is cut.
    pub(crate) fn record(&mut self) -> Option<(Option<u8>, Reader<'a>)> {
        let kind = self.u8().filter(|kind| RECORD_TYPES.contains(kind))?;
        self.u16()?;
        let epoch = self.u16()?;
        self.take(6)?;
        let contents = Reader(self.vector16()?);
        Some(((epoch == 0).then_some(kind), contents))
    }

    /// Returns the type of a handshake message and its fragment.
    pub(crate) fn fragment(&mut self) -> Option<(u8, Fragment<'a>)> {
        let kind = self.u8()?;
        let length = self.u24()?;
        let message_seq = self.u16()?;
        let offset = self.u24()?;
        let fragment_length = self.u24()?;
        let bytes = self.take(fragment_length)?;
        Some((kind, Fragment { message_seq, length, offset, bytes }))
    }
}

#[cfg(test)]
mod tests;
