//! The sandbox of a process: the gateway under it can do its work, and the compiler can compile and do nothing else.
//!
//! Each attempt runs in a process of its own: this test binary again, with the attempt's name in [`ATTEMPT`].

use std::fs;
use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::thread::{self, JoinHandle};

use evenkeel_host as host;
use evenkeel_process::sandbox::{
    confine, confine_compiler, confine_hooks, deny_files, is_privileged,
};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::get_dumpable;
use nix::sys::signal::Signal;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};

const ATTEMPT: &str = "EVENKEEL_ATTEMPT";

/// The exit status of an attempt that succeeded in what it tries.
const DONE: i32 = 0;

/// The exit status of an attempt that got EPERM or EACCES.
const REFUSED_STATUS: i32 = 77;

fn attempt(name: &str) -> ExitStatus {
    let this_test = ["--exact", "sandbox::attempt_is_made_when_asked", "--ignored", "--nocapture"];
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(this_test).env(ATTEMPT, name).status().unwrap()
}

fn outcome<T>(result: Result<T, impl Into<std::io::Error>>) -> i32 {
    match result.map_err(Into::<std::io::Error>::into) {
        Ok(_) => DONE,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => REFUSED_STATUS,
        Err(error) => panic!("{error}"),
    }
}

/// Ends the process with the outcome of what the environment names.
#[test]
#[ignore = "started by the other tests"]
fn attempt_is_made_when_asked() {
    let name = std::env::var(ATTEMPT).expect("the name of an attempt");
    let order =
        host::CompileOrder::new(&host::Engine::new(), host::shipped()[0].bytes).words().concat();
    let (confined, what) = name.split_once('/').unwrap();
    match confined {
        "gateway" => assert!(confine([]).is_empty()),
        "compiler" => assert!(confine_compiler().is_empty()),
        "hook" => confine_hooks().unwrap(),
        "no-files" => deny_files().unwrap(),
        _ => assert_eq!(confined, "unconfined"),
    }
    let status = match what {
        "file" => outcome(fs::File::open("/proc/self/status")),
        "udp" => outcome(UdpSocket::bind("127.0.0.1:0")),
        "vsock" => outcome(Socket::new(Domain::VSOCK, Type::STREAM, None)),
        "netfilter" => outcome(Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            Some(Protocol::from(libc::NETLINK_NETFILTER)),
        )),
        "memory" => {
            let remote = RemoteIoVec { base: order.as_ptr().addr(), len: 1 };
            outcome(process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut [0])], &[remote]))
        }
        "user-namespace" => outcome(unshare(CloneFlags::CLONE_NEWUSER)),
        "network-namespace" => {
            outcome(unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET))
        }
        "foreign-memory" => {
            outcome(fs::File::open(format!("/proc/{}/mem", std::os::unix::process::parent_id())))
        }
        "dump" => outcome(match get_dumpable() {
            Ok(false) => Err(nix::errno::Errno::EPERM),
            dumpable => dumpable,
        }),
        "rename" => {
            let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            fs::write(from.path().join("file"), "").unwrap();
            outcome(fs::rename(from.path().join("file"), to.path().join("file")))
        }
        "program" => outcome(Command::new("true").status()),
        "thread" => outcome(thread::Builder::new().spawn(|| ()).map(JoinHandle::join)),
        "capability" => i32::from(is_privileged()),
        "compile" => i32::from(host::compile_order(&order).first() != Some(&b'C')),
        "abort" => std::process::abort(),
        _ => panic!("{name}"),
    };
    std::process::exit(status);
}

#[test]
fn gateway_is_refused_what_it_never_needs() {
    for refused in ["vsock", "netfilter", "memory", "user-namespace", "network-namespace", "dump"] {
        let status = attempt(&format!("gateway/{refused}"));
        assert_eq!(status.code(), Some(REFUSED_STATUS), "{refused}: {status}");
    }
    for allowed in ["file", "udp", "program", "thread", "capability", "compile"] {
        let status = attempt(&format!("gateway/{allowed}"));
        assert_eq!(status.code(), Some(DONE), "{allowed}: {status}");
    }
}

#[test]
fn compiler_can_only_compile() {
    for killed in ["udp", "program", "thread", "memory", "user-namespace"] {
        let status = attempt(&format!("compiler/{killed}"));
        assert_eq!(status.signal(), Some(Signal::SIGSYS as i32), "{killed}: {status}");
    }
    assert_eq!(attempt("compiler/file").code(), Some(REFUSED_STATUS));
    assert_eq!(attempt("compiler/compile").code(), Some(DONE));
    assert_eq!(attempt("compiler/abort").signal(), Some(Signal::SIGABRT as i32));
}

#[test]
fn hook_reads_files_and_no_memory() {
    assert_eq!(attempt("hook/foreign-memory").code(), Some(REFUSED_STATUS));
    for allowed in ["file", "udp", "program", "thread", "rename"] {
        let status = attempt(&format!("hook/{allowed}"));
        assert_eq!(status.code(), Some(DONE), "{allowed}: {status}");
    }
}

#[test]
fn denied_files_stay_closed() {
    assert_eq!(attempt("no-files/file").code(), Some(REFUSED_STATUS));
    assert_eq!(attempt("no-files/compile").code(), Some(DONE));
}

/// The control: the same attempts without a filter.
#[test]
fn unconfined_process_may_do_more() {
    // Yama may deny it to all but parents and root.
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let foreign = scope.map_or(true, |scope| scope.trim() == "0").then_some("foreign-memory");
    let allowed = ["file", "udp", "memory", "dump", "program", "thread", "compile"];
    for allowed in allowed.into_iter().chain(foreign) {
        let status = attempt(&format!("unconfined/{allowed}"));
        assert_eq!(status.code(), Some(DONE), "{allowed}: {status}");
    }
}
