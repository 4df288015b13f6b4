use super::*;

#[test]
fn dropped_worker_handle_stops_the_worker() {
    let (commands, told) = crossbeam_channel::bounded(1);
    let stats = Arc::new(WorkerStats::new(Instant::now(), 0));
    let line = WorkerLine { commands, waker: Arc::new(Waker::new().unwrap()), stats };
    let control = std::thread::spawn(move || {
        let _held = line;
        panic!("as control never should");
    });
    control.join().unwrap_err();
    assert!(matches!(told.try_recv(), Ok(WorkerCommand::Stop)));
}
