//! rtpengine in user space: one thread, calls made over its NG protocol (bencode over UDP), two sockets and two for RTCP
//! per session.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crate::load::Wire;

use super::{Kind, Places, Running, Stage, rig, system};
use crate::namespace::{CLIENTS, RELAY};
use crate::process;

const PROGRAM: &str = "/usr/bin/rtpengine";
const NG_PORT: u16 = 5_004;
/// Time limit of an answer; commands are repeated until rtpengine is ready.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
const TRIES: usize = 20;

pub(super) fn missing() -> Option<String> {
    (!Path::new(PROGRAM).exists()).then(|| format!("{PROGRAM} is not there (rtpengine-daemon)"))
}

pub(super) fn start(stage: Stage, places: &Places) -> Result<Running, String> {
    let rig = rig(stage, Wire::Port, Vec::new())?;
    let ng = SocketAddr::from((RELAY, NG_PORT));
    let words = [
        format!("--interface={}", ng.ip()),
        format!("--listen-ng={ng}"),
        "--table=-1".into(),
        // Outside the kernel's ephemeral port range.
        "--port-min=10000".into(),
        "--port-max=32000".into(),
        "--num-threads=1".into(),
        "--timeout=3600".into(),
        "--silent-timeout=3600".into(),
        "--foreground".into(),
        "--log-stderr".into(),
        "--log-level=3".into(),
    ];
    let process = process::start("rtpengine", Path::new(PROGRAM), &words, b"", &places.folder)?;
    let (clients, nodes) = (rig.clients_at().map_err(system)?, rig.nodes_at().map_err(system)?);
    let control = UdpSocket::bind((std::net::Ipv4Addr::from(CLIENTS), 0))
        .and_then(|socket| socket.connect(ng).map(|()| socket))
        .and_then(|socket| socket.set_read_timeout(Some(ANSWER_WITHIN)).map(|()| socket))
        .map_err(system)?;
    let sides = clients.iter().zip(nodes.iter().cycle());
    for (session, (client, node)) in (0..).zip(sides) {
        let answer = call(&control, session, *client, *node)
            .map_err(|why| process.error(format!("call {session}: {why}")))?;
        rig.connect(session, answer).map_err(system)?;
    }
    Ok(Running { kind: Kind::Rtpengine, process, rig, api: None })
}

/// Creates a call between a client and a node, and returns the client's destination.
fn call(
    control: &UdpSocket,
    session: u32,
    client: SocketAddr,
    node: SocketAddr,
) -> Result<SocketAddr, String> {
    let id = format!("call-{session}");
    let tags = [("call-id", id.as_str()), ("from-tag", "client")];
    let offer = sdp(client);
    let words = [&tags[..], &[("command", "offer"), ("sdp", &offer)]].concat();
    ask(control, &format!("{session}o"), &words)?;
    let answer = sdp(node);
    let words = [&tags[..], &[("command", "answer"), ("to-tag", "node"), ("sdp", &answer)]];
    let told = ask(control, &format!("{session}a"), &words.concat())?;
    let port = told.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
    let port = port.and_then(|port| port.parse::<u16>().ok());
    port.map(|port| SocketAddr::from((RELAY, port))).ok_or_else(|| format!("it said {told:?}"))
}

fn ask(control: &UdpSocket, cookie: &str, words: &[(&str, &str)]) -> Result<String, String> {
    let question = format!("{cookie} {}", dictionary(words));
    let mut answer = [0; 8_192];
    for _ in 0..TRIES {
        match control.send(question.as_bytes()).and_then(|_| control.recv(&mut answer)) {
            Ok(length) => {
                let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
                // A late answer belongs to an earlier command.
                if answer.starts_with(&format!("{cookie} ")) {
                    return match answer.contains("6:result2:ok") {
                        true => Ok(answer),
                        false => Err(answer),
                    };
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::thread::sleep(ANSWER_WITHIN / 5);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("no answer".to_owned())
}

/// A bencoded dictionary of strings.
fn dictionary(words: &[(&str, &str)]) -> String {
    let string = |text: &str| format!("{}:{text}", text.len());
    let entries = words.iter().map(|(key, value)| string(key) + &string(value));
    format!("d{}e", entries.collect::<String>())
}

fn sdp(at: SocketAddr) -> String {
    let (ip, port) = (at.ip(), at.port());
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 111\r\na=rtpmap:111 opus/48000/2\r\na=sendrecv\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionary_is_bencoded() {
        let words = [("command", "offer"), ("call-id", "")];
        assert_eq!(dictionary(&words), "d7:command5:offer7:call-id0:e");
    }
}
