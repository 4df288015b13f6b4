use std::path::Path;
mod start;
mod suspension;

use super::*;

/// A gateway of two threads; its worker runs until control has ended.
fn running(control: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> RunningGateway {
    let (held, gone) = crossbeam_channel::bounded::<()>(0);
    let control = move || {
        let _held = held;
        control()
    };
    let worker = move || {
        let _ = gone.recv();
        Ok(())
    };
    let (handle, _) = Handle::new(Arc::default(), Arc::default());
    let kept = handle.kept.open(None, Path::new("admin.sock"), &handle.unwritten).unwrap();
    RunningGateway {
        kept,
        told: handle.events(),
        handle,
        duplicates: Vec::new(),
        udp: Vec::new(),
        quic: None,
        lease: Arc::new(SendLease::forever()),
        grant: Arc::new(IndexGrant::new(0, Instant::now())),
        fencing: Arc::default(),
        refused_epochs: mpsc::channel(1).1,
        control: GatewayThread::spawn("control", control).unwrap(),
        workers: vec![GatewayThread::spawn("packets-0", worker).unwrap()],
        quic_thread: None,
        certificates: ClientCertificates::open(
            None,
            Path::new("admin.sock"),
            false,
            Default::default(),
        )
        .unwrap(),
        first_policies: FirstPolicies::default(),
        foundry: Foundry::bare(evenkeel_host::Engine::new()),
    }
}

#[tokio::test]
async fn lost_thread_ends_the_gateway() {
    let gateway = running(|| panic!("a slip"));
    gateway.ends().await.unwrap();
    assert_eq!(
        gateway.join().unwrap_err().to_string(),
        "the thread control ended: it panicked: a slip"
    );
    let gateway = running(|| Ok(()));
    gateway.ends().await.unwrap();
    gateway.join().unwrap();
}
