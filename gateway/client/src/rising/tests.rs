use tempfile::tempdir;

use super::*;

#[test]
fn probe_delays_the_lock_but_does_not_prevent_it() {
    let folder = tempdir().unwrap();
    let socket = folder.path().join("socket");
    let looked_at = File::create(beside(&socket)).unwrap();
    looked_at.lock_shared().unwrap();
    let (told, begun) = std::sync::mpsc::channel();
    let at = socket.clone();
    let begins = std::thread::spawn(move || told.send(Rising::begin(&at)).unwrap());
    let early = begun.recv_timeout(RETRY_INTERVAL * 20);
    assert!(early.is_err(), "the demo waits: {early:?}");
    drop(looked_at);
    let rising = begun.recv().unwrap().unwrap();
    assert!(Rising::is_at(&socket));
    drop(rising);
    begins.join().unwrap();
}

#[test]
fn lock_is_seen_until_its_owner_is_gone() {
    let folder = tempdir().unwrap();
    let socket = folder.path().join("socket");
    assert!(!Rising::is_at(&socket));
    let rising = Rising::begin(&socket).unwrap();
    assert!(Rising::is_at(&socket));
    assert!(Rising::begin(&socket).is_err(), "one demo per socket");
    drop(rising);
    assert!(!Rising::is_at(&socket));
    // The lock of a killed process is released; its file stays.
    fs::write(beside(&socket), "").unwrap();
    assert!(!Rising::is_at(&socket));
    drop(Rising::begin(&socket).unwrap());
    assert!(!beside(&socket).exists());
}
