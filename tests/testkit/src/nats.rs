//! A NATS server with JetStream, on loopback or in the network namespace of the thread that starts it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::need::{Need, nats_server};

/// A server listens within this time, also after its data was damaged.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Requests that are sent before the first answer is read.
const TOGETHER: usize = 64;

const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// It is killed on drop.
pub struct NatsServer {
    program: PathBuf,
    address: SocketAddr,
    /// Of its configuration, data and log.
    folder: PathBuf,
    child: Option<Child>,
}

impl NatsServer {
    /// Prepares a server that brings each write to the disk before it is acknowledged.
    ///
    /// # Errors
    /// The program is missing, or the folder cannot be written.
    pub fn new(address: SocketAddr, folder: &Path) -> Result<NatsServer, String> {
        Need::Nats.require()?;
        let program = nats_server().ok_or("nats-server was removed")?;
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let folder = folder.to_owned();
        let server = NatsServer { program, address, folder, child: None };
        let text = format!(
            "listen: \"{address}\"\nserver_name: store\n\
             jetstream {{ store_dir: {:?}, sync_interval: always }}\n",
            server.data()
        );
        std::fs::write(server.folder.join("nats.conf"), text).map_err(|error| error.to_string())?;
        Ok(server)
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Panics
    /// It does not listen.
    pub fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("log"));
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.folder.join("nats.conf"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the log can be opened"));
        self.child = Some(command.spawn().expect("nats-server starts"));
        let deadline = Instant::now() + STARTS_WITHIN;
        while self.try_request("$JS.API.INFO", "").is_err() {
            assert!(Instant::now() < deadline, "nats-server does not answer at {}", self.address);
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only if it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops the process, or lets it continue.
    pub fn pause(&self, paused: bool) {
        let signal = if paused { Signal::SIGSTOP } else { Signal::SIGCONT };
        let child = self.child.as_ref().expect("it runs");
        kill(Pid::from_raw(child.id() as i32), signal).expect("it lives");
    }

    /// A copy of the data of a server that does not run, or is idle.
    pub fn save(&self, name: &str) {
        copy(&self.data(), &self.folder.join(name));
    }

    /// Replaces the data by a copy, while the server does not run.
    pub fn restore(&self, name: &str) {
        assert!(self.child.is_none(), "it runs");
        std::fs::remove_dir_all(self.data()).expect("the data can be removed");
        copy(&self.folder.join(name), &self.data());
    }

    /// Deletes all entries of a bucket.
    pub fn purge(&self, bucket: &str) {
        let answer = self.request(&format!("$JS.API.STREAM.PURGE.KV_{bucket}"), "");
        assert_eq!(answer["success"], true, "{answer}");
    }

    /// Creates a bucket as a gateway does, but without a limit of its values.
    pub fn create(&self, bucket: &str) {
        let config = json!({
            "name": format!("KV_{bucket}"), "subjects": [format!("$KV.{bucket}.>")],
            "max_msgs_per_subject": 1, "storage": "file", "discard": "new", "allow_direct": true,
            "allow_rollup_hdrs": true, "allow_msg_ttl": true,
        });
        let subject = format!("$JS.API.STREAM.CREATE.KV_{bucket}");
        let answer = self.request(&subject, &config.to_string());
        assert!(answer["config"].is_object(), "{answer}");
    }

    pub fn put(&self, bucket: &str, key: &str, value: &str) {
        let answer = self.request(&format!("$KV.{bucket}.{key}"), value);
        assert!(answer["seq"].is_u64(), "{answer}");
    }

    /// The keys of a bucket under a pattern, without those that were deleted.
    pub fn keys(&self, bucket: &str, pattern: &str) -> Vec<String> {
        let prefix = format!("$KV.{bucket}.");
        let filter = json!({ "subjects_filter": format!("{prefix}{pattern}") }).to_string();
        let info = self.request(&format!("$JS.API.STREAM.INFO.KV_{bucket}"), &filter);
        let subjects = info["state"]["subjects"].as_object().into_iter().flatten();
        let last = |(subject, _): (&String, _)| json!({ "last_by_subj": subject }).to_string();
        let last: Vec<String> = subjects.map(last).collect();
        let found = self.try_requests(&format!("$JS.API.STREAM.MSG.GET.KV_{bucket}"), &last);
        let found = found.expect("nats-server answers").into_iter();
        let kept = found.filter(|found| found["message"]["data"].is_string());
        let mut keys: Vec<String> = kept
            .filter_map(|found| {
                Some(found["message"]["subject"].as_str()?.strip_prefix(&prefix)?.to_owned())
            })
            .collect();
        keys.sort();
        keys
    }

    fn request(&self, subject: &str, payload: &str) -> Value {
        self.try_request(subject, payload).expect("nats-server answers")
    }

    fn try_request(&self, subject: &str, payload: &str) -> std::io::Result<Value> {
        Ok(self.try_requests(subject, &[payload.to_owned()])?.remove(0))
    }

    /// Sends all requests, and returns the answers in any order.
    fn try_requests(&self, subject: &str, payloads: &[String]) -> std::io::Result<Vec<Value>> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWERS_WITHIN)?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut answers = Vec::new();
        let hello = "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB answer 1\r\n";
        stream.write_all(hello.as_bytes())?;
        for some in payloads.chunks(TOGETHER) {
            let publish = |payload: &String| {
                format!("PUB {subject} answer {}\r\n{payload}\r\n", payload.len())
            };
            let text: String = some.iter().map(publish).collect();
            stream.write_all(text.as_bytes())?;
            for _ in some {
                answers.push(next_answer(&mut lines)?);
            }
        }
        Ok(answers)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

fn next_answer(lines: &mut impl BufRead) -> std::io::Result<Value> {
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.starts_with("HMSG ") {
            return Err(std::io::Error::other("no responders"));
        }
        let length = line.strip_prefix("MSG ").and_then(|rest| rest.split(' ').next_back());
        if let Some(length) = length {
            let length = length.trim().parse().map_err(std::io::Error::other)?;
            let mut payload = vec![0; length];
            lines.read_exact(&mut payload)?;
            return serde_json::from_slice(&payload).map_err(std::io::Error::other);
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()), "{} is copied", from.display());
}
