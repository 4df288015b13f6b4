//! Sample nodes in threads, which can be killed and restarted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use evenkeel_lab::sample_node::{
    PlainRoom, SampleNode, SampleNodeCounters, SampleNodeOptions, number_of,
};
use evenkeel_media::trunk::message::NodeSecret;

pub(crate) const SECRET: &[u8] = b"what both ends know of each other";

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    options: SampleNodeOptions,
    /// Lines of the node's `[[node]]` table that select the driver.
    driver: String,
    region: String,
    zone: String,
    alive: Option<Alive>,
}

struct Alive {
    ending: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<SampleNodeCounters>,
}

impl Node {
    /// A node with trunk legs that rewrites RTP; its name is `<region>-<zone><number>`.
    pub(crate) fn agent(name: &str) -> Node {
        Node::start(name, "127.0.0.1:0", "driver = \"agent\"\nsecret_file = \"secret\"", |_| {})
    }

    /// A node with trunk legs that forwards packets unchanged.
    pub(crate) fn unchanged(name: &str) -> Node {
        Node::start(name, "127.0.0.1:0", "driver = \"agent\"\nsecret_file = \"secret\"", |o| {
            o.untouched = true;
        })
    }

    /// A node that forwards packets unchanged and keeps its number out of test headers: two nodes send equal copies.
    pub(crate) fn identical(name: &str) -> Node {
        Node::with(name, "127.0.0.1:0", |options| {
            options.untouched = true;
            options.stamps = false;
        })
    }

    pub(crate) fn with(
        name: &str,
        listen: &str,
        change: impl FnOnce(&mut SampleNodeOptions),
    ) -> Node {
        Node::start(name, listen, "driver = \"agent\"\nsecret_file = \"secret\"", change)
    }

    /// A node with port legs and this probe. Its clients share one room, or are each alone.
    pub(crate) fn plain(name: &str, probe: &str, room: PlainRoom) -> Node {
        let driver = format!("driver = \"plain\"\nprobe = \"{probe}\"");
        Node::start(name, "127.0.0.1:0", &driver, |options| options.plain_room = room)
    }

    /// The gateway knows that the node keeps the numbers of senders.
    pub(crate) fn keeping_ssrc(mut self) -> Node {
        self.driver.push_str("\nkeeps_ssrc = true");
        self
    }

    /// Disables canaries, so that probes are the only packets that the gateway sends on its own.
    pub(crate) fn without_canaries(mut self) -> Node {
        self.driver.push_str("\ncanary = false");
        self
    }

    /// Encrypts the trunk at both ends.
    pub(crate) fn encrypted(mut self) -> Node {
        self.driver.push_str("\nencrypt = true");
        self.restart_encrypted()
    }

    /// Encrypts the trunk at the node's end.
    pub(crate) fn restart_encrypted(mut self) -> Node {
        self.kill();
        self.options.encrypt = true;
        self.revive();
        self
    }

    pub(super) fn start(
        name: &str,
        listen: &str,
        driver: &str,
        change: impl FnOnce(&mut SampleNodeOptions),
    ) -> Node {
        let mut options = SampleNodeOptions::new(listen.parse().unwrap(), name);
        options.secret = Some(NodeSecret::new(SECRET, name).unwrap());
        change(&mut options);
        let (region, zone) = name.split_once('-').unwrap_or((name, "a"));
        let mut node = Node {
            name: name.to_owned(),
            address: options.listen,
            options,
            driver: driver.to_owned(),
            region: region.to_owned(),
            zone: zone.trim_end_matches(char::is_numeric).to_owned(),
            alive: None,
        };
        node.revive();
        node
    }

    /// The node's `[[node]]` table.
    pub(crate) fn text(&self) -> String {
        let Node { name, address, driver, region, zone, .. } = self;
        format!(
            "[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nregion = \"{region}\"\n\
             zone = \"{zone}\"\ncapacity = \"200 Mbit/s\"\n{driver}\n"
        )
    }

    /// The number that the node writes into the test headers of forwarded packets.
    pub(crate) fn number(&self) -> u32 {
        number_of(&self.name)
    }

    /// Restarts the node at its old address, without state.
    pub(crate) fn revive(&mut self) {
        self.options.listen = self.address;
        let node = SampleNode::bind(self.options.clone()).unwrap();
        self.address = node.address();
        let (ending, stopped) = (node.ending(), node.stopped());
        let thread = std::thread::spawn(move || node.run().unwrap());
        self.alive = Some(Alive { ending, stopped, thread });
    }

    /// Ends the node without notice; its socket is closed on return.
    pub(crate) fn kill(&mut self) -> SampleNodeCounters {
        let alive = self.alive.take().expect("the node runs");
        alive.ending.store(true, Ordering::Relaxed);
        alive.thread.join().unwrap()
    }

    pub(crate) fn die(&mut self) {
        self.kill();
    }

    /// Stops or resumes reading; the socket stays open, as with a process under SIGSTOP.
    pub(crate) fn stop(&self, stopped: bool) {
        self.alive.as_ref().unwrap().stopped.store(stopped, Ordering::Relaxed);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.alive.is_some() {
            self.kill();
        }
    }
}
