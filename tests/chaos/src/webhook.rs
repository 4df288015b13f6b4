//! A sample node for driver `webhook`: it answers every POST with the address of its media port, which returns packets to their source.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use clap::Args;
use evenkeel_lab::sample_node::{self, SampleNodeOptions};
use serde_json::json;

/// A client that sends no whole request within this time is disconnected.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// Options of the node.
#[derive(Args)]
pub(crate) struct WebhookNode {
    /// Address of media, by UDP, and of POSTs, by TCP; port 0 takes a free one
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    name: String,
    #[arg(long)]
    json: bool,
}

impl WebhookNode {
    pub(crate) fn run(self) -> Result<(), String> {
        let listener = TcpListener::bind(self.listen);
        let listener =
            listener.map_err(|error| format!("cannot listen at {}: {error}", self.listen))?;
        let media = listener.local_addr().map_err(|error| format!("a port for POSTs: {error}"))?;
        // The thread ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // The gateway repeats a request that fails.
                let _failed = answer(stream, media);
            }
        });
        let options = SampleNodeOptions::new(media, &self.name);
        sample_node::run(options, Box::new(()), self.json).map_err(|error| error.to_string())
    }
}

/// Reads one request, and answers it with this address.
fn answer(mut stream: TcpStream, media: SocketAddr) -> io::Result<()> {
    stream.set_read_timeout(Some(READ_WITHIN))?;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        request.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    io::copy(&mut request.take(length), &mut io::sink())?;
    let body = json!({"address": media}).to_string();
    let head =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes())
}

#[cfg(test)]
mod tests {
    use evenkeel_testkit::http::HttpClient;

    use super::*;

    #[test]
    fn post_is_answered_with_the_media_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let media: SocketAddr = "127.0.0.1:7001".parse().unwrap();
        let answers =
            std::thread::spawn(move || answer(listener.accept().unwrap().0, media).unwrap());
        let mut client = HttpClient::over(TcpStream::connect(at).unwrap());
        let answer = client.ask("POST /sessions", &[], b"{}").unwrap();
        answers.join().unwrap();
        assert_eq!((answer.status, &*answer.body), (200, "{\"address\":\"127.0.0.1:7001\"}"));
    }
}
