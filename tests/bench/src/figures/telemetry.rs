//! The cost of telemetry with 10,000 sessions, beside which others open and close: processor time and memory of gateways
//! whose receiver takes everything, is dead, or is slow; and the time of lists.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_client::{ApiCall, ClientError};
use tokio::runtime::Runtime;

use super::crowd::{Crowd, Listener};
use super::median;
use crate::process::Metered;
use crate::relay::Places;
use crate::report::TelemetryCost;

const SESSIONS: u32 = 10_000;

/// Sessions that open a second, as many as if all were calls of three minutes.
const RATE: u32 = 50;

/// Length of a window: one export of metrics, which come every 10 s.
const WINDOW_S: u32 = 10;

const ROUNDS: usize = 3;

/// Share of the traces while processor time is measured.
const SHARE: f64 = 0.01;

/// Sessions that open and close while memory is measured. They have more spans than the gateway keeps for a receiver.
const MANY: u32 = 10_000;

/// Sessions that are open beside the others at a time.
const OPEN: usize = 100;

/// Clients of sessions that open and close; each is used again after its session has closed.
const CLIENTS: u32 = 1_000;

/// The delay of a slow receiver's answers, for which the gateway just waits.
const SLOW: Duration = Duration::from_secs(4);

/// Paths of lists below `/v1/`.
const LISTS: [&str; 9] = [
    "sessions",
    "sessions/history",
    "rooms",
    "nodes",
    "zones",
    "regions",
    "modes",
    "policies",
    "changes",
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receiver {
    Off,
    Healthy,
    Dead,
    Slow,
}

impl Receiver {
    const ALL: [Receiver; 4] = [Receiver::Off, Receiver::Healthy, Receiver::Dead, Receiver::Slow];

    fn name(self) -> &'static str {
        match self {
            Receiver::Off => "off",
            Receiver::Healthy => "healthy",
            Receiver::Dead => "dead",
            Receiver::Slow => "slow",
        }
    }

    /// Starts a gateway with this receiver, which gets a share of the traces.
    fn start(self, share: f64, places: &Places) -> Result<Crowd, String> {
        let failed = |error: io::Error| format!("no {} receiver: {error}", self.name());
        let address = match self {
            Receiver::Off => None,
            Receiver::Healthy => Some(serve(Duration::ZERO).map_err(failed)?),
            Receiver::Slow => Some(serve(SLOW).map_err(failed)?),
            // The port is closed again.
            Receiver::Dead => Some(listen().and_then(|it| it.local_addr()).map_err(failed)?),
        };
        let tables = address.map_or_else(String::new, |address| {
            format!(
                "\n[telemetry]\notlp = \"http://{address}\"\nprotocol = \"http\"\n\
                 sample_ratio = {share:?}\n"
            )
        });
        let name = format!("telemetry-{}", self.name());
        Crowd::start_with(&name, Listener::Declared, &tables, places)
    }
}

/// # Errors
/// A measurement failed.
pub(crate) fn measure(places: &Places) -> Result<TelemetryCost, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime for requests: {error}"))?;
    let mut gateways = Vec::new();
    for receiver in Receiver::ALL {
        let mut crowd = receiver.start(SHARE, places)?;
        crowd.grow(SESSIONS)?;
        gateways.push((receiver, crowd, Vec::new()));
    }
    for round in 0..=ROUNDS {
        for (_, crowd, windows) in &mut gateways {
            let (began, before) = (Instant::now(), crowd.process.processor_by_thread());
            runtime.block_on(open_and_close(crowd, RATE * WINDOW_S, Some(RATE)))?;
            let after = crowd.process.processor_by_thread();
            crowd.process.must_run()?;
            // The first round warms up.
            if round > 0 {
                windows.push(percents(&before, &after, began.elapsed()));
            }
        }
    }
    let mut cost = TelemetryCost::default();
    for (receiver, _, windows) in &gateways {
        println!("telemetry, {}: % of a core by thread {windows:.1?}", receiver.name());
        let totals = windows.iter().map(|window| window.values().sum::<f64>());
        cost.core_percent.insert(receiver.name(), median(totals.collect()));
    }
    // The others end, since they would share its core.
    let healthy = gateways.into_iter().find(|(receiver, ..)| *receiver == Receiver::Healthy);
    if let Some((_, crowd, _)) = healthy {
        cost.list_ms = runtime.block_on(time_lists(&crowd))?;
    }
    for receiver in [Receiver::Off, Receiver::Dead, Receiver::Slow] {
        cost.grown_mib.insert(receiver.name(), grown(receiver, &runtime, places)?);
    }
    println!("telemetry: % of a core {:.1?}", cost.core_percent);
    println!("telemetry: MiB after {MANY} sessions with all traces {:.1?}", cost.grown_mib);
    println!("lists of {SESSIONS} sessions, ms: {:.1?}", cost.list_ms);
    Ok(cost)
}

/// Processor time of each thread in this time, per cent of a core.
fn percents(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    took: Duration,
) -> BTreeMap<String, f64> {
    let percent = |(name, ns): (&String, &u64)| {
        let busy = ns.saturating_sub(before.get(name).copied().unwrap_or(0));
        (name.clone(), busy as f64 / took.as_nanos() as f64 * 100.0)
    };
    after.iter().map(percent).collect()
}

/// Memory that the gateway takes for many sessions with all traces, MiB.
fn grown(receiver: Receiver, runtime: &Runtime, places: &Places) -> Result<f64, String> {
    let mut crowd = receiver.start(1.0, places)?;
    crowd.grow(SESSIONS)?;
    let before = crowd.process.resident_mib()?;
    runtime.block_on(open_and_close(&crowd, MANY, None))?;
    Ok(crowd.process.resident_mib()? - before)
}

/// Opens this many more sessions, at this rate or as fast as the API answers, and closes each after a while.
async fn open_and_close(
    crowd: &Crowd,
    sessions: u32,
    per_second: Option<u32>,
) -> Result<(), String> {
    let failed = |error: ClientError| format!("a session of the telemetry figure: {error}");
    let (mut admin, mut open, began) = (crowd.admin(), VecDeque::new(), Instant::now());
    for number in 0..sessions {
        if let Some(rate) = per_second {
            let due = Duration::from_secs_f64(f64::from(number) / f64::from(rate));
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
        let offer = crowd.offer_beyond(number % CLIENTS);
        let answer = admin.post("/v1/sessions", &offer).await.map_err(failed)?;
        open.push_back(answer["id"].as_str().unwrap_or_default().to_owned());
        if open.len() > OPEN
            && let Some(oldest) = open.pop_front()
        {
            admin.close(&oldest).await.map_err(failed)?;
        }
    }
    for id in open {
        admin.close(&id).await.map_err(failed)?;
    }
    Ok(())
}

/// The longest time of each list with all its pages, milliseconds.
async fn time_lists(crowd: &Crowd) -> Result<BTreeMap<&'static str, f64>, String> {
    let (mut admin, mut longest) = (crowd.admin(), BTreeMap::new());
    let failed = |error: ClientError| format!("the sessions before they are listed: {error}");
    let open = admin.read("/v1/status").await.map_err(failed)?["sessions"].clone();
    if open != SESSIONS {
        return Err(format!("{open} of {SESSIONS} sessions are open"));
    }
    for list in (0..ROUNDS).flat_map(|_| LISTS) {
        let (mut path, mut took) = (format!("/v1/{list}"), Duration::ZERO);
        loop {
            let began = Instant::now();
            let page = admin.ask(ApiCall::get(&path)).await;
            took += began.elapsed();
            let page = page.and_then(|page| page.accepted());
            let page = page.map_err(|error| format!("{path}: {error}"))?;
            match page["next"].as_str() {
                Some(next) => path = format!("/v1/{list}?after={next}"),
                None => break,
            }
        }
        let longest = longest.entry(list).or_insert(0.0_f64);
        *longest = longest.max(took.as_secs_f64() * 1e3);
    }
    Ok(longest)
}

fn listen() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

/// Receives OTLP over HTTP until the bench ends, and answers after the delay.
fn serve(delay: Duration) -> io::Result<SocketAddr> {
    let listener = listen()?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            thread::spawn(move || receive(&stream, delay));
        }
    });
    Ok(address)
}

/// Takes the requests of a connection. An empty answer reports success.
fn receive(stream: &TcpStream, delay: Duration) -> io::Result<()> {
    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
    let (mut requests, mut answers) = (BufReader::new(stream), stream);
    let (mut line, mut length) = (String::new(), 0);
    while requests.read_line(&mut line)? > 0 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim_end().is_empty() {
            io::copy(&mut requests.by_ref().take(length), &mut io::sink())?;
            thread::sleep(delay);
            answers.write_all(ANSWER)?;
            length = 0;
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use evenkeel_testkit::http::HttpClient;

    use super::*;

    #[test]
    fn receiver_answers_each_request() {
        let stream = TcpStream::connect(serve(Duration::ZERO).expect("it listens"));
        let mut client = HttpClient::over(stream.expect("it accepts"));
        for body in ["", "trace: 1\n\n"] {
            let answer = client.ask("POST /v1/traces", &[], body.as_bytes()).expect("it answers");
            assert_eq!((answer.status, &*answer.body), (200, ""));
        }
    }
}
