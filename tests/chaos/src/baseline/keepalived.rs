//! The usual way to replace a media relay: keepalived moves the address, and rtpengine takes the calls from Redis.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use evenkeel_lab::client::UdpWay;
use evenkeel_lab::clock;
use evenkeel_lab::crowd::{Crowd, CrowdPlan, FaultEffect, InjectedFault, Scope};
use evenkeel_lab::ledger::GapSpread;
use evenkeel_lab::network::{INTERFACE, PREFIX};
use evenkeel_lab::process::ChildProcess;
use serde::Serialize;

use crate::hosts::{Addresses, CLIENTS, Hosts, SHARED};
use crate::process;
use crate::stage::{Places, write};

/// The default interval of adverts, and the shortest.
const ADVERTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(10)];
/// Deaths for each interval.
const DEATHS: usize = 6;
const SESSIONS: u32 = 200;
const REDIS: u16 = 6_379;
const NG: u16 = 2_223;
const OWNED_WITHIN: Duration = Duration::from_secs(20);
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// Time in which a member that returns reads the calls from Redis.
const JOINED_AFTER: Duration = Duration::from_secs(3);
/// Observation time after a death, in adverts, and at least.
const WATCHED_ADVERTS: u32 = 6;
const WATCHED_MIN: Duration = Duration::from_secs(2);

/// Gaps when the owner of the address is killed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct OwnerDeaths {
    pub(crate) advert_ms: u64,
    pub(crate) sessions: usize,
    /// Sessions without a packet at the end.
    pub(crate) unheard: usize,
    #[serde(flatten)]
    pub(crate) gap_ms: GapSpread,
}

/// Kills the owner in turns, for each interval of adverts.
///
/// # Errors
/// A program is missing, or a process failed.
pub(crate) async fn measure(places: &Places, seed: u64) -> Result<Vec<OwnerDeaths>, String> {
    let mut measured = Vec::new();
    for advert in ADVERTS {
        let effect = deaths(advert, places, seed).await?;
        measured.push(OwnerDeaths {
            advert_ms: advert.as_millis() as u64,
            sessions: effect.hit,
            unheard: effect.unheard,
            gap_ms: GapSpread::of_ns(effect.gaps_ns),
        });
    }
    Ok(measured)
}

async fn deaths(advert: Duration, places: &Places, seed: u64) -> Result<FaultEffect, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut pair = Pair::start(advert, places).await?;
    let plan =
        CrowdPlan { both_ways: true, clients_at: CLIENTS.into(), seed, ..CrowdPlan::new(SESSIONS) };
    let ways = pair.open_calls()?;
    let crowd = Crowd::enter_by(&plan, ways, |session| plan.room_of(session)).await;
    let mut crowd = crowd.map_err(|error| error.to_string())?;
    let mut all = FaultEffect::default();
    for _ in 0..DEATHS {
        crowd.begin_window();
        tokio::time::sleep(Duration::from_millis(200) + advert.mul_f64(rng.f64())).await;
        let happened = InjectedFault { at_ns: clock::now_ns(), scope: Scope::Everybody };
        pair.kill_owner();
        tokio::time::sleep(WATCHED_MIN.max(advert * WATCHED_ADVERTS)).await;
        all.add(crowd.end_window().await.effect_of(&happened));
        pair.restart_the_dead().await?;
    }
    Ok(all)
}

struct Pair {
    /// rtpengine and keepalived at each host. Ended before the hosts.
    members: Vec<[ChildProcess; 2]>,
    owner: usize,
    _redis: ChildProcess,
    addresses: Addresses,
    hosts: Hosts,
    advert: Duration,
    places: Places,
}

impl Pair {
    async fn start(advert: Duration, places: &Places) -> Result<Pair, String> {
        let hosts = Hosts::join(2)?;
        let addresses = Addresses::watch(&hosts.gateways, SHARED)?;
        let store = hosts.nodes.address().to_string();
        let redis = {
            let _inside = hosts.nodes.enter()?;
            let port = REDIS.to_string();
            let words = ["--bind", &store, "--port", &port, "--protected-mode", "no", "--save", ""];
            let words = [&words[..], &["--notify-keyspace-events", "KEA"]].concat();
            process::start("redis", Path::new("redis-server"), &words, &places.folder)?
        };
        let (members, places) = (Vec::new(), places.clone());
        let mut pair = Pair { members, owner: 0, _redis: redis, addresses, hosts, advert, places };
        for gateway in 0..2 {
            let member = pair.start_member(gateway)?;
            pair.members.push(member);
            pair.await_owner(0).await?;
        }
        tokio::time::sleep(JOINED_AFTER).await;
        Ok(pair)
    }

    fn start_member(&self, gateway: usize) -> Result<[ChildProcess; 2], String> {
        let host = &self.hosts.gateways[gateway];
        let (folder, name) = (&self.places.folder, host.name());
        let _inside = host.enter()?;
        // rtpengine binds the address before it is there.
        fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1").map_err(|error| error.to_string())?;
        // Each writes to a database of its own, and reads that of the other.
        let store = format!("{}:{REDIS}/{}", self.hosts.nodes.address(), gateway + 1);
        let words = [
            "--config-file=none".to_owned(),
            format!("--interface={SHARED}"),
            "--table=-1".to_owned(),
            "--num-threads=1".to_owned(),
            "--foreground".to_owned(),
            "--log-stderr".to_owned(),
            "--log-level=4".to_owned(),
            format!("--listen-ng={}:{NG}", host.address()),
            "--port-min=10000".to_owned(),
            "--port-max=19999".to_owned(),
            format!("--redis={store}"),
            format!("--subscribe-keyspace={}", 2 - gateway),
            "--redis-num-threads=4".to_owned(),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let rtpengine =
            process::start(&format!("rtpengine-{name}"), Path::new("rtpengine"), &words, folder)?;
        let file = folder.join(format!("keepalived-{name}.conf"));
        let text = format!(
            "global_defs {{\n vrrp_version 3\n vrrp_garp_master_repeat 5\n}}\n\
             vrrp_instance shared {{\n state BACKUP\n nopreempt\n interface {INTERFACE}\n virtual_router_id 51\n \
             priority {}\n advert_int {}\n virtual_ipaddress {{\n  {SHARED}/{PREFIX} dev {INTERFACE}\n }}\n}}\n",
            100 - gateway,
            self.advert.as_secs_f64(),
        );
        write(&file, &text)?;
        let at = |end: &str| folder.join(format!("keepalived-{name}{end}")).display().to_string();
        let (pid, child) = (at(".pid"), at("-vrrp.pid"));
        // A killed process leaves them behind.
        [&pid, &child].into_iter().for_each(|file| drop(fs::remove_file(file)));
        let file = file.display().to_string();
        let words = ["-n", "-l", "-f", &file, "-p", &pid, "-r", &child];
        let program = Path::new("keepalived");
        let keepalived = process::start(&format!("keepalived-{name}"), program, &words, folder)?;
        Ok([rtpengine, keepalived])
    }

    async fn await_owner(&self, gateway: usize) -> Result<(), String> {
        let until = Instant::now() + OWNED_WITHIN;
        while !self.addresses.has_it(gateway) {
            if Instant::now() > until {
                let problem = format!("did not take {SHARED} within {OWNED_WITHIN:?}");
                let [_, keepalived] = &self.members[gateway];
                return Err(keepalived.error(problem).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Opens calls of two sessions each, and returns the clients' sockets with the ports that they send to.
    fn open_calls(&self) -> Result<Vec<UdpWay>, String> {
        let failed = |error: std::io::Error| format!("opening calls: {error}");
        let control = UdpSocket::bind((CLIENTS, 0)).map_err(failed)?;
        control.connect((self.hosts.gateways[self.owner].address(), NG)).map_err(failed)?;
        control.set_read_timeout(Some(ANSWERED_WITHIN)).map_err(failed)?;
        let mut ways = Vec::new();
        for call in 0..SESSIONS / 2 {
            let bind = || UdpSocket::bind((CLIENTS, 0)).map_err(failed);
            let [caller, callee] = [bind()?, bind()?];
            let ask = |command: &str, from: &UdpSocket| -> Result<u16, String> {
                let port = from.local_addr().map_err(failed)?.port();
                let question = question(call, command, port);
                control.send(question.as_bytes()).map_err(failed)?;
                let mut answer = [0; 4_096];
                let length = control.recv(&mut answer).map_err(failed)?;
                let answer = String::from_utf8_lossy(&answer[..length]);
                media_port(&answer).ok_or_else(|| format!("rtpengine answered {answer:?}"))
            };
            // Each answer holds the port for the other end.
            let for_callee = ask("offer", &caller)?;
            let for_caller = ask("answer", &callee)?;
            for (socket, port) in [(caller, for_caller), (callee, for_callee)] {
                let gateway = SocketAddr::from((SHARED, port));
                ways.push(UdpWay { socket, gateway, ice: None, webrtc: None });
            }
        }
        Ok(ways)
    }

    fn kill_owner(&mut self) {
        self.members[self.owner].iter_mut().for_each(ChildProcess::kill);
    }

    /// Starts the member that was killed again. The other is the owner from then on.
    async fn restart_the_dead(&mut self) -> Result<(), String> {
        let dead = self.owner;
        self.owner = 1 - dead;
        self.await_owner(self.owner).await?;
        // keepalived could not remove it.
        self.hosts.gateways[dead].ip(&format!("addr del {SHARED}/{PREFIX} dev {INTERFACE}"))?;
        self.members[dead] = self.start_member(dead)?;
        tokio::time::sleep(JOINED_AFTER).await;
        Ok(())
    }
}

/// A message of the NG protocol about the client at this port.
fn question(call: u32, command: &str, port: u16) -> String {
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 {CLIENTS}\r\ns=-\r\nc=IN IP4 {CLIENTS}\r\nt=0 0\r\nm=audio {port} RTP/AVP 111\r\n\
         a=rtpmap:111 opus/48000/2\r\n"
    );
    let id = format!("call-{call}");
    let pairs = [
        ("ICE", "remove"),
        ("call-id", &id),
        ("command", command),
        ("from-tag", "a"),
        ("sdp", &sdp),
    ];
    let to = ("to-tag", "b");
    let to = (command == "answer").then_some(to);
    let pairs = pairs.into_iter().chain(to);
    let text = |text: &str| format!("{}:{text}", text.len());
    let body: String = pairs.map(|(key, value)| text(key) + &text(value)).collect();
    format!("{call}-{command} d{body}e")
}

fn media_port(answer: &str) -> Option<u16> {
    answer.split_once("m=audio ")?.1.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_is_a_sorted_dictionary() {
        let text = question(7, "answer", 4_000);
        assert!(text.starts_with("7-answer d3:ICE6:remove7:call-id6:call-7"), "{text}");
        assert!(text.ends_with("6:to-tag1:be"), "{text}");
        assert_eq!(media_port(&text), Some(4_000));
        assert_eq!(media_port("7-answer d6:result5:errore"), None);
    }
}
