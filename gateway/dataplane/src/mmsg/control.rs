//! Control messages of a datagram.

use std::net::SocketAddr;

use super::class::goes_by_v4;

/// Aligned memory for two control messages with an `int` each, and the number of bytes used.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct ControlBuffer {
    pub(super) bytes: [u8; 64],
    pub(super) used: usize,
}

impl ControlBuffer {
    /// Appends the traffic class (DSCP in its upper six bits, RFC 2474).
    pub(super) fn push_dscp(&mut self, to: SocketAddr, dscp: u8) {
        let (level, kind) = if goes_by_v4(to) {
            (libc::SOL_IP, libc::IP_TOS)
        } else {
            (libc::SOL_IPV6, libc::IPV6_TCLASS)
        };
        self.push(level, kind, libc::c_int::from(dscp << 2));
    }

    /// Appends the segment size (udp(7), UDP_SEGMENT).
    pub(super) fn push_segment(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, size);
    }

    fn push<T>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        const { assert!(size_of::<T>() <= size_of::<libc::c_int>()) };
        let size = size_of::<T>() as u32;
        // SAFETY: CMSG_SPACE of at most an int is 24 bytes, each message begins behind the one before, at a multiple of
        // eight, and there are at most two: 48 bytes of the aligned 64.
        unsafe {
            let header: *mut libc::cmsghdr = self.bytes.as_mut_ptr().add(self.used).cast();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
            std::ptr::write_unaligned(libc::CMSG_DATA(header).cast(), value);
            self.used += libc::CMSG_SPACE(size) as usize;
        }
    }
}
