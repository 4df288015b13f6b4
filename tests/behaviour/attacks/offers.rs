//! Clients with tokens that send many large offers.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_client::ApiCall;
use evenkeel_testkit::required;

use super::{StopOnDrop, memory_kib};
use crate::harness::whip::{WEBRTC, Whip, claims, location, token};
use crate::harness::{Hosts, Node, Phone, WebrtcPhone, await_replica, talk};
use crate::index::at;

/// The largest offer has 64 KiB.
const OFFER_BYTES: usize = 60 << 10;

/// The m-lines of the largest offer.
const SECTIONS: usize = 64;

/// The longest name of an m-line has 255 bytes.
const MID_BYTES: usize = 240;

/// The offer of a client with as many m-lines as are allowed, with these names, and with this line in each as often as the length of the
/// offer allows.
fn large_offer(mid: impl Fn(usize) -> String, line: &str) -> String {
    let sdp = WebrtcPhone::new(1).sdp();
    let (head, sections) = sdp.split_at(sdp.find("m=audio").unwrap());
    let audio = &sections[..sections.find("m=video").unwrap()];
    let mids: Vec<String> = (0..SECTIONS).map(mid).collect();
    let mut offer = head.replace("BUNDLE 0 1", &format!("BUNDLE {}", mids.join(" ")));
    for (number, mid) in (1..).zip(mids) {
        offer += &audio.replace("a=mid:0", &format!("a=mid:{mid}"));
        let left = (OFFER_BYTES * number / SECTIONS).saturating_sub(offer.len());
        offer += &line.repeat(left.checked_div(line.len()).unwrap_or(0));
    }
    offer
}

/// A thread of a process.
struct Thread {
    folder: String,
}

impl Thread {
    fn of(process: i32, name: &str) -> Thread {
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let mut folders = threads.map(|thread| thread.unwrap().path().display().to_string());
        let is_named = |folder: &String| {
            fs::read_to_string(format!("{folder}/comm")).is_ok_and(|found| found.trim() == name)
        };
        Thread { folder: folders.find(is_named).unwrap_or_else(|| panic!("no thread {name}")) }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("{}/{file}", self.folder)).unwrap()
    }

    /// The time on a CPU.
    fn ran(&self) -> Duration {
        let times = self.read("schedstat");
        Duration::from_nanos(times.split(' ').next().unwrap().parse().unwrap())
    }

    /// The nice value: the lower, the earlier it runs (proc_pid_stat(5), field 19).
    fn nice(&self) -> i32 {
        let stat = self.read("stat");
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(16).unwrap().parse().unwrap()
    }
}

#[test]
fn refused_offers_do_not_delay_operators() {
    let attribute = format!("a=attribute:{}\r\n", "x".repeat(40));
    let fingerprint = format!("a=fingerprint:sha-256 {}\r\n", ["AB"; 32].join(":"));
    let node = Node::agent("east-a1");
    let (mut gateway, whip) = Whip::of_process(&node);
    let mut ann = Phone::new(1);
    gateway.open("room", &mut ann);
    let process = gateway.pid().as_raw();
    let [clients, operators] =
        ["evenkeel-webrtc", "evenkeel-api"].map(|name| Thread::of(process, name));
    assert!(clients.nice() > operators.nice(), "{} {}", clients.nice(), operators.nice());
    for line in [attribute, fingerprint] {
        // All lines are parsed before it is refused, because two m-lines have one name.
        let offer = large_offer(|number| number.min(SECTIONS - 2).to_string(), &line);
        let (ended, refused) = (AtomicBool::new(false), AtomicU64::new(0));
        let before = [&clients, &operators].map(Thread::ran);
        std::thread::scope(|scope| {
            let _ending = StopOnDrop(&ended);
            for attacker in 0..4 {
                let (whip, offer, ended, refused) = (&whip, &offer, &ended, &refused);
                scope.spawn(move || {
                    for number in 0.. {
                        if ended.load(Ordering::Relaxed) {
                            break;
                        }
                        let token = token(&claims(&format!("{attacker}-{number}")));
                        let (status, answer) = whip.ask("POST /whip/call/room", &token, offer);
                        assert_eq!(status, 400, "{answer}");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let (heard, mut asked) = (ann.heard.len(), 0);
            talk(&mut [&mut ann], "the flood goes on", |phones| {
                let refused = refused.load(Ordering::Relaxed);
                // As many requests as offers, however long a busy machine takes for an offer.
                if refused > asked {
                    asked += 1;
                    let alive =
                        gateway.ask(async |client| client.ask(ApiCall::get("/livez")).await);
                    assert_eq!(alive.unwrap().status, 200);
                }
                asked >= 100 && phones[0].heard.len() >= heard + 50
            });
        });
        let after = [&clients, &operators].map(Thread::ran);
        let [took, delayed] = [0, 1].map(|thread: usize| after[thread] - before[thread]);
        // The answers to the operator take some time, too.
        assert!(took > 4 * delayed, "{took:?} and {delayed:?} at the operators' thread");
    }
}

/// Answers of 20 MiB in all, beside which a process needs little.
const TOKENS: usize = 600;
const ANSWER_BYTES_MIN: usize = 36 << 10;
const GROWN_MAX_KIB: u64 = 12 << 10;

/// The answers to a client that repeats its offer are kept as long as its session.
#[required(Namespaces)]
#[test]
fn answers_of_ended_sessions_take_little_memory() {
    // A busy machine may delay the owner until its standby takes over.
    assert!((0..5).any(|_| owner_ends_sessions()), "the owner changed in each attempt");
}

/// Returns false if the owner changed.
fn owner_ends_sessions() -> bool {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, standby] = place.group_with(&node.text(), |_, world| {
        world.listens = world.listens.replace("declared", "stun");
        world.admin = WEBRTC.replace("127.0.0.1:0", "127.0.0.1:8443");
    });
    await_replica(&mut owner);
    let whip = Whip::at(([127, 0, 0, 1], 8443).into());
    let offer = large_offer(|number| format!("{number:0>MID_BYTES$}"), "");
    let processes = [owner.pid(), standby.pid()].map(|process| process.as_raw() as u32);
    let before = processes.map(|process| memory_kib(process, "VmHWM:"));
    let open_and_end = |number| {
        let token = token(&claims(&format!("token-{number}")));
        let (status, answer) = whip.try_ask("POST /whip/call/room", &token, &offer)?;
        assert!([201, 503].contains(&status), "{answer}");
        let session = (status == 201).then(|| location(&answer))?;
        assert!(answer.len() >= ANSWER_BYTES_MIN, "{} bytes", answer.len());
        let (status, answer) = whip.try_ask(&format!("DELETE {session}"), &token, "")?;
        assert!([200, 503].contains(&status), "{answer}");
        (status == 200).then_some(())
    };
    let ended = at(&place.gateways[0], || (0..TOKENS).try_for_each(open_and_end));
    if ended.is_none() {
        return false;
    }
    await_replica(&mut owner);
    for (process, before) in processes.into_iter().zip(before) {
        let grown = memory_kib(process, "VmHWM:") - before;
        assert!(grown < GROWN_MAX_KIB, "{grown} KiB");
    }
    true
}
