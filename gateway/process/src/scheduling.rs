//! The scheduling of threads by the kernel.

use std::sync::mpsc;
use std::{io, thread};

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

/// Makes this thread real-time, so that threads that it starts meanwhile may [run before others](run_before_others), also after it has
/// given up its capabilities.
pub struct RealTimeLoan {
    is_given: bool,
}

impl RealTimeLoan {
    /// Begins it, if the process may. `is_successor`: a [`RealTimeThread`] of another process may have started this one, which is
    /// real-time then; so an operator's choice of SCHED_RR ends with an upgrade.
    pub fn begin(is_successor: bool) -> RealTimeLoan {
        let is_given = match policy() {
            // `run_before_others` reports the failure.
            libc::SCHED_OTHER => set_policy(libc::SCHED_RR, PRIORITY).is_ok(),
            // Otherwise it is the operator's choice.
            policy => is_successor && policy == libc::SCHED_RR,
        };
        RealTimeLoan { is_given }
    }

    /// Starts a thread that keeps it.
    pub fn keep(&self) -> io::Result<RealTimeThread> {
        let (work, given) = mpsc::channel::<Work>();
        let thread = thread::Builder::new().name("evenkeel-start".to_owned());
        thread.spawn(move || given.iter().for_each(|work| work()))?;
        Ok(RealTimeThread { work })
    }
}

impl Drop for RealTimeLoan {
    fn drop(&mut self) {
        if self.is_given {
            set_policy(libc::SCHED_OTHER, 0).expect("a thread may give up its priority");
        }
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// A thread that starts others, and programs. They are real-time if it [keeps a loan](RealTimeLoan::keep).
#[derive(Debug)]
pub struct RealTimeThread {
    work: mpsc::Sender<Work>,
}

impl RealTimeThread {
    /// Returns what this function returns on that thread.
    ///
    /// # Panics
    /// If an earlier function panicked, or this one does.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        // Fails only if the caller has ended.
        let work = Box::new(move || drop(done.send(work())));
        self.work.send(work).expect("the thread has not panicked");
        result.recv().expect("the thread does not panic")
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
    use std::process::Command;

    use evenkeel_testkit::required;

    use super::*;

    #[required(RealTime)]
    #[test]
    fn threads_of_a_real_time_thread_are_not() {
        let lender = thread::spawn(|| {
            let loan = RealTimeLoan::begin(false);
            caps::clear(None, caps::CapSet::Effective).unwrap();
            let keeper = loan.keep().unwrap();
            drop(loan);
            let borrowed = keeper.run(|| {
                let borrower = thread::spawn(move || {
                    run_before_others()?;
                    Ok::<_, io::Error>((policy(), thread::spawn(policy).join().unwrap()))
                });
                borrower.join().unwrap()
            });
            (policy(), borrowed)
        });
        let (lent, borrowed) = lender.join().unwrap();
        assert_eq!(lent, libc::SCHED_OTHER);
        assert_eq!(borrowed.unwrap(), (libc::SCHED_RR, libc::SCHED_OTHER));
    }

    #[required(RealTime)]
    #[test]
    fn programs_of_a_kept_loan_are_real_time() {
        let lender = thread::spawn(|| RealTimeLoan::begin(false).keep().unwrap());
        let keeper = lender.join().unwrap();
        let started = keeper.run(|| Command::new("chrt").args(["--pid", "0"]).output());
        let text = String::from_utf8(started.unwrap().stdout).unwrap();
        assert!(text.contains("SCHED_RR"), "{text}");
    }

    #[required(RealTime)]
    #[test]
    fn inherited_policy_is_a_loan_to_a_successor_alone() {
        let policies = thread::spawn(|| {
            set_policy(libc::SCHED_RR, PRIORITY).unwrap();
            drop(RealTimeLoan::begin(false));
            let chosen = policy();
            drop(RealTimeLoan::begin(true));
            [chosen, policy()]
        });
        assert_eq!(policies.join().unwrap(), [libc::SCHED_RR, libc::SCHED_OTHER]);
    }
}
