//! The clients before a relay: a connected socket each, perhaps with SRTP.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::srtp::{SrtpKey, SrtpReceiver, SrtpSender};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::arrivals::{Arrivals, socket};
use super::books::Tally;
use super::stream::{self, Stream, Way};

/// Datagrams per read; few arrive at one client at a time.
const BATCH: usize = 8;

pub(super) struct Clients {
    sockets: Vec<UdpSocket>,
    streams: Vec<Stream>,
    /// By session; `None` for plain RTP.
    srtp: Vec<Option<Srtp>>,
    arrivals: Arrivals,
    packet: Vec<u8>,
    /// A packet that is decrypted.
    plain: Vec<u8>,
}

/// Both directions of a client.
struct Srtp {
    sender: SrtpSender,
    receiver: SrtpReceiver,
}

impl Clients {
    pub(super) fn bind(at: SocketAddrV4, sessions: usize) -> io::Result<Clients> {
        Ok(Clients {
            sockets: (0..sessions).map(|_| socket(at)).collect::<io::Result<_>>()?,
            streams: (0..).take(sessions).map(|k| Stream::new(k, Way::ToNode)).collect(),
            srtp: (0..sessions).map(|_| None).collect(),
            arrivals: Arrivals::new(BATCH),
            packet: vec![0xa5; 1_500],
            plain: Vec::new(),
        })
    }

    pub(super) fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    pub(super) fn connect(&self, session: u32, to: SocketAddr) -> io::Result<()> {
        self.sockets[session as usize].connect(to)
    }

    pub(super) fn encrypt(
        &mut self,
        session: u32,
        client: &SrtpKey,
        relay: &SrtpKey,
    ) -> Result<(), String> {
        let mut sender = SrtpSender::new(client);
        let leased = sender.lease(stream::ssrc(session, Way::ToNode), u64::MAX, u64::MAX);
        leased.map_err(|error| error.to_string())?;
        let receiver = SrtpReceiver::new(relay);
        self.srtp[session as usize] = Some(Srtp { sender, receiver });
        Ok(())
    }

    pub(super) fn have_srtp(&self) -> bool {
        self.srtp.iter().any(Option::is_some)
    }

    /// Sends the next packet of a session. Returns whether the kernel accepted it.
    pub(super) fn send(&mut self, session: u32, length: usize, window: u8, now_ns: u64) -> bool {
        let Clients { sockets, streams, srtp, packet, .. } = self;
        let session = session as usize;
        streams[session].next(&mut packet[..length], window, now_ns);
        let sent = match &mut srtp[session] {
            Some(srtp) => match srtp.sender.protect_rtp(packet, length) {
                Ok(protected) => sockets[session].send(protected),
                Err(_) => return false,
            },
            None => sockets[session].send(&packet[..length]),
        };
        sent.is_ok()
    }

    /// Sends the next packets of a session without SRTP, all of this length, in one call. Returns whether the kernel
    /// accepted them.
    pub(super) fn send_burst(
        &mut self,
        session: u32,
        length: usize,
        packets: usize,
        window: u8,
        now_ns: u64,
    ) -> bool {
        self.packet.resize(self.packet.len().max(length * packets), 0xa5);
        let burst = &mut self.packet[..length * packets];
        let stream = &mut self.streams[session as usize];
        for packet in burst.chunks_exact_mut(length) {
            stream.next(packet, window, now_ns);
        }
        let Ok(segment) = u16::try_from(length) else { return false };
        let socket = self.sockets[session as usize].as_raw_fd();
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let slices = [IoSlice::new(burst)];
        sendmsg::<()>(socket, &slices, &control, MsgFlags::MSG_DONTWAIT, None).is_ok()
    }

    /// Reads at most a batch of a client's packets, and returns the number of packets of its session. RTCP, such as
    /// TMMBR (RFC 5104), is not counted.
    pub(super) fn receive(
        &mut self,
        session: u32,
        window: u8,
        tally: &mut Tally,
    ) -> io::Result<u64> {
        let mut packets = 0;
        let Clients { sockets, srtp, arrivals, plain, .. } = self;
        let srtp = &mut srtp[session as usize];
        arrivals.receive(&sockets[session as usize], |arrival| {
            if demux::classify(arrival.bytes) != DatagramKind::Rtp {
                tally.foreign += 1;
                return;
            }
            let mark = match srtp {
                Some(srtp) => {
                    plain.clear();
                    plain.extend_from_slice(arrival.bytes);
                    let packet = srtp.receiver.unprotect_rtp(plain).ok();
                    packet.and_then(|packet| stream::read(packet, Way::ToClient))
                }
                None => stream::read(arrival.bytes, Way::ToClient),
            };
            match mark {
                Some(mark) if mark.session == u64::from(session) => {
                    packets += 1;
                    if mark.stream == window {
                        tally.came(Way::ToClient, &mark, arrival.stamp_ns);
                    }
                }
                _ => tally.misdelivered += 1,
            }
        })?;
        Ok(packets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_lab::clock;
    use evenkeel_media::srtp::SrtpProfile;

    #[test]
    fn foreign_packet_at_a_client_is_misdelivered() {
        let at = SocketAddrV4::new([127, 0, 0, 1].into(), 0);
        let relay = UdpSocket::bind(at).unwrap();
        let mut clients = Clients::bind(at, 2).unwrap();
        clients.connect(1, relay.local_addr().unwrap()).unwrap();
        let to = clients.sockets()[1].local_addr().unwrap();
        let mut tally = Tally::default();
        for (session, way) in [(1, Way::ToClient), (0, Way::ToClient), (1, Way::ToNode)] {
            let mut packet = vec![0; 60];
            Stream::new(session, way).next(&mut packet, 7, clock::now_ns());
            relay.send_to(&packet, to).unwrap();
        }
        // TMMBR (RFC 5104, section 4.2.1).
        relay.send_to(&[0x83, 205, 0, 4].repeat(5), to).unwrap();
        let mut packets = 0;
        while tally.came + tally.misdelivered + tally.foreign < 4 {
            packets += clients.receive(1, 7, &mut tally).unwrap();
        }
        assert_eq!((packets, tally.came, tally.misdelivered, tally.foreign), (1, 1, 2, 1));
    }

    #[test]
    fn client_with_srtp_sends_and_expects_it() {
        let at = SocketAddrV4::new([127, 0, 0, 1].into(), 0);
        let relay = UdpSocket::bind(at).unwrap();
        let mut clients = Clients::bind(at, 1).unwrap();
        clients.connect(0, relay.local_addr().unwrap()).unwrap();
        let key = |byte| {
            SrtpKey::generate(SrtpProfile::AeadAes128Gcm, |bytes: &mut [u8]| bytes.fill(byte))
        };
        clients.encrypt(0, &key(1), &key(2)).unwrap();

        assert!(clients.send(0, 60, 7, clock::now_ns()));
        let mut buffer = [0; 200];
        let (length, client) = relay.recv_from(&mut buffer).unwrap();
        assert_eq!(stream::read(&buffer[..length], Way::ToNode), None, "it is encrypted");
        let packet = SrtpReceiver::new(&key(1)).unprotect_rtp(&mut buffer[..length]).unwrap();
        assert_eq!(stream::read(packet, Way::ToNode).map(|mark| mark.number), Some(0));

        let mut stream = Stream::new(0, Way::ToClient);
        let mut sender = SrtpSender::new(&key(2));
        sender.lease(stream::ssrc(0, Way::ToClient), u64::MAX, u64::MAX).unwrap();
        let mut packet = vec![0; 200];
        stream.next(&mut packet[..60], 7, clock::now_ns());
        relay.send_to(&packet[..60], client).unwrap();
        relay.send_to(sender.protect_rtp(&mut packet, 60).unwrap(), client).unwrap();
        let mut tally = Tally::default();
        while tally.came + tally.misdelivered < 2 {
            clients.receive(0, 7, &mut tally).unwrap();
        }
        assert_eq!((tally.came, tally.misdelivered), (1, 1), "the plain one is misdelivered");
    }
}
