//! A registry of Debian's package `docker-registry` on loopback, and a server in front of it that fails.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A registry listens within this time.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// The login of a registry that asks for one.
pub const LOGIN: &str = "ci:a password of some length";

/// The same for the registry: bcrypt of the password (htpasswd).
const HTPASSWD: &str = "ci:$2y$05$abcdefghijklmnopqrstuuJeUfy8BS5lobK3kgzEpOvOB.qva9UfG\n";

/// It is killed on drop.
pub struct RegistryServer {
    pub address: SocketAddr,
    folder: PathBuf,
    child: Child,
}

impl RegistryServer {
    /// Starts a registry with its data in a folder, and waits until it listens.
    ///
    /// # Panics
    /// It does not listen.
    pub fn start(folder: &Path, asks_for_login: bool) -> RegistryServer {
        let folder = folder.to_owned();
        fs::create_dir_all(&folder).expect("a folder can be created");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
        let address = free.expect("loopback has a free port");
        let users = folder.join("htpasswd");
        fs::write(&users, HTPASSWD).expect("a file can be written");
        let auth = match asks_for_login {
            true => format!("auth: {{htpasswd: {{realm: test, path: {users:?}}}}}\n"),
            false => String::new(),
        };
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
             http: {{addr: \"{address}\"}}\n{auth}",
            folder.join("data")
        );
        fs::write(&config, text).expect("a file can be written");
        let log = fs::File::create(folder.join("log")).expect("the log can be created");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("docker-registry starts");
        let server = RegistryServer { address, folder, child };
        let deadline = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen at {address}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        server
    }

    /// Ends the registry. Its data stays.
    pub fn kill(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The file of the content with this digest, in hexadecimal.
    pub fn content(&self, digest: &str) -> PathBuf {
        let blobs = self.folder.join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digest[..2]).join(digest).join("data")
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A fault of a [`FailingProxy`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyFault {
    /// It answers 503.
    Unavailable,
    /// It ends the connection after so many bytes of the answer.
    CutAfter(usize),
}

/// Passes connections on, the first ones with faults. Ends with the process.
pub struct FailingProxy {
    pub address: SocketAddr,
    faults: Arc<Mutex<Vec<ProxyFault>>>,
}

impl FailingProxy {
    /// # Panics
    /// Loopback has no free port.
    pub fn start(target: SocketAddr) -> FailingProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let faults = Arc::new(Mutex::new(Vec::<ProxyFault>::new()));
        let next = Arc::clone(&faults);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let fault = next.lock().unwrap_or_else(PoisonError::into_inner).pop();
                // The client sees an error as the end of its connection.
                let _ended = pass(client, target, fault);
            }
        });
        FailingProxy { address, faults }
    }

    /// The faults of the next connections, in this order.
    pub fn fail(&self, faults: &[ProxyFault]) {
        let mut next = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *next = faults.iter().rev().copied().collect();
    }

    /// Faults that are still to come.
    pub fn remaining(&self) -> usize {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn pass(
    mut client: TcpStream,
    target: SocketAddr,
    fault: Option<ProxyFault>,
) -> std::io::Result<()> {
    if fault == Some(ProxyFault::Unavailable) {
        let mut request = [0; 4_096];
        let _read = client.read(&mut request)?;
        return client.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    }
    let mut server = TcpStream::connect(target)?;
    let (mut requests, mut to_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _copied = std::io::copy(&mut requests, &mut to_server);
    });
    match fault {
        Some(ProxyFault::CutAfter(bytes)) => {
            std::io::copy(&mut (&mut server).take(bytes as u64), &mut client)?;
        }
        _ => _ = std::io::copy(&mut server, &mut client)?,
    }
    client.shutdown(Shutdown::Both)
}
