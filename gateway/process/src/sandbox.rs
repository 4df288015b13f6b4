//! Privileges that a process gives up once it has opened what needs them: capabilities, and system calls.
//!
//! The gateway runs start hooks, resolves names, follows files and exports telemetry through libraries; their system calls
//! change with their versions. A list of allowed calls would fail on the first new one in production, so its filter lists
//! the calls that are refused, with EPERM: those that reach other processes, kernel interfaces that no media gateway
//! needs, and new namespaces. The compiler of plugins reads, computes and writes, and nothing else. Its filter lists the
//! calls that are allowed; any other call means that the plugin has taken the compiler over, and kills it.
//!
//! No filter sees the path of an opened file, and `/proc/PID/mem` is the memory of a process. The kernel opens it to another
//! process only if the process may be dumped, which the gateway forbids, and not from a Landlock domain to a process outside
//! of it. Hooks run in such a domain, since other processes of the gateway's user may be dumped.

use std::collections::BTreeMap;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_dumpable;
use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Refused to the gateway and to programs that it starts.
const REFUSED: &[i64] = &[
    // Memory and descriptors of other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Code in the kernel, and interfaces with many past vulnerabilities.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // No filter sees the operations that it queues.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // File systems and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    // The numbers of ptrace, kexec_load, process_vm_readv and process_vm_writev in x32.
    #[cfg(target_arch = "x86_64")]
    (X32 | 521),
    #[cfg(target_arch = "x86_64")]
    (X32 | 528),
    #[cfg(target_arch = "x86_64")]
    (X32 | 539),
    #[cfg(target_arch = "x86_64")]
    (X32 | 540),
];

/// The bit of system calls with 32-bit pointers, by which some kernels know each call a second time (x32).
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// Flags of clone(2) that make a namespace.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Denied to hooks, which have no capability to do it: a domain has to deny something.
const DENIED_TO_HOOKS: AccessFs = AccessFs::MakeBlock;

/// Address families of sockets that the gateway may open. Netlink lists interfaces when a name is resolved.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Allowed to the compiler, beside [`compiler_rules`]: its pipes, memory, locks, and what ends a process.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    // The C library asks for the number of processors when memory is short.
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Refused to the compiler without killing it: the C library reads limits from files when memory is short, and does
/// without them.
const FILES: &[i64] = &[libc::SYS_openat];

/// A measure that the kernel refused. The process continues without it.
#[derive(Debug, thiserror::Error)]
pub enum MissingMeasure {
    /// Capabilities were not dropped.
    #[error("capabilities are kept: {0}")]
    Capabilities(#[from] CapsError),
    /// The seccomp filter was not installed.
    #[error("system calls are not filtered: {0}")]
    Filter(#[from] seccompiler::Error),
    /// Other processes of the user can read the memory of this one.
    #[error("memory is readable: {0}")]
    Memory(Errno),
    /// The kernel has no Landlock, or an older one.
    #[error("no Landlock domain: {0}")]
    Domain(#[from] RulesetError),
    /// The root of all files did not open, for a rule of the domain.
    #[error("no Landlock domain: {0}")]
    Root(#[from] PathFdError),
}

type SyscallRules = BTreeMap<i64, Vec<SeccompRule>>;

/// True if this thread has capabilities.
pub fn is_privileged() -> bool {
    caps::read(None, CapSet::Permitted).is_ok_and(|permitted| !permitted.is_empty())
}

/// Drops all other capabilities than these, which must be in effect, and filters system calls, for this thread and all
/// that it starts, and for programs that they run. Hides the memory of this process. Must be called while the process has
/// one thread: capabilities belong to threads.
pub fn confine(kept: impl IntoIterator<Item = Capability>) -> Vec<MissingMeasure> {
    let capabilities = keep_capabilities(&kept.into_iter().collect());
    let steps = [capabilities.err(), filter_gateway().err(), hide_memory().err()];
    steps.into_iter().flatten().collect()
}

/// Hides the memory of this process from other processes without privileges, also from those of its user; the kernel then
/// writes no core dump. Ends with execve(2).
pub fn hide_memory() -> Result<(), MissingMeasure> {
    set_dumpable(false).map_err(MissingMeasure::Memory)
}

/// Keeps programs that this thread starts from now on from the memory of all processes that they did not start. They reach
/// all files of their user, and gain no privileges. Needs Linux 5.19.
pub fn confine_hooks() -> Result<(), MissingMeasure> {
    // A domain also denies renames between folders, unless a rule allows them.
    let everywhere = PathBeneath::new(PathFd::new("/")?, AccessFs::Refer);
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(DENIED_TO_HOOKS | AccessFs::Refer)?
        .create()?
        .add_rule(everywhere)?
        .restrict_self()?;
    Ok(())
}

fn filter_gateway() -> Result<(), MissingMeasure> {
    // Its flags are in memory, where no filter sees them. After ENOSYS callers use clone(2).
    let clone3 = with_x32(SyscallRules::from([(libc::SYS_clone3, Vec::new())]));
    install(clone3, SeccompAction::Allow, SeccompAction::Errno(Errno::ENOSYS as u32))?;
    let rules = with_x32(gateway_rules().map_err(seccompiler::Error::from)?);
    install(rules, SeccompAction::Allow, SeccompAction::Errno(Errno::EPERM as u32))?;
    Ok(())
}

/// Gives up all but the standard streams, memory and processor time. The process must have one thread.
pub fn confine_compiler() -> Vec<MissingMeasure> {
    let capabilities = keep_capabilities(&CapsHashSet::new());
    let steps = [capabilities.err(), deny_files().err(), filter_compiler().err()];
    steps.into_iter().flatten().collect()
}

/// Denies this thread all files that are not open.
pub fn deny_files() -> Result<(), MissingMeasure> {
    let all = AccessFs::from_all(ABI::V1);
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(all)?
        .create()?
        .restrict_self()?;
    Ok(())
}

fn filter_compiler() -> Result<(), MissingMeasure> {
    let files: SyscallRules = FILES.iter().map(|&call| (call, Vec::new())).collect();
    let refused = SeccompAction::Errno(Errno::EPERM as u32);
    install(files, SeccompAction::Allow, refused)?;
    let rules = compiler_rules().map_err(seccompiler::Error::from)?;
    install(rules, SeccompAction::KillProcess, SeccompAction::Allow)?;
    Ok(())
}

/// Drops all other capabilities. Programs inherit none: the kernel clears the ambient set with the inheritable one.
fn keep_capabilities(kept: &CapsHashSet) -> Result<(), MissingMeasure> {
    // The effective set may not exceed the permitted one at any time.
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, kept)?;
    }
    caps::clear(None, CapSet::Inheritable)?;
    Ok(())
}

fn gateway_rules() -> Result<SyscallRules, BackendError> {
    let mut rules: SyscallRules = REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    let has_flag = |flag: i32| rule([(0, SeccompCmpOp::MaskedEq(flag as u64), flag as u64)]);
    let namespaces = NAMESPACES.into_iter().map(has_flag).collect::<Result<Vec<_>, _>>()?;
    let other_family = FAMILIES.map(|family| (0, SeccompCmpOp::Ne, family as u64));
    let netlink = (0, SeccompCmpOp::Eq, libc::AF_NETLINK as u64);
    let other_netlink = (2, SeccompCmpOp::Ne, libc::NETLINK_ROUTE as u64);
    let socket = vec![rule(other_family)?, rule([netlink, other_netlink])?];
    rules.extend([
        (libc::SYS_clone, namespaces.clone()),
        (libc::SYS_unshare, namespaces),
        (libc::SYS_socket, socket),
    ]);
    Ok(rules)
}

fn compiler_rules() -> Result<SyscallRules, BackendError> {
    let mut rules: SyscallRules =
        [ALLOWED, FILES].concat().into_iter().map(|call| (call, Vec::new())).collect();
    let executable = libc::PROT_EXEC as u64;
    let is_data = || rule([(2, SeccompCmpOp::MaskedEq(executable), 0)]);
    // abort(3) raises its signal by this call.
    let itself = rule([(0, SeccompCmpOp::Eq, u64::from(std::process::id()))])?;
    rules.extend([
        (libc::SYS_mmap, vec![is_data()?]),
        (libc::SYS_mprotect, vec![is_data()?]),
        (libc::SYS_tgkill, vec![itself]),
    ]);
    Ok(rules)
}

/// A rule for 32-bit arguments, each with its index, comparison and value; all have to hold.
fn rule<const N: usize>(
    conditions: [(u8, SeccompCmpOp, u64); N],
) -> Result<SeccompRule, BackendError> {
    let conditions = conditions.map(|(argument, comparison, value)| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, comparison, value)
    });
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

/// Adds the x32 numbers of the calls.
#[cfg(target_arch = "x86_64")]
fn with_x32(mut rules: SyscallRules) -> SyscallRules {
    let x32: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
    rules.extend(x32);
    rules
}

#[cfg(not(target_arch = "x86_64"))]
fn with_x32(rules: SyscallRules) -> SyscallRules {
    rules
}

/// Installs a filter in all threads; also sets `no_new_privs`, without which the kernel takes none.
fn install(
    rules: SyscallRules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<(), seccompiler::Error> {
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, machine)?;
    seccompiler::apply_filter_all_threads(&seccompiler::BpfProgram::try_from(filter)?)
}
