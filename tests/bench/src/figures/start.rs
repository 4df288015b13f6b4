//! From the start of the process to the first packet forwarded, with the policies that ship.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::crowd::{Crowd, Listener, client};
use super::{median, packet};
use crate::relay::Places;

const ROUNDS: usize = 5;

/// Packet interval of the waiting client.
const EVERY: Duration = Duration::from_millis(1);

/// Time limit of the first packet.
const PATIENCE: Duration = Duration::from_secs(20);

/// The time in milliseconds.
///
/// # Errors
/// A measurement failed.
pub(crate) fn measure(places: &Places) -> Result<f64, String> {
    let ms = median((0..ROUNDS).map(|_| once(places)).collect::<Result<_, _>>()?);
    println!("start: {ms:.0} ms from the start of the process to the first packet forwarded");
    Ok(ms)
}

fn once(places: &Places) -> Result<f64, String> {
    let system = |error: std::io::Error| format!("a client has no socket: {error}");
    let phone = UdpSocket::bind((client(0), 0)).map_err(system)?;
    let before = Instant::now();
    let crowd = Crowd::start("start", Listener::Open, places)?;
    for sequence in 0.. {
        // A lost packet is followed by the next.
        let _lost = phone.send_to(&packet(1, sequence), crowd.udp);
        std::thread::sleep(EVERY);
        if crowd.agents.packets() > 0 {
            break;
        }
        if before.elapsed() > PATIENCE {
            return Err(crowd.process.error("forwarded nothing").into());
        }
    }
    Ok(before.elapsed().as_secs_f64() * 1e3)
}
