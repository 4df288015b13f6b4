//! Settings and telemetry through the public interface.

mod receiver;
mod settings;
mod telemetry;
mod traces;
