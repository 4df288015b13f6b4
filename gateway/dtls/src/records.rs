//! The records that reach the library (RFC 6347, section 4.1; RFC 9147, section 4).
//!
//! An invalid record is to be discarded in silence (RFC 6347, section 4.1.2.7; RFC 9147, section 4.5.2). The library does that with
//! one that it cannot parse or decrypt, but its queue keeps one of another message in plain text, behind which a handshake stops, and an
//! alert in plain text ends the handshake. Any host can send both that forges the client's address.

use crate::hello::{CLIENT_HELLO, Fragment, HANDSHAKE, Reader, Version};

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;

/// Types of handshake messages (RFC 5246, section 7.4).
const CERTIFICATE: u8 = 11;
const CERTIFICATE_VERIFY: u8 = 15;
const CLIENT_KEY_EXCHANGE: u8 = 16;

/// First bytes of records with the header of DTLS 1.3.
const UNIFIED_HEADER: std::ops::RangeInclusive<u8> = 32..=63;

const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;

/// A record of a client, by what its header shows.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum ClientRecord<'a> {
    /// A message of the handshake, or a record that only its keys can tell.
    Usable(&'a [u8]),
    /// Announces that the records of DTLS 1.2 behind it are encrypted.
    ChangeCipherSpec(&'a [u8]),
    /// A fatal alert of this description in plain text.
    PlainAlert(u8),
    /// No client sends it in a handshake of this version.
    Invalid,
}

/// The records of a datagram, each of which the library gets alone: it drops a datagram whole, or stops halfway, because of one record.
pub(crate) struct ClientRecords<'a> {
    rest: &'a [u8],
    version: Version,
}

impl<'a> ClientRecords<'a> {
    pub(crate) fn of(datagram: &'a [u8], version: Version) -> Self {
        Self { rest: datagram, version }
    }

    /// Reads a record with the header of DTLS 1.2. `None` if it is cut or of an unknown type.
    fn plain(&mut self) -> Option<ClientRecord<'a>> {
        let all = self.rest;
        let mut reader = Reader(all);
        let (kind, Reader(contents)) = reader.record()?;
        self.rest = reader.0;
        let record = &all[..all.len() - reader.0.len()];
        Some(match kind {
            Some(HANDSHAKE) if self.are_of_client(contents) => ClientRecord::Usable(record),
            Some(CHANGE_CIPHER_SPEC) => ClientRecord::ChangeCipherSpec(record),
            Some(ALERT) => match contents {
                [FATAL, description, ..] if *description != CLOSE_NOTIFY => {
                    ClientRecord::PlainAlert(*description)
                }
                _ => ClientRecord::Invalid,
            },
            None if self.version == Version::Dtls12 => ClientRecord::Usable(record),
            _ => ClientRecord::Invalid,
        })
    }

    /// Returns whether these are fragments of messages that a client sends in plain text.
    fn are_of_client(&self, contents: &[u8]) -> bool {
        let mut messages = Reader(contents);
        while !messages.0.is_empty() {
            let Some((kind, fragment)) = messages.fragment() else { return false };
            if !fragment.is_within_message() || !self.is_of_client(kind, &fragment) {
                return false;
            }
        }
        !contents.is_empty()
    }

    /// Clients number their messages from 0 on, without gaps (RFC 6347, section 4.2.2), and are asked for a certificate.
    fn is_of_client(&self, kind: u8, fragment: &Fragment<'_>) -> bool {
        match (self.version, kind, fragment.message_seq) {
            (_, CLIENT_HELLO, 0) => !fragment.bytes.is_empty(),
            // The second one, after a HelloRetryRequest.
            (Version::Dtls13, CLIENT_HELLO, 1) => !fragment.bytes.is_empty(),
            (Version::Dtls12, CERTIFICATE, 1)
            | (Version::Dtls12, CLIENT_KEY_EXCHANGE, 2)
            | (Version::Dtls12, CERTIFICATE_VERIFY, 3) => true,
            _ => false,
        }
    }
}

impl<'a> Iterator for ClientRecords<'a> {
    type Item = ClientRecord<'a>;

    fn next(&mut self) -> Option<ClientRecord<'a>> {
        let first = *self.rest.first()?;
        if UNIFIED_HEADER.contains(&first) && self.version == Version::Dtls13 {
            // Only the library can tell the end of an encrypted record without a length.
            return Some(ClientRecord::Usable(std::mem::take(&mut self.rest)));
        }
        let record = self.plain();
        if record.is_none() {
            self.rest = &[];
        }
        record.or(Some(ClientRecord::Invalid))
    }
}

#[cfg(test)]
mod tests;
