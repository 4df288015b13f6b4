//! Does: sockets, clocks, threads, telemetry, admin API.
