//! Third-party clients and servers against the `evenkeel` binary, with real media.
//!
//! `make clients` installs them. Tests of absent clients are ignored by name; with `EVENKEEL_REQUIRED=all` they fail.

mod demo;
mod ffmpeg;
mod gstreamer;
mod janus;
mod meter;
mod operating;
mod otlp;
mod page;
mod promql;
mod roq;
mod rtpengine;
mod rtpengine_srtp;
mod sdp;
mod srtp;
mod stage;
mod tap;
mod telemetry;
mod webrtc;
mod webtransport;
mod whip;
