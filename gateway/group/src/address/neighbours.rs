//! Packets that wait for the Ethernet address of a neighbour. The kernel keeps about 250 for each, and sends them once it
//! answers: a link that returns would carry packets of an owner that was replaced meanwhile.

use nix::errno::Errno;
use nix::libc;

use super::netlink::{self, HEADER, Netlink};

/// Length of `struct ndmsg`.
const NEIGHBOUR: usize = 12;

/// A neighbour that has not answered: its `struct ndmsg`, and its address.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Unanswered {
    neighbour: [u8; NEIGHBOUR],
    address: Vec<u8>,
}

/// Drops the packets that wait at these interfaces.
pub(super) fn drop_waiting(netlink: &mut Netlink, interfaces: &[i32]) -> Result<(), Errno> {
    let ask = netlink.number(&request(libc::RTM_GETNEIGH, libc::NLM_F_DUMP, &[0; NEIGHBOUR], &[]));
    let mut found = Vec::new();
    netlink.list(&ask, |message| found.extend(unanswered(message)))?;
    for Unanswered { neighbour, address } in found {
        if interfaces.contains(&interface(&neighbour)) {
            let delete = request(libc::RTM_DELNEIGH, libc::NLM_F_ACK, &neighbour, &address);
            let delete = netlink.number(&delete);
            match netlink.execute(&delete) {
                // It has answered, or was given up.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

fn request(kind: u16, flags: i32, neighbour: &[u8; NEIGHBOUR], address: &[u8]) -> Vec<u8> {
    let mut request = netlink::head(kind, flags);
    request.extend(neighbour);
    if !address.is_empty() {
        netlink::push_attribute(&mut request, libc::NDA_DST, address);
    }
    netlink::finish(request)
}

fn interface(neighbour: &[u8; NEIGHBOUR]) -> i32 {
    let [_, _, _, _, index @ .., _, _, _, _] = *neighbour;
    i32::from_ne_bytes(index)
}

/// Reads a message of a list.
fn unanswered(message: &[u8]) -> Option<Unanswered> {
    let (neighbour, mut attributes) = message.get(HEADER..)?.split_first_chunk::<NEIGHBOUR>()?;
    let state = u16::from_ne_bytes([neighbour[8], neighbour[9]]);
    while let Some((head, _)) = attributes.split_first_chunk::<4>() {
        let [length, kind] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_ne_bytes);
        let value = attributes.get(4..usize::from(length))?;
        if kind == libc::NDA_DST && state == libc::NUD_INCOMPLETE {
            return Some(Unanswered { neighbour: *neighbour, address: value.to_vec() });
        }
        attributes = attributes.get(usize::from(length).next_multiple_of(4)..)?;
    }
    None
}
