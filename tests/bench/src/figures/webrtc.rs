//! WebRTC clients: processor time and delay of their set-up, and the delay of other media during many handshakes.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use evenkeel_client::{ApiClient, ApiEndpoint};
use evenkeel_contract::offers::{OfferIngress, OfferRequest, OfferSdp};
use evenkeel_lab::client::{ClientFleet, ClientPath, Persona, UdpWay, WebrtcIdentity};
use evenkeel_lab::clock;
use evenkeel_lab::ledger::{Books, GapSpread};

use super::crowd::{Crowd, Listener};
use crate::load::{Direction, Edge, Offer, Pace, Trace};
use crate::namespace::{CLIENTS, First};
use crate::process::Metered;
use crate::relay::{self, Kind, Places, Running, Stage};
use crate::report::{HandshakeDelay, WebrtcCost, WebrtcSetUp};
use crate::row::{Leg, Row};

/// Set-ups before the measurement, and of the measurement; one at a time.
const WARM_UP: u64 = 50;
const SET_UPS: u64 = 500;

/// Time without set-ups in which the gateway's other processor time is measured.
const IDLE: Duration = Duration::from_secs(2);

/// Handshakes at once.
const HANDSHAKES: u64 = 1_000;

/// Packets per second of the other media.
const RATE: f64 = 20_000.0;

/// Length of a window, short beside all handshakes; and windows without handshakes.
const WINDOW: Duration = Duration::from_millis(250);
const CALM_WINDOWS: usize = 12;

/// The port of the first client, outside the range of ephemeral ports. Each client has its own: that of a client that left still belongs
/// to its session.
const FIRST_PORT: u16 = 10_000;

/// Time limit of a set-up, and of all handshakes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Interval of looks for the first packet of a set-up. The node stamps its arrival.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// # Errors
/// A measurement failed.
pub(crate) fn measure(places: &Places) -> Result<WebrtcCost, String> {
    let _first = First::come();
    let setup = set_up(places)?;
    println!(
        "webrtc.setup: {:.0} set-ups per second of processor time; from the offer to the first packet at the node {:.1} ms, \
         p99 {:.1} ms",
        setup.per_processor_s, setup.first_packet_ms.p50, setup.first_packet_ms.p99
    );
    let handshakes = handshakes(places)?;
    println!(
        "webrtc.handshakes: {} of {HANDSHAKES} at once within {:.1} s; delay of other media p99 {:.0} µs, {:.0} µs without",
        handshakes.complete, handshakes.took_s, handshakes.delay_p99_us, handshakes.calm_p99_us
    );
    Ok(WebrtcCost { setup, handshakes })
}

fn set_up(places: &Places) -> Result<WebrtcSetUp, String> {
    let mut crowd = Crowd::start("webrtc", Listener::Stun, places)?;
    let runtime = relay::runtime()?;
    runtime.block_on(relay::ready(&crowd.socket))?;
    let mut admin = crowd.admin();
    let fleet = ClientFleet::start(&Books::default()).map_err(|error| error.to_string())?;
    let (mut delays_ns, mut before_ns, mut idle_share) = (Vec::new(), 0, 0.0);
    let mut began = Instant::now();
    for session in 0..WARM_UP + SET_UPS {
        if session == WARM_UP {
            delays_ns.clear();
            let idle_ns = crowd.process.processor_ns();
            std::thread::sleep(IDLE);
            before_ns = crowd.process.processor_ns();
            idle_share = (before_ns - idle_ns) as f64 / IDLE.as_nanos() as f64;
            began = Instant::now();
        }
        let began_ns = clock::now_ns();
        let way = runtime.block_on(open(&mut admin, session))?;
        let persona = Persona { session, seed: session, voice: true, video: false };
        fleet.join(persona, ClientPath::Udp(way));
        let until = Instant::now() + PATIENCE;
        let first_ns = loop {
            if let Some(first_ns) = crowd.agents.first_ns(session) {
                break first_ns;
            }
            if Instant::now() > until {
                let state = fleet.state(session);
                let problem = format!("forwarded nothing of set-up {session}: {state:?}");
                return Err(crowd.process.error(problem).into());
            }
            std::thread::sleep(LOOK_EVERY);
        };
        fleet.leave(session);
        delays_ns.push(first_ns.saturating_sub(began_ns));
    }
    crowd.process.must_run()?;
    let spent_s = (crowd.process.processor_ns() - before_ns) as f64 / 1e9;
    let spent_s = spent_s - idle_share * began.elapsed().as_secs_f64();
    let first_packet_ms = GapSpread::of_ns(delays_ns);
    Ok(WebrtcSetUp { per_processor_s: SET_UPS as f64 / spent_s, first_packet_ms })
}

/// Opens the session of a WebRTC client in a room of its own.
async fn open(admin: &mut ApiClient, session: u64) -> Result<UdpWay, String> {
    let identity = WebrtcIdentity::generate(session).map_err(|error| error.to_string())?;
    let port = FIRST_PORT + session as u16;
    let socket = UdpSocket::bind((Ipv4Addr::from(CLIENTS), port));
    let socket = socket.map_err(|error| format!("cannot bind port {port}: {error}"))?;
    let offer = relay::offer(session as u32, OfferIngress::quic());
    let OfferRequest { scenario, labels, media, .. } = offer;
    let room = format!("webrtc-{session}");
    let offer = identity.sdp(&media.unwrap_or_default());
    let webrtc = Some(OfferSdp { offer, direction: None });
    let offer = OfferRequest { scenario, room, labels, webrtc, ..OfferRequest::default() };
    let opened = admin.open(&offer).await;
    let opened = opened.map_err(|error| error.to_string())?;
    let answer = opened.webrtc.ok_or("an answer without SDP")?.answer;
    UdpWay::of_answer(identity, &answer, socket).ok_or_else(|| format!("incomplete SDP: {answer}"))
}

fn handshakes(places: &Places) -> Result<HandshakeDelay, String> {
    let Row { leg, destinations, sessions, .. } = Row::base(Leg::Trunk);
    let stage = Stage { leg, destinations, sessions, obeys_caps: false, srtp: None };
    let mut running = relay::start(Kind::Ours, stage, places)?;
    let trace = Trace::voice().map_err(|error| error.to_string())?;
    let offer = Offer {
        direction: Direction::ToNode,
        pace: Pace::Rate(RATE),
        trace: &trace,
        warm_up: Duration::ZERO,
        length: WINDOW,
    };
    let api = running.api.clone().unwrap_or_default();
    let ways = running.rig.serving(|| open_all(&api)).map_err(|error| error.to_string())??;
    let mut calm_us = Vec::new();
    for _ in 0..CALM_WINDOWS {
        let calm = delay_p99_us(&mut running, &offer, || {})?;
        calm_us.push(calm.ok_or("no packet arrived in a window without handshakes")?);
    }
    let fleet = ClientFleet::start(&Books::default()).map_err(|error| error.to_string())?;
    let join = || {
        for (session, way) in (0..).zip(ways) {
            // The client sends a report, and no media.
            let persona = Persona { session, seed: session, voice: false, video: false };
            fleet.join(persona, ClientPath::Udp(way));
        }
    };
    let is_complete =
        |session: &u64| fleet.state(*session).is_some_and(|state| state.webrtc.handshakes == 1);
    let began = Instant::now();
    let calm_p99_us = super::median(calm_us);
    let mut delay = HandshakeDelay { calm_p99_us, ..HandshakeDelay::default() };
    // No packet was delayed for less than a window in which none arrived.
    let stalled_us = WINDOW.as_secs_f64() * 1e6;
    delay.delay_p99_us = delay_p99_us(&mut running, &offer, join)?.unwrap_or(stalled_us);
    loop {
        delay.complete = (0..HANDSHAKES).filter(is_complete).count() as u64;
        delay.took_s = began.elapsed().as_secs_f64();
        if delay.complete == HANDSHAKES || began.elapsed() > PATIENCE {
            return Ok(delay);
        }
        let later = delay_p99_us(&mut running, &offer, || {})?.unwrap_or(stalled_us);
        delay.delay_p99_us = delay.delay_p99_us.max(later);
    }
}

fn open_all(api: &Path) -> Result<Vec<UdpWay>, String> {
    let mut admin = ApiClient::new(ApiEndpoint::Unix(api.to_owned()));
    relay::runtime()?.block_on(async {
        let mut ways = Vec::new();
        for session in 0..HANDSHAKES {
            ways.push(open(&mut admin, session).await?);
        }
        Ok(ways)
    })
}

/// The delay that 99 % of the packets of a window had at most, microseconds; `None` if none arrived. `begin` is called at its begin.
fn delay_p99_us(
    running: &mut Running,
    offer: &Offer<'_>,
    begin: impl FnOnce(),
) -> Result<Option<f64>, String> {
    let mut begin = Some(begin);
    let edge = |edge| {
        if let Some(begin) = begin.take_if(|_| edge == Edge::Begin) {
            begin();
        }
    };
    let window = running.rig.run(offer, || Ok(()), edge).map_err(|error| error.to_string())?;
    running.process.must_run()?;
    Ok(window.tally.delays.percentile(0.99))
}
