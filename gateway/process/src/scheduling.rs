//! The scheduling of threads by the kernel.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The lowest real-time priority. Threads without one run after it.
const PRIORITY: i32 = 1;

/// The nice value of a thread that can wait: a tenth of the weight of others (sched(7)).
const NICE: i32 = 10;

/// Has the kernel run this thread before all that are not real-time (SCHED_RR, sched(7)). Threads and programs that it starts are
/// not, and have nice value 0.
///
/// # Errors
/// Neither a capability, nor `LimitRTPRIO=` of systemd, nor a [loan](RealTimeLoan) allows it.
pub fn run_before_others() -> io::Result<()> {
    set_policy(libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, PRIORITY)
}

/// Has the kernel run this thread after others, for work that can wait.
#[expect(unsafe_code, reason = "no safe wrapper sets the nice value")]
pub fn run_after_others() {
    // SAFETY: The call has integers only. On Linux 0 is the calling thread.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Lets threads [run before others](run_before_others) that this thread starts meanwhile, also after it has given up its
/// capabilities; so may those of programs that the process starts, such as the new process of an upgrade, by RLIMIT_RTPRIO.
pub struct RealTimeLoan {
    is_given: bool,
}

impl RealTimeLoan {
    /// Begins it, if the process may.
    pub fn begin() -> RealTimeLoan {
        // `run_before_others` reports the failure. Another policy is the operator's choice.
        let is_given =
            policy() == libc::SCHED_OTHER && set_policy(libc::SCHED_RR, PRIORITY).is_ok();
        if is_given {
            raise_limit();
        }
        RealTimeLoan { is_given }
    }
}

impl Drop for RealTimeLoan {
    fn drop(&mut self) {
        if self.is_given {
            set_policy(libc::SCHED_OTHER, 0).expect("a thread may give up its priority");
        }
    }
}

/// Fails without CAP_SYS_RESOURCE. The log of the next process has its consequence.
fn raise_limit() {
    let wanted = PRIORITY as u64;
    let (soft, hard) = getrlimit(Resource::RLIMIT_RTPRIO).unwrap_or_default();
    if soft < wanted {
        let _ = setrlimit(Resource::RLIMIT_RTPRIO, wanted, hard.max(wanted));
    }
}

#[expect(unsafe_code, reason = "no safe wrapper gets the policy")]
fn policy() -> i32 {
    // SAFETY: 0 is the calling thread.
    unsafe { libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK }
}

#[expect(unsafe_code, reason = "no safe wrapper sets the policy")]
fn set_policy(policy: i32, sched_priority: i32) -> io::Result<()> {
    let param = libc::sched_param { sched_priority };
    // SAFETY: The kernel copies the structure. 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use evenkeel_testkit::required;

    use super::*;

    #[required(RealTime)]
    #[test]
    fn threads_of_a_real_time_thread_are_not() {
        let lender = thread::spawn(|| {
            let loan = RealTimeLoan::begin();
            caps::clear(None, caps::CapSet::Effective).unwrap();
            let (go, gone) = std::sync::mpsc::channel();
            let borrower = thread::spawn(move || {
                gone.recv().unwrap();
                run_before_others()?;
                Ok::<_, io::Error>((policy(), thread::spawn(policy).join().unwrap()))
            });
            drop(loan);
            go.send(()).unwrap();
            (policy(), borrower.join().unwrap())
        });
        let (lent, borrowed) = lender.join().unwrap();
        assert_eq!(lent, libc::SCHED_OTHER);
        assert_eq!(borrowed.unwrap(), (libc::SCHED_RR, libc::SCHED_OTHER));
    }
}
