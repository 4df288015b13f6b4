use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, poll};

use super::*;

fn shell(script: &str, within: Duration) -> CommandResult {
    let command = ["/bin/sh", "-c", script].map(String::from);
    run(&command, &[("EVENKEEL_ROOM", "7".to_owned())], within)
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn command_output_and_environment_are_passed() {
    assert_eq!(shell("echo 10.0.0.1:$EVENKEEL_ROOM", PATIENCE), Ok("10.0.0.1:7\n".to_owned()));
}

#[test]
fn failure_names_the_command() {
    assert_eq!(shell("exit 3", PATIENCE).unwrap_err(), "`/bin/sh`: exit status: 3");
    let text = shell("printf '\\377'", PATIENCE).unwrap_err();
    assert_eq!(text, "`/bin/sh`: printed no valid UTF-8");
}

#[test]
fn outcome_returns_its_context_and_wakes() {
    let commands = Commands::new().unwrap();
    for context in 0..10 {
        let command = ["/bin/sh", "-c", "echo $N"].map(String::from).to_vec();
        let environment = vec![("N", context.to_string())];
        assert!(commands.run(CommandJob { command, environment, within: PATIENCE, context }));
    }
    let mut done = Vec::new();
    while done.len() < 10 {
        let mut fds = [PollFd::new(commands.bell.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, 20_000_u16), Ok(1));
        done.extend(commands.results());
    }
    assert!(
        done.into_iter().all(|(context, output_bytes)| output_bytes == Ok(format!("{context}\n")))
    );
}

#[test]
fn jobs_beyond_the_queue_are_refused() {
    let commands = Commands::new().unwrap();
    let job = |context| CommandJob {
        command: ["/bin/sleep", "0.05"].map(String::from).to_vec(),
        environment: Vec::new(),
        within: PATIENCE,
        context,
    };
    let taken = (0..WAITING_MAX + 2 * THREADS + 1).take_while(|&n| commands.run(job(n))).count();
    assert!((WAITING_MAX..=WAITING_MAX + 2 * THREADS).contains(&taken), "{taken}");
}
