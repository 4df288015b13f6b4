use super::*;

#[test]
fn thread_end_is_reported_by_name() {
    let ended =
        |work: fn() -> io::Result<()>| GatewayThread::spawn("packets-0", work).unwrap().join();
    assert_eq!(ended(|| Ok(())), Ok(()));
    let failed = ended(|| Err(io::ErrorKind::NotFound.into())).unwrap_err();
    assert_eq!(failed.to_string(), "the thread packets-0 ended: entity not found");
    let panicked = ended(|| panic!("number {}", 7)).unwrap_err();
    assert_eq!(&*panicked.reason, "it panicked: number 7");
}
