use super::*;

#[test]
fn packets_leave_in_order_at_the_end_of_a_pass() {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (first, second) = (bind(), bind());
    let addresses = [&first, &second].map(|socket| socket.local_addr().unwrap());
    for socket in [&first, &second] {
        socket.set_nonblocking(true).unwrap();
    }
    let now = Instant::now();
    let stats = WorkerStats::new(now, 2);
    let mut ports = SessionPorts::new(bind(), None).unwrap();
    let queue = |ports: &mut SessionPorts, node: u32, byte| {
        let to = (NodeId(node), addresses[node as usize]);
        ports.queue(RtpSide::Rtp, to, 0, &[byte], |ports| ports.flush(&stats, now))
    };
    let came = |socket: &UdpSocket| {
        let mut bytes = [0; 8];
        std::iter::from_fn(|| socket.recv(&mut bytes).ok().map(|_| bytes[0])).collect::<Vec<_>>()
    };
    assert!(queue(&mut ports, 0, 1));
    assert!(!queue(&mut ports, 0, 2), "a flush is due already");
    assert_eq!(came(&first), [0; 0]);
    assert!(!queue(&mut ports, 1, 3), "a packet for another node flushes those before");
    assert_eq!(came(&first), [1, 2]);
    ports.flush(&stats, now);
    assert_eq!(came(&second), [3]);
    assert!(queue(&mut ports, 1, 4), "the next pass");
}
