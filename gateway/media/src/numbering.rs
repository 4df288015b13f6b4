//! The numbers of a client for payload types and header extensions, and those of its room.
//!
//! Each client of WebRTC chooses its own numbers, and all packets in a room have the room's. [`ClientNumbers`] maps packets in
//! place, without a change of their lengths.

use serde::{Deserialize, Serialize};

use crate::rtp::extension::{ElementForm, ElementPlace};
use crate::rtp::{self, RtpError, RtpHeader};

/// Maps payload types (RFC 3550, section 5.1): 0 to 127.
pub type PayloadTypeMap = NumberMap<0, 128>;

/// Maps ids of header extensions: 1 to 14, those of the one-byte form (RFC 8285, section 4.2).
pub type ExtensionMap = NumberMap<1, 15>;

/// A table of a client's numbers and a room's, all from `FIRST` on and below `SIZE`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(from = "Vec<(u8, u8)>", into = "Vec<(u8, u8)>")]
pub struct NumberMap<const FIRST: u8, const SIZE: usize> {
    to_room: [Option<u8>; SIZE],
    to_client: [Option<u8>; SIZE],
}

impl<const FIRST: u8, const SIZE: usize> Default for NumberMap<FIRST, SIZE> {
    fn default() -> Self {
        NumberMap { to_room: [None; SIZE], to_client: [None; SIZE] }
    }
}

impl<const FIRST: u8, const SIZE: usize> NumberMap<FIRST, SIZE> {
    /// Returns the room's number for a number of the client; `None` if it was not negotiated.
    pub fn room_number(&self, client: u8) -> Option<u8> {
        self.to_room.get(usize::from(client)).copied().flatten()
    }

    /// Returns the client's number for a number of the room; `None` if it was not negotiated. The first one that was
    /// negotiated, if there are several.
    pub fn client_number(&self, room: u8) -> Option<u8> {
        self.to_client.get(usize::from(room)).copied().flatten()
    }

    /// Returns true if the client's number has this meaning, or may get it: a number never changes its meaning during a session
    /// (RFC 3264, section 8.3.2).
    pub fn admits(&self, client: u8, room: u8) -> bool {
        let is_one = |number: u8| number >= FIRST && usize::from(number) < SIZE;
        is_one(client)
            && is_one(room)
            && self.room_number(client).is_none_or(|mapped| mapped == room)
    }

    /// Adds a pair. Has no effect unless the table [admits](NumberMap::admits) it.
    pub fn insert(&mut self, client: u8, room: u8) {
        if self.admits(client, room) {
            self.to_room[usize::from(client)] = Some(room);
            self.to_client[usize::from(room)].get_or_insert(client);
        }
    }

    /// Returns the pairs of a client's number and the room's. The first one of a room's number is that of packets to the client.
    fn pairs(&self) -> impl Iterator<Item = (u8, u8)> {
        let sent = (0..).zip(&self.to_client);
        let sent = sent.filter_map(|(room, client)| client.map(|client| (client, room)));
        let received = (0..).zip(&self.to_room);
        let received = received.filter_map(|(client, room)| room.map(|room| (client, room)));
        let is_other = |pair: &(u8, u8)| self.client_number(pair.1) != Some(pair.0);
        sent.chain(received.filter(is_other))
    }
}

impl<const FIRST: u8, const SIZE: usize> From<Vec<(u8, u8)>> for NumberMap<FIRST, SIZE> {
    fn from(pairs: Vec<(u8, u8)>) -> Self {
        let mut map = NumberMap::default();
        pairs.into_iter().for_each(|(client, room)| map.insert(client, room));
        map
    }
}

impl<const FIRST: u8, const SIZE: usize> From<NumberMap<FIRST, SIZE>> for Vec<(u8, u8)> {
    fn from(map: NumberMap<FIRST, SIZE>) -> Self {
        map.pairs().collect()
    }
}

/// The reason why a packet has no numbers on the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NumberError {
    /// The bytes are not an RTP packet.
    #[error(transparent)]
    Rtp(#[from] RtpError),
    /// The payload ends within the headers of its redundant blocks (RFC 2198, section 3).
    #[error("the payload ends within the headers of redundant blocks")]
    Blocks,
    /// The payload type was not negotiated.
    #[error("payload type {0} was not negotiated")]
    PayloadType(u8),
}

/// The numbers of a client that differ from those of its room.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct ClientNumbers {
    payload_types: PayloadTypeMap,
    extensions: ExtensionMap,
    /// The room's payload type of redundant blocks (RFC 2198).
    redundancy: Option<u8>,
}

impl ClientNumbers {
    /// Returns `None` if each number of the client is that of the room. `redundancy` is the room's payload type of redundant
    /// blocks (RFC 2198), the headers of which contain payload types.
    pub fn new(
        payload_types: &PayloadTypeMap,
        extensions: &ExtensionMap,
        redundancy: Option<u8>,
    ) -> Option<ClientNumbers> {
        let mut pairs = payload_types.pairs().chain(extensions.pairs());
        pairs.any(|(client, room)| client != room).then(|| ClientNumbers {
            payload_types: payload_types.clone(),
            extensions: extensions.clone(),
            redundancy,
        })
    }

    /// Gives a packet of the client the numbers of the room. Header extensions that were not negotiated become padding.
    ///
    /// # Errors
    /// Fails if the packet is malformed or has a payload type that was not negotiated. Its numbers are undefined then.
    pub fn map_to_room(&self, packet: &mut [u8]) -> Result<(), NumberError> {
        let payload_type = |client| self.payload_types.room_number(client);
        map(
            packet,
            payload_type,
            |client| self.extensions.room_number(client),
            |(_, room)| Some(room) == self.redundancy,
        )
    }

    /// Gives a packet of the room the numbers of the client. Header extensions that were not negotiated become padding.
    ///
    /// # Errors
    /// Fails if the packet is malformed or has a payload type that was not negotiated. Its numbers are undefined then.
    pub fn map_to_client(&self, packet: &mut [u8]) -> Result<(), NumberError> {
        let payload_type = |room| self.payload_types.client_number(room);
        map(
            packet,
            payload_type,
            |room| self.extensions.client_number(room),
            |(room, _)| Some(room) == self.redundancy,
        )
    }
}

/// `has_blocks` tells by the payload type before and after whether the payload consists of redundant blocks.
fn map(
    packet: &mut [u8],
    payload_type: impl Fn(u8) -> Option<u8>,
    extension: impl Fn(u8) -> Option<u8>,
    has_blocks: impl Fn((u8, u8)) -> bool,
) -> Result<(), NumberError> {
    let header = RtpHeader::parse(packet)?;
    let before = header.payload_type;
    let after = payload_type(before).ok_or(NumberError::PayloadType(before))?;
    rtp::set_payload_type(packet, after);
    if let Some((profile, elements)) = rtp::extension_mut(packet) {
        map_elements(profile, elements, extension);
    }
    if has_blocks((before, after)) {
        map_blocks(&mut packet[header.payload_offset..header.payload_end], payload_type)?;
    }
    Ok(())
}

/// Maps the ids of the elements in a header extension (RFC 8285, sections 4.2 and 4.3).
fn map_elements(profile: u16, elements: &mut [u8], number: impl Fn(u8) -> Option<u8>) {
    let Some(form) = ElementForm::of(profile) else { return };
    let mut from = 0;
    while let Some(ElementPlace { id, start, data }) = form.next(elements, from) {
        match (number(id), form) {
            (Some(mapped), ElementForm::OneByte) => {
                elements[start] = mapped << 4 | elements[start] & 0x0f;
            }
            (Some(mapped), ElementForm::TwoByte) => elements[start] = mapped,
            (None, _) => elements[start..data.end].fill(0),
        }
        from = data.end;
    }
}

/// Maps the payload types of redundant blocks (RFC 2198, section 3).
fn map_blocks(payload: &mut [u8], number: impl Fn(u8) -> Option<u8>) -> Result<(), NumberError> {
    let mut at = 0;
    loop {
        let first = payload.get_mut(at).ok_or(NumberError::Blocks)?;
        let (follows, before) = (*first & 0x80, *first & 0x7f);
        *first = follows | number(before).ok_or(NumberError::PayloadType(before))?;
        if follows == 0 {
            return Ok(());
        }
        at += 4;
    }
}

#[cfg(test)]
mod tests;
