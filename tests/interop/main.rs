//! Real media, and implementations that are not ours, against the binary people run.
//!
//! `make clients` sets the clients up. Where one is absent its tests are skipped, which is said and counted; with
//! `EVENKEEL_CLIENTS=required` they fail.

mod binary;
mod clients;
mod demo;
mod ffmpeg;
mod gstreamer;
mod meter;
mod operating;
mod process;
mod roq;
mod rtpengine;
mod stage;
mod tap;
mod telemetry;
