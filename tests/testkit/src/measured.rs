//! Figures of a test, for the report of its command and the closing lines of `make test`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::thread;

/// Names the file to which tests add lines: the test, the name of a figure, and the figure, separated by tabs.
const FILE: &str = "EVENKEEL_FIGURES";

/// The figure of a test that is no measurement: the reason.
const NOT_MEASURED: &str = "not-measured";

/// The name under which a test adds a program that it tests with.
const CLIENT: &str = "client";

/// Adds a figure of the running test.
pub fn figure(name: &str, value: f64) {
    add(name, &value.to_string());
}

/// Adds a program that the running test has as a client, with its version.
pub fn client(version: &str) {
    println!("{CLIENT}: {version}");
    add(CLIENT, version);
}

/// Says that the machine did not let the running test measure what it judges: the test is no success, and shows no fault of its subject.
pub fn not_measured(reason: &str) {
    println!("{NOT_MEASURED}: {reason}");
    add(NOT_MEASURED, reason);
}

fn add(name: &str, value: &str) {
    let Some(path) = std::env::var_os(FILE) else { return };
    let thread = thread::current();
    let line = format!("{}\t{name}\t{}\n", thread.name().unwrap_or("?"), value.replace('\n', " "));
    // Tests of several processes add at once: one write each.
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let added = file.and_then(|mut file| file.write_all(line.as_bytes()));
    added.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
