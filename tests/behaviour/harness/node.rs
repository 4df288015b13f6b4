//! Sample nodes in threads, which die and come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use evenkeel_lab::sample_node::{
    Counters, Numbers, Options, PlainRoom, SampleNode, Stamps, number_of,
};
use evenkeel_media::trunk::message::Secret;

/// What gateway and nodes sign with.
pub(crate) const SECRET: &[u8] = b"what both ends know of each other";

/// A node, alive or not.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    options: Options,
    /// The driver by which the gateway speaks with it, in words of its configuration.
    driver: String,
    region: String,
    zone: String,
    alive: Option<Alive>,
}

struct Alive {
    ending: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Counters>,
}

impl Node {
    /// A rewriting node with trunk legs, named `<region>-<zone><number>`.
    pub(crate) fn agent(name: &str) -> Node {
        Node::start(name, "127.0.0.1:0", "driver = \"agent\"\nsecret_file = \"secret\"", |_| {})
    }

    /// A node with trunk legs that leaves packets as they came.
    pub(crate) fn untouched(name: &str) -> Node {
        Node::start(name, "127.0.0.1:0", "driver = \"agent\"\nsecret_file = \"secret\"", |o| {
            o.numbers = Numbers::Untouched;
        })
    }

    /// One that does not even write its number into their test headers: two of them deliver copies.
    pub(crate) fn copying(name: &str) -> Node {
        Node::with(name, "127.0.0.1:0", |options| {
            options.numbers = Numbers::Untouched;
            options.stamps = Stamps::No;
        })
    }

    /// A node with trunk legs and these options.
    pub(crate) fn with(name: &str, listen: &str, change: impl FnOnce(&mut Options)) -> Node {
        Node::start(name, listen, "driver = \"agent\"\nsecret_file = \"secret\"", change)
    }

    /// A node with port legs, probed this way; all that it hears are in one room, or each alone.
    pub(crate) fn plain(name: &str, probe: &str, room: PlainRoom) -> Node {
        let driver = format!("driver = \"plain\"\nprobe = \"{probe}\"");
        Node::start(name, "127.0.0.1:0", &driver, |options| options.plain_room = room)
    }

    /// To which the gateway sends nothing of its own but probes.
    pub(crate) fn without_canaries(mut self) -> Node {
        self.driver.push_str("\ncanary = false");
        self
    }

    fn start(name: &str, listen: &str, driver: &str, change: impl FnOnce(&mut Options)) -> Node {
        let mut options = Options::new(listen.parse().unwrap(), name);
        options.secret = Some(Secret::new(SECRET).unwrap());
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

    /// As it stands in `evenkeel.toml`.
    pub(crate) fn text(&self) -> String {
        let Node { name, address, driver, region, zone, .. } = self;
        format!(
            "[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nregion = \"{region}\"\n\
             zone = \"{zone}\"\ncapacity = \"200 Mbit/s\"\n{driver}\n"
        )
    }

    /// What it stamps packets with.
    pub(crate) fn number(&self) -> u32 {
        number_of(&self.name)
    }

    /// Comes up, knowing nothing of before, at the address it had.
    pub(crate) fn revive(&mut self) {
        self.options.listen = self.address;
        let node = SampleNode::bind(self.options.clone()).unwrap();
        self.address = node.address();
        let (ending, stopped) = (node.ending(), node.stopped());
        let thread = std::thread::spawn(move || node.run().unwrap());
        self.alive = Some(Alive { ending, stopped, thread });
    }

    /// Is gone without a word; its socket is closed when this returns.
    pub(crate) fn kill(&mut self) -> Counters {
        let alive = self.alive.take().expect("only who lives can be killed");
        alive.ending.store(true, Ordering::Relaxed);
        alive.thread.join().unwrap()
    }

    /// The same, whatever it counted.
    pub(crate) fn die(&mut self) {
        self.kill();
    }

    /// Its socket stays open and nobody reads from it, as with a stopped process; or somebody does again.
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
