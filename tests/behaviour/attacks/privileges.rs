//! The privileges that remain to an attacker with code in the gateway, or in the compiler of plugins.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::JoinHandle;

use evenkeel_control::PushRequest;
use evenkeel_guests::slow_to_compile;
use evenkeel_model::{Hook, PolicyName};
use evenkeel_revisions::RolloutOutcome;
use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::required;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
#[cfg(target_arch = "x86_64")]
use nix::{
    libc,
    sys::ptrace,
    sys::wait::{WaitStatus, waitpid},
};
use serde_json::{Value, json};

use crate::harness::{
    Behaviour, GatewayProcess, Node, Phone, World, routing_plugin, talk, wait_until,
};

/// Logged where an ordinary user could start the gateway.
const NEEDLESS_ROOT: &str = "runs as root without need";

/// Fields of proc_pid_status(5) by name.
type Status = BTreeMap<String, String>;

/// `None` if the process or thread has ended.
fn status(folder: &Path) -> Option<Status> {
    let text = fs::read_to_string(folder.join("status")).ok()?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    Some(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

/// The nice value: field 19 of proc_pid_stat(5), the 17th after the name in parentheses.
fn niceness(folder: &Path) -> i32 {
    let stat = fs::read_to_string(folder.join("stat")).unwrap();
    let (_, after) = stat.rsplit_once(')').unwrap();
    after.split_whitespace().nth(16).unwrap().parse().unwrap()
}

fn of_process(id: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{id}"))
}

/// The statuses of a process's threads.
fn threads(id: u32) -> Vec<Status> {
    let threads = fs::read_dir(of_process(id).join("task")).unwrap();
    threads.filter_map(|thread| status(&thread.unwrap().path())).collect()
}

fn has_no_capability(status: &Status) -> bool {
    let none = |set: &str| u64::from_str_radix(&status[set], 16) == Ok(0);
    ["CapEff", "CapPrm", "CapInh", "CapAmb"].into_iter().all(none)
}

/// True if the process has no privileges and cannot regain them.
fn is_confined(status: &Status) -> bool {
    has_no_capability(status) && status["NoNewPrivs"] == "1" && status["Seccomp"] == "2"
}

fn assert_confined(gateway: &GatewayProcess) {
    let threads = threads(gateway.process.id());
    assert!(threads.len() > 5, "{threads:#?}");
    let free: Vec<_> = threads.iter().filter(|status| !is_confined(status)).collect();
    assert!(free.is_empty(), "{free:#?}");
}

/// The exit status and output of a gateway that does not start.
fn refused_start(config: &Path) -> Output {
    Command::new(evenkeel()).args(["run", "--config"]).arg(config).output().unwrap()
}

#[test]
fn gateway_threads_have_no_privileges() {
    let node = Node::agent("east-a1");
    let gateway = GatewayProcess::start(&World::of(&[&node]).with_quic().routed());
    assert_confined(&gateway);
    gateway.await_log("sandbox: no capabilities, system calls filtered, memory hidden");
    if geteuid().is_root() {
        gateway.await_log(NEEDLESS_ROOT);
    } else {
        assert!(!gateway.process.log().contains(NEEDLESS_ROOT));
    }
}

#[test]
fn sandbox_off_keeps_privileges() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.gateway = "sandbox = false\n".into();
    let gateway = GatewayProcess::start(&world);
    let ours = status(Path::new("/proc/self")).unwrap();
    for thread in threads(gateway.process.id()) {
        for field in ["CapEff", "NoNewPrivs", "Seccomp"] {
            assert_eq!(thread[field], ours[field], "{field}");
        }
    }
    gateway.await_log("sandbox is off");
}

#[required(Root)]
#[test]
fn low_ports_are_bound_before_the_drop() {
    let free = |port: &u16| UdpSocket::bind(("127.0.0.1", *port)).is_ok();
    let ports: Vec<u16> = (600..1_024).rev().filter(free).take(2).collect();
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.listens = format!(
        "[[listen]]\nudp = \"127.0.0.1:{}\"\nidentity = [\"declared\"]\nrtcp = \"mux\"\n\
         [[listen]]\nquic = \"127.0.0.1:{}\"\n",
        ports[0], ports[1]
    );
    let mut gateway = GatewayProcess::start(&world);
    assert_confined(&gateway);
    assert!(!gateway.process.log().contains(NEEDLESS_ROOT));
    let mut ann = Phone::new(1);
    gateway.open("room", &mut ann);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
}

/// Without this check the first reload would fail instead.
#[required(Root)]
#[test]
fn file_unreadable_to_reload_is_refused_at_start() {
    let node = Node::agent("east-a1");
    let folder = tempfile::tempdir().unwrap();
    let config = World::of(&[&node]).write(folder.path());
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&config, Some(65_534), None).unwrap();
    let Output { status, stderr, .. } = refused_start(&config);
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("Permission denied"), "{stderr}");
}

/// A compiler that is busy with a plugin, and has confined itself.
struct Compiler {
    process: PathBuf,
    /// The answer to the push of the plugin.
    push: JoinHandle<Value>,
}

impl Compiler {
    fn start(gateway: &GatewayProcess) -> Compiler {
        let mut client = gateway.client();
        let push = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let plugin = slow_to_compile().bytes;
            let pushing = client.push("call", "routing", &plugin);
            runtime.unwrap().block_on(pushing).unwrap()
        });
        let filters = |status: &Status| status["Seccomp_filters"].parse::<u32>().unwrap();
        let gateway = gateway.process.id();
        let of_gateway = filters(&status(&of_process(gateway)).unwrap());
        let is_confined = |process: &PathBuf| {
            let status = status(process);
            status.is_some_and(|status| {
                status["PPid"] == gateway.to_string() && filters(&status) == of_gateway + 2
            })
        };
        let mut process = None;
        wait_until("the compiler confines itself", || {
            let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
            let mut processes = processes.filter(|path| path.join("status").exists());
            process = processes.find(is_confined);
            process.is_some()
        });
        Compiler { process: process.unwrap(), push }
    }

    fn id(&self) -> Pid {
        let name = self.process.file_name().unwrap().to_str().unwrap();
        Pid::from_raw(name.parse().unwrap())
    }
}

#[test]
fn plugin_compiler_is_confined() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]).routed());
    let pushed = gateway.push("routing", &routing_plugin(Behaviour::Places(0)));
    assert_eq!(pushed["outcome"], "activated", "{pushed}");

    let compiler = Compiler::start(&gateway);
    let confined = status(&compiler.process).unwrap();
    assert!(is_confined(&confined), "{confined:#?}");
    assert_eq!(
        niceness(&compiler.process),
        (niceness(&of_process(gateway.process.id())) + 10).min(19)
    );
    kill(compiler.id(), Signal::SIGKILL).unwrap();
    let refused = compiler.push.join().unwrap();
    assert_eq!(refused["code"], "compile-limit", "{refused}");
    let log = gateway.process.log();
    assert!(!log.contains("not fully confined"), "{log}");
}

#[test]
fn slow_plugin_delays_no_push_of_another_set() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).routed();
    world.conference = "[scenario.conference]\n[routing]\nplugin = \"route-nearest\"\n".into();
    let mut gateway = GatewayProcess::start(&world);
    let compiler = Compiler::start(&gateway);
    let plugin = routing_plugin(Behaviour::Places(0));
    let push =
        gateway.ask(async |client| client.push("conference", "routing?now=true", &plugin).await);
    let pushed = push.unwrap();
    assert_eq!(pushed["outcome"], "activated", "{pushed}");
    let first = status(&compiler.process).map(|status| status["State"].clone());
    assert!(first.is_some_and(|state| !state.starts_with('Z')), "it compiles on");
    kill(compiler.id(), Signal::SIGKILL).unwrap();
    compiler.push.join().unwrap();
}

/// A process that a debugger makes do system calls, as a plugin could that has taken it over.
#[cfg(target_arch = "x86_64")]
struct TracedProcess(Pid);

#[cfg(target_arch = "x86_64")]
impl TracedProcess {
    /// `None` if this process may not debug it.
    fn take(process: Pid) -> Option<TracedProcess> {
        ptrace::attach(process).ok()?;
        waitpid(process, None).unwrap();
        Some(TracedProcess(process))
    }

    /// Writes text below the stack, and returns its address.
    fn write(&self, text: &str) -> u64 {
        let address = (ptrace::getregs(self.0).unwrap().rsp - 4_096) & !7;
        let bytes = [text.as_bytes(), &[0; 8]].concat();
        for (at, word) in (address..).step_by(8).zip(bytes.chunks_exact(8)) {
            let word = i64::from_ne_bytes(word.try_into().unwrap());
            ptrace::write(self.0, at as ptrace::AddressType, word).unwrap();
        }
        address
    }

    /// The result of a system call; an error is the signal that killed the process.
    fn call(&self, number: i64, arguments: [u64; 3]) -> Result<i64, Signal> {
        let mut registers = ptrace::getregs(self.0).unwrap();
        // The instruction `syscall`.
        let place = registers.rip as ptrace::AddressType;
        ptrace::write(self.0, place, 0x050f).unwrap();
        // The call in which the process was interrupted is not repeated.
        registers.orig_rax = u64::MAX;
        registers.rax = number as u64;
        [registers.rdi, registers.rsi, registers.rdx] = arguments;
        ptrace::setregs(self.0, registers).unwrap();
        ptrace::step(self.0, None).unwrap();
        match waitpid(self.0, None).unwrap() {
            WaitStatus::Signaled(_, signal, _) => return Err(signal),
            WaitStatus::Stopped(..) => {}
            other => panic!("{other:?}"),
        }
        let after = ptrace::getregs(self.0).unwrap();
        ptrace::setregs(self.0, libc::user_regs_struct { rip: place as u64, ..after }).unwrap();
        Ok(after.rax as i64)
    }

    fn open(&self, path: &Path) -> Result<i64, Signal> {
        let path = self.write(path.to_str().unwrap());
        self.call(libc::SYS_openat, [libc::AT_FDCWD as u64, path, libc::O_RDONLY as u64])
    }

    fn socket(&self) -> Result<i64, Signal> {
        self.call(libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_DGRAM as u64, 0])
    }
}

#[cfg(target_arch = "x86_64")]
#[required(Ptrace)]
#[test]
fn captured_compiler_reaches_no_file_and_no_socket() {
    let node = Node::agent("east-a1");
    let gateway = GatewayProcess::start(&World::of(&[&node]).routed());
    let secret = gateway.folder().join("secret");

    // The control: a process with the same user, without a filter.
    let mut free = Command::new("sleep").arg("600").spawn().unwrap();
    let captive = TracedProcess::take(Pid::from_raw(free.id() as i32));
    let reached = captive.map(|captive| (captive.open(&secret), captive.socket()));
    free.kill().unwrap();
    free.wait().unwrap();
    let (file, socket) = reached.expect("ptrace(2) is allowed");
    assert!(file.unwrap() >= 0 && socket.unwrap() >= 0, "{file:?} {socket:?}");

    let compiler = Compiler::start(&gateway);
    let captive = TracedProcess::take(compiler.id()).unwrap();
    assert_eq!(captive.open(&secret), Ok(-i64::from(libc::EPERM)));
    assert_eq!(captive.socket(), Err(Signal::SIGSYS));
    let refused = compiler.push.join().unwrap();
    assert_eq!(refused["code"], "compiler", "{refused}");
    assert!(refused["reason"].as_str().unwrap().contains("system call"), "{refused}");
}

/// Output that no compiler wrote: a text, an answer of no code, one cut short, one of a compiler that failed.
const FORGERIES: [&str; 4] = [
    "echo anything",
    "printf 'C\\010\\0\\0\\0\\0\\0\\0\\0forgery!'",
    "printf 'C\\011\\0\\0\\0\\0\\0\\0\\0forgery!'",
    "printf 'C\\010\\0\\0\\0\\0\\0\\0\\0forgery!'; exit 1",
];

#[test]
fn forged_compiler_output_is_refused() {
    let node = Node::agent("east-a1");
    let folder = tempfile::tempdir().unwrap();
    let [program, script] = ["compiler", "script"].map(|name| folder.path().join(name));
    fs::write(&program, format!("#!/bin/sh\ncat > /dev/null\n. {}\n", script.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let mut world = World::of(&[&node]).routed();
    world.compiler = Some(evenkeel_config::Compiler::at(program));
    let gateway = world.start();
    let policy = PolicyName { set: "call".into(), hook: Hook::Routing };
    let active = || gateway.ask(gateway.handle.policies()).unwrap().remove(0).status.active;
    let shipped = active();
    let plugin = routing_plugin(Behaviour::Places(0));
    for forgery in FORGERIES {
        fs::write(&script, forgery).unwrap();
        let pushing = gateway.handle.push_policy(
            policy.clone(),
            plugin.clone(),
            None,
            PushRequest::default(),
        );
        let refused = gateway.ask(pushing).unwrap();
        assert_eq!(refused.outcome, RolloutOutcome::Refused, "{forgery}: {refused:?}");
        assert!(["compiler", "engine"].contains(&refused.code.unwrap()), "{forgery}: {refused:?}");
        assert_eq!(active(), shipped, "{forgery}");
    }
}

#[test]
fn sandboxed_gateway_reloads_nodes() {
    let mut nodes = [Node::agent("east-a1"), Node::agent("east-b1")];
    let mut gateway = GatewayProcess::start(&World::of(&[&nodes[0]]));
    let mut ann = Phone::new(1);
    gateway.open("room", &mut ann);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);

    let mut world = World::of(&nodes.each_ref());
    world.listens += "[[listen]]\nudp = \"127.0.0.2:0\"\nidentity = [\"declared\"]\n";
    world.write(gateway.folder());
    let reloaded = gateway.post("/v1/configuration:reload", &json!({}));
    let waiting = reloaded["requires_restart"].as_array().unwrap();
    assert!(waiting.contains(&json!("[[listen]]")), "no reload binds a listener: {reloaded}");
    wait_until("the new node is up", || {
        let view = gateway.read("/v1/nodes");
        let is_up = |node: &Value| node["node"] == "east-b1" && node["health"] == "up";
        view["nodes"].as_array().unwrap().iter().any(is_up)
    });
    nodes[0].die();
    let second = nodes[1].number();
    talk(&mut [&mut ann], "the new node echoes", |phones| {
        phones[0].heard.iter().any(|heard| heard.mark.node == second)
    });
}

/// A start hook that tries to open the memory of these two processes, and of itself. Each line of its output is a result of
/// `dd`.
const MEMORY_READER: &str = r#"for id in $1 $2 self; do
    if dd if=/proc/$id/mem of=/dev/null count=0 2>/dev/null; then echo open; else echo denied; fi
done > $3/memory
cat /proc/self/status > $3/status.new
mv $3/status.new $3/status"#;

#[test]
fn start_hook_has_no_privileges_and_reads_no_memory() {
    let [mut first, mut cold] = ["east-a1", "east-b1"].map(Node::agent);
    cold.die();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("start");
    fs::write(&script, MEMORY_READER).unwrap();
    // Another process of the gateway's user, and the gateway, which is the hook's parent. The kernel denies the memory of a
    // process with more capabilities in any case.
    let mut other = unprivileged("sleep").arg("600").spawn().unwrap();
    let mut world = World::of(&[&first]);
    world.scenario = "mode = \"cold\"\n".into();
    let command = format!(
        "[\"/bin/sh\", \"-c\", \"sh {} {} $PPID {}\"]",
        script.display(),
        other.id(),
        folder.path().display()
    );
    world.nodes += &format!("{}start = {{ command = {command} }}\n", cold.text());
    let mut gateway = GatewayProcess::start(&world);
    let mut ann = Phone::new(1);
    gateway.open("room", &mut ann);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    first.die();
    let is_done = folder.path().join("status");
    talk(&mut [&mut ann], "the hook runs", |_| is_done.exists());
    other.kill().unwrap();
    other.wait().unwrap();
    let of_hook = status(folder.path()).unwrap();
    assert!(is_confined(&of_hook), "{of_hook:#?}");
    let memory = fs::read_to_string(folder.path().join("memory")).unwrap();
    assert_eq!(memory, "denied\ndenied\nopen\n");
}

/// A program without capabilities, as those of the gateway's user are.
fn unprivileged(program: &str) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", program]);
    command
}

/// True if a process of its user opens the memory of this one.
fn opens_memory(of: u32) -> bool {
    let mut open = unprivileged("dd");
    open.args([&format!("if=/proc/{of}/mem"), "of=/dev/null", "count=0"]);
    open.output().unwrap().status.success()
}

#[required(OpenMemory, Setpriv)]
#[test]
fn gateway_hides_its_memory_also_after_an_upgrade() {
    let mut other = unprivileged("sleep").arg("600").spawn().unwrap();
    wait_until("an ordinary process is readable", || opens_memory(other.id()));
    other.kill().unwrap();
    other.wait().unwrap();

    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    assert!(!opens_memory(gateway.process.id()));
    let upgraded = gateway.upgrade(json!({"binary": evenkeel()})).join().unwrap().unwrap();
    let successor = upgraded["pid"].as_i64().unwrap() as i32;
    gateway.note_successor(successor);
    assert!(!opens_memory(successor as u32));
}

/// Runs its arguments with loopback alone, which is up.
const ALONE: &str = "ip link set lo up && exec \"$@\"";

/// `evenkeel` in a network namespace of its own.
fn alone() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", ALONE, "sh"]).arg(evenkeel());
    command
}

/// A member of a group, with an address at this interface.
fn member(node: &Node, folder: &Path, interface: &str) -> World {
    let secret = folder.join("cluster.secret");
    fs::write(&secret, "a secret of two gateways and no node\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = secret.display();
    let mut world = World::of(&[node]);
    world.listens = format!(
        "[[listen]]\nudp = \"192.0.2.10:5004\"\nidentity = [\"declared\"]\n\
         [[listen]]\nquic = \"192.0.2.10:5006\"\n\
         [cluster]\nname = \"edge-2\"\nlisten = \"127.0.0.1:7100\"\nsecret_file = \"{secret}\"\n\
         peer = {{ name = \"edge-1\", address = \"127.0.0.2:7100\" }}\n\
         [[cluster.address]]\naddress = \"192.0.2.10/32\"\ninterface = \"{interface}\"\n"
    );
    world
}

/// The process that holds the addresses for this gateway.
fn address_holder(gateway: u32) -> PathBuf {
    let is_holder = |process: &PathBuf| {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        let is_child =
            || status(process).is_some_and(|status| status["PPid"] == gateway.to_string());
        words.split(|&byte| byte == 0).any(|word| word == b"hold-addresses") && is_child()
    };
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes.into_iter().find(is_holder).unwrap()
}

/// It outlives an upgrade and signals to the whole service, and ends with the gateway.
#[required(Namespaces)]
#[test]
fn address_holder_keeps_one_capability() {
    let command = alone();
    let (node, folder) = (Node::agent("east-a1"), tempfile::tempdir().unwrap());
    let mut gateway = GatewayProcess::start_by(&member(&node, folder.path(), "lo"), command);
    assert_confined(&gateway);
    let holder = address_holder(gateway.process.id());
    let kept = status(&holder).unwrap();
    // CAP_NET_ADMIN, capability 12.
    for (set, expected) in [("CapEff", 1 << 12), ("CapPrm", 1 << 12), ("CapInh", 0), ("CapAmb", 0)]
    {
        assert_eq!(u64::from_str_radix(&kept[set], 16), Ok(expected), "{set}");
    }
    assert!(kept["NoNewPrivs"] == "1" && kept["Seccomp"] == "2", "{kept:#?}");

    let number: i32 = holder.file_name().unwrap().to_str().unwrap().parse().unwrap();
    kill(Pid::from_raw(number), Signal::SIGTERM).unwrap();
    let upgraded = gateway.upgrade(json!({"binary": evenkeel()})).join().unwrap().unwrap();
    gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    let runs = || status(&holder).is_some_and(|status| !status["State"].starts_with('Z'));
    gateway.read("/v1/nodes");
    assert!(runs());
    kill(gateway.pid(), Signal::SIGKILL).unwrap();
    wait_until("the holder ends with the gateway", || !runs());
}

#[required(Namespaces)]
#[test]
fn group_address_without_interface_is_refused() {
    let mut command = alone();
    let (node, folder) = (Node::agent("east-a1"), tempfile::tempdir().unwrap());
    let config = member(&node, folder.path(), "eth9").write(folder.path());
    let output = command.args(["run", "--config"]).arg(config).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let expected = "group addresses: no interface eth9 for 192.0.2.10; found lo";
    assert!(stderr.contains(expected), "{stderr}");
}
