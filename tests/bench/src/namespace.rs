//! The namespace of the bench: its `lo` carries a private address, since peers that drop loopback sources pass packets
//! there, by the same path through the kernel.

pub(crate) use evenkeel_testkit::namespace::First;

/// The address of relays. All of its /24 is local; nodes and clients use other addresses of it.
pub(crate) const RELAY: [u8; 4] = [10, 77, 0, 1];
pub(crate) const NODES: [u8; 4] = [10, 77, 0, 2];
pub(crate) const CLIENTS: [u8; 4] = [10, 77, 0, 3];

/// Runs this command again inside the namespace and returns its exit status; `None` inside it.
pub(crate) fn enter() -> Result<Option<i32>, String> {
    let status = evenkeel_testkit::namespace::enter()?;
    if status.is_none() {
        evenkeel_lab::network::ip("addr add 10.77.0.1/24 dev lo")?;
    }
    Ok(status)
}
