//! The client's part of a probe: sends the packets of its trains, and times the answers.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use evenkeel_client::ApiClient;
use evenkeel_contract::probes::{
    ProbeAnswer, ProbeReport, ProbeRequest, ProbeRoundTrips, ProbeTrain,
};
use evenkeel_media::probe;
use evenkeel_media::stun::{
    BindingOutcome, Response, StunKey, Transaction, Username, write_padded_request,
};
use evenkeel_process::random::fill;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

use crate::clock;
use crate::datagrams::{DatagramInbox, any_of, stamp_arrivals};
use crate::error::LabError;

/// Wait for answers after the last packet: longer than the round trip by a satellite.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// No answer is longer than its question.
const DATAGRAM_MAX: usize = 2_048;
const BATCH: usize = 64;

/// Measures the path to a gateway.
///
/// # Errors
/// The gateway refuses the probe or does not answer, or no socket can be connected to it.
pub async fn run(admin: &mut ApiClient) -> Result<ProbeReport, LabError> {
    let opened = admin.open_probe(ProbeRequest::default()).await;
    let opened = opened.map_err(LabError::gateway("opening a probe"))?;
    let id = opened.id.clone();
    let exchanged = tokio::task::spawn_blocking(move || exchange(&opened)).await;
    let exchanged = exchanged.expect("the exchange does not panic");
    let round_trips_us = exchanged.map_err(LabError::system("sending a probe"))?;
    let measured = admin.measure_probe(&id, &ProbeRoundTrips { round_trips_us }).await;
    measured.map_err(LabError::gateway("measuring the path"))
}

/// A packet, and the time of its answer.
struct Question {
    after_ns: u64,
    bytes: u16,
    transaction: Transaction,
    /// `None`: it was not sent yet, or was refused by the system.
    sent_ns: Option<u64>,
    round_trip_us: Option<u32>,
}

/// Sends all packets of a probe when they are due. Returns the round trips by number.
fn exchange(opened: &ProbeAnswer) -> io::Result<Vec<Option<u32>>> {
    let socket = opened.addresses.iter().find_map(|address| connected(*address).ok());
    let socket = socket
        .ok_or_else(|| io::Error::other("no address of the gateway's listeners can be reached"))?;
    let key = StunKey::new(&opened.password);
    let username = Username { server_ufrag: &opened.id, client_ufrag: "probe" };
    let mut questions = questions(&opened.trains);
    let mut inbox = DatagramInbox::new(DATAGRAM_MAX, BATCH);
    let mut datagram = Vec::new();
    let (began, mut next) = (clock::now_ns(), 0);
    loop {
        let now = clock::now_ns();
        while let Some(question) = questions.get_mut(next)
            && began + question.after_ns <= now
        {
            datagram.clear();
            let length = question.bytes.into();
            write_padded_request(question.transaction, username, &key, length, &mut datagram);
            let at = clock::now_ns();
            // A packet that the system refuses, such as one beyond the MTU, is lost.
            question.sent_ns = socket.send(&datagram).is_ok().then_some(at);
            next += 1;
        }
        let last = questions.last().map_or(0, |question| question.after_ns);
        let until = match questions.get(next) {
            Some(question) => began + question.after_ns,
            None => began + last + clock::nanoseconds(ANSWERED_WITHIN),
        };
        let is_answered = |it: &Question| it.sent_ns.is_none() || it.round_trip_us.is_some();
        if next == questions.len() && (now >= until || questions.iter().all(is_answered)) {
            return Ok(questions.into_iter().map(|question| question.round_trip_us).collect());
        }
        let wait = Duration::from_nanos(until.saturating_sub(now));
        let wait = Timespec::try_from(wait).expect("a packet is due, or the end, within seconds");
        // A signal ends the wait early.
        let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&wait));
        // An ICMP error for an earlier packet, which is lost.
        if inbox.receive(&socket).is_err() {
            continue;
        }
        for answer in inbox.iter() {
            let at_ns = answer.stamp_ns.unwrap_or_else(clock::now_ns);
            note_answer(&mut questions, answer.bytes, &key, at_ns);
        }
    }
}

/// A socket towards the gateway. Its packets are not fragmented.
fn connected(gateway: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(any_of(gateway))?;
    socket.connect(gateway)?;
    socket.set_nonblocking(true)?;
    stamp_arrivals(&socket)?;
    match gateway {
        SocketAddr::V4(_) => sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?,
    }
    Ok(socket)
}

fn questions(trains: &[ProbeTrain]) -> Vec<Question> {
    let mut after_ns = 0;
    let packets = trains.iter().flat_map(|train| (0..train.packets).map(move |_| *train));
    let questions = (0..).zip(packets).map(|(number, train)| {
        let mut random = [0; 10];
        fill(&mut random);
        let transaction = probe::transaction(number, random);
        let due = after_ns;
        after_ns += train.interval_us.saturating_mul(1_000);
        Question {
            after_ns: due,
            bytes: train.bytes,
            transaction,
            sent_ns: None,
            round_trip_us: None,
        }
    });
    questions.collect()
}

/// Notes the first answer to a packet.
fn note_answer(questions: &mut [Question], datagram: &[u8], key: &StunKey, at_ns: u64) {
    let Ok(response) = Response::parse(datagram) else { return };
    let transaction = response.message.transaction();
    let number = usize::from(probe::number(transaction));
    let is_answer = matches!(response.outcome, BindingOutcome::Mapped(_))
        && response.message.verify(key).is_ok();
    if let Some(question) = questions.get_mut(number)
        && let Some(sent_ns) = question.sent_ns
        && is_answer
        && question.transaction == transaction
        && question.round_trip_us.is_none()
    {
        let took = at_ns.saturating_sub(sent_ns) / 1_000;
        question.round_trip_us = Some(u32::try_from(took).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests;
