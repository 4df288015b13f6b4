use super::*;

fn text(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn manager_is_reached_by_path_and_by_abstract_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let name = format!("evenkeel-notify-{}", std::process::id());
    let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
    let sockets = [
        (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
        (format!("@{name}").into(), UnixDatagram::bind_addr(&abstract_name).unwrap()),
    ];
    for (manager, socket) in &sockets {
        connect(manager).unwrap().send(b"READY=1").unwrap();
        assert_eq!(text(socket), "READY=1");
    }
}

#[test]
fn barrier_hangs_up_once_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let reader = barrier(path.as_os_str()).unwrap();
    let hung_up = |timeout: u16| {
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::empty())];
        poll(&mut fds, timeout).unwrap() == 1
    };
    assert!(!hung_up(0), "the descriptor waits with its message");
    // Without a buffer for descriptors the kernel closes them.
    assert_eq!(text(&socket), "BARRIER=1");
    assert!(hung_up(10_000));
}
