//! Hosts as network namespaces, each with a veth to one bridge. Open files hold the namespaces, so that nothing is left
//! behind, even if this process is killed.

use std::fs::{self, File};
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

/// The prefix length of every address.
pub const PREFIX: u8 = 24;
/// The interface of every host.
pub const INTERFACE: &str = "eth0";

/// A bridge in a namespace of its own.
pub struct NamespaceNetwork {
    switch: Namespace,
}

/// A host with one interface.
pub struct Host {
    name: &'static str,
    address: Ipv4Addr,
    number: u8,
    /// `None` for the namespace of the process.
    own: Option<Namespace>,
}

impl NamespaceNetwork {
    /// Creates a bridge without ports.
    ///
    /// # Errors
    /// The process is not root, or iproute2 is missing.
    pub fn lay() -> Result<NamespaceNetwork, String> {
        let switch = Namespace::new()?;
        switch.forward_unfiltered()?;
        switch.ip("link add bridge type bridge mcast_snooping 0")?;
        switch.ip("link set bridge up")?;
        Ok(NamespaceNetwork { switch })
    }

    /// Adds a host with a namespace of its own. The last byte of the address is its number in MAC addresses.
    pub fn host(&self, name: &'static str, address: Ipv4Addr) -> Result<Host, String> {
        let own = Namespace::new()?;
        own.ip("link set lo up")?;
        self.join(Host::new(name, address, Some(own)))
    }

    /// Adds the namespace of this process as a host.
    pub fn host_here(&self, name: &'static str, address: Ipv4Addr) -> Result<Host, String> {
        self.join(Host::new(name, address, None))
    }

    fn join(&self, host: Host) -> Result<Host, String> {
        let here = Namespace::current()?;
        let namespace = host.own.as_ref().unwrap_or(&here).path();
        let (port, mac) = (port(host.name), host.mac());
        self.switch.ip(&format!(
            "link add {port} type veth peer name {INTERFACE} address {mac} netns {namespace}"
        ))?;
        self.switch.ip(&format!("link set {port} master bridge up"))?;
        // Every datagram is a frame of its own, so that frames can be counted.
        host.ip(&format!("link set {INTERFACE} gso_max_segs 1 up"))?;
        host.ip(&format!("addr add {}/{PREFIX} dev {INTERFACE}", host.address))?;
        Ok(host)
    }

    /// Cuts the link of a host, or restores it.
    pub fn set_link(&self, host: &Host, is_up: bool) -> Result<(), String> {
        let to = if is_up { "up" } else { "down" };
        self.switch.ip(&format!("link set {} {to}", port(host.name)))
    }
}

fn port(host: &str) -> String {
    format!("to-{host}")
}

impl Host {
    fn new(name: &'static str, address: Ipv4Addr, own: Option<Namespace>) -> Host {
        let [.., number] = address.octets();
        Host { name, address, number, own }
    }

    /// The host's name in [`NamespaceNetwork::host`].
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The IPv4 address of its [`INTERFACE`].
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The Ethernet address of its [`INTERFACE`], as `ip link` writes it.
    pub fn mac(&self) -> String {
        format!("02:00:00:00:00:{:02x}", self.number)
    }

    /// Moves this thread into the host until the result is dropped. Sockets, processes and threads that it creates
    /// meanwhile stay there.
    pub fn enter(&self) -> Result<NamespaceGuard, String> {
        match &self.own {
            Some(namespace) => namespace.enter(),
            None => Namespace::current()?.enter(),
        }
    }

    /// Runs `ip` with these arguments in the host's namespace.
    pub fn ip(&self, words: &str) -> Result<(), String> {
        let _inside = self.enter()?;
        ip(words)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.own.is_none() {
            // The namespace of the process goes on without it.
            let _gone = self.ip(&format!("link del {INTERFACE}"));
        }
    }
}

struct Namespace(File);

impl Namespace {
    fn new() -> Result<Namespace, String> {
        let made = || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                format!("needs root, for network namespaces: unshare failed: {errno}")
            })?;
            Namespace::current()
        };
        std::thread::scope(|scope| scope.spawn(made).join())
            .unwrap_or_else(|_| Err("the thread of a namespace panicked".to_owned()))
    }

    fn current() -> Result<Namespace, String> {
        let file = File::open("/proc/thread-self/ns/net");
        file.map(Namespace).map_err(|error| format!("/proc/thread-self/ns/net: {error}"))
    }

    /// A path for other processes.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    fn enter(&self) -> Result<NamespaceGuard, String> {
        let back = Namespace::current()?;
        let entered = setns(&self.0, CloneFlags::CLONE_NEWNET);
        entered.map_err(|errno| format!("cannot enter a network namespace: {errno}"))?;
        Ok(NamespaceGuard { back, _of_this_thread: PhantomData })
    }

    /// A switch does not pass frames through a firewall. By default br_netfilter does.
    fn forward_unfiltered(&self) -> Result<(), String> {
        let _inside = self.enter()?;
        for family in ["arptables", "ip6tables", "iptables"] {
            // Without br_netfilter the file is missing. In some containers it cannot be written; then frames take longer.
            let _ = fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}"), "0");
        }
        Ok(())
    }

    fn ip(&self, words: &str) -> Result<(), String> {
        let _inside = self.enter()?;
        ip(words)
    }
}

/// This thread is in another network namespace until this is dropped.
pub struct NamespaceGuard {
    back: Namespace,
    _of_this_thread: PhantomData<*const ()>,
}

impl Drop for NamespaceGuard {
    fn drop(&mut self) {
        let back = setns(&self.back.0, CloneFlags::CLONE_NEWNET);
        assert!(back.is_ok() || std::thread::panicking(), "cannot leave a namespace: {back:?}");
    }
}

/// Runs `ip` of iproute2 in the network namespace of this thread.
pub fn ip(words: &str) -> Result<(), String> {
    match Command::new("ip").args(words.split(' ')).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ip {words} (iproute2) failed: {status}")),
        Err(error) => Err(format!("needs ip {words} (iproute2): {error}")),
    }
}

#[cfg(test)]
mod tests;
