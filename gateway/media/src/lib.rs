//! Reads, rewrites, repairs and measures RTP: bytes and numbers in and out, no session, no I/O.
