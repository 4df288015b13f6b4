//! Settings and telemetry through the public interface.

mod exports;
mod operations;
mod receiver;
mod settings;
mod telemetry;
mod traces;
