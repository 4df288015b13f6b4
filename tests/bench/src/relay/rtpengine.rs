//! rtpengine in user space: one thread, calls made over its NG protocol (bencode over UDP), two sockets and two for RTCP
//! per session.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use evenkeel_media::srtp::{CryptoAttribute, SrtpKey};

use crate::load::Wire;

use super::{Kind, Places, Running, Stage, client_line, relay_key, rig, system};
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
    let mut rig = rig(stage, Wire::Port, Vec::new())?;
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
        let line = stage.srtp.map(|suite| client_line(suite, session));
        let answer = call(&control, session, (*client, line.as_ref()), *node)
            .map_err(|why| process.error(format!("call {session}: {why}")))?;
        rig.connect(session, answer.address).map_err(system)?;
        if let Some((line, key)) = line.zip(answer.key) {
            rig.encrypt(session, &line.key, &key)?;
        }
    }
    Ok(Running { kind: Kind::Rtpengine, process, rig, api: None })
}

/// A client of a call, and its keys if it has SRTP.
type Caller<'a> = (SocketAddr, Option<&'a CryptoAttribute>);

/// The side of rtpengine towards a client.
struct CallAnswer {
    address: SocketAddr,
    /// `None` for a client without SRTP.
    key: Option<SrtpKey>,
}

/// Creates a call between a client and a node, which has plain RTP.
fn call(
    control: &UdpSocket,
    session: u32,
    (client, line): Caller<'_>,
    node: SocketAddr,
) -> Result<CallAnswer, String> {
    let id = format!("call-{session}");
    let tags = [("call-id", id.as_str()), ("from-tag", "client")];
    let offer = sdp(client, line);
    let plain = [("transport-protocol", "RTP/AVP")];
    let plain = if line.is_some() { &plain[..] } else { &[] };
    let words = [&tags[..], plain, &[("command", "offer"), ("sdp", &offer)]].concat();
    ask(control, &format!("{session}o"), &words)?;
    let answer = sdp(node, None);
    let words = [&tags[..], &[("command", "answer"), ("to-tag", "node"), ("sdp", &answer)]];
    let told = ask(control, &format!("{session}a"), &words.concat())?;
    let after = |start: &str, end: char| told.split(start).nth(1)?.split(end).next();
    let port = after("m=audio ", ' ').and_then(|port| port.parse::<u16>().ok());
    let port = port.ok_or_else(|| format!("it said {told:?}"))?;
    let key = line.map(|line| {
        let value = after("a=crypto:", '\r').ok_or_else(|| format!("it said {told:?}"))?;
        relay_key(value, line)
    });
    Ok(CallAnswer { address: SocketAddr::from((RELAY, port)), key: key.transpose()? })
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

fn sdp(at: SocketAddr, crypto: Option<&CryptoAttribute>) -> String {
    let (ip, port) = (at.ip(), at.port());
    let (profile, crypto) = match crypto {
        Some(line) => ("RTP/SAVP", format!("a=crypto:{}\r\n", *line.to_value())),
        None => ("RTP/AVP", String::new()),
    };
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} {profile} 111\r\na=rtpmap:111 opus/48000/2\r\n{crypto}a=sendrecv\r\n"
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
