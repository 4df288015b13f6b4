//! `evenkeel.toml` and the policy sets, parsed and checked once.

pub mod address;
mod advice;
mod alert;
mod check;
mod cluster;
mod config;
mod dependency;
mod driver;
mod effective;
mod elastic;
mod forecast;
mod gateway;
mod index;
mod listen;
mod node;
mod plugin;
mod registry;
mod set;
mod slo;
mod source_file;
mod telemetry;
pub mod token;
mod webhook;
mod webrtc;

pub use address::{InvalidUrl, NetworkPrefix, Url};
pub use alert::{AlertEscalation, AlertReceiver, AlertReceiverKind, AlertTier};
pub use check::{Colour, ConfigBitRate, InvalidSetting, SecretFile, read_duration};
pub use cluster::{AddressPlace, GroupSettings, MovingAddress, PeerSettings, WitnessSettings};
pub use config::GatewayConfig;
pub use dependency::{DependencySettings, DependencyTarget};
pub use driver::{DriverKey, DriverKeys, DriverKind, DriverSettings, NodeProbe, Signalling};
pub use effective::ConfigInForce;
pub use forecast::ForecastSettings;
pub use gateway::{
    AdminSettings, AdminTcp, CacheFolder, GatewaySettings, LimitSettings, Traceparent,
};
pub use index::{IndexSettings, Login};
pub use listen::{
    AdvertisedAddress, CertificateFiles, ListenIdentity, ListenIngress, ListenSettings,
};
pub use node::{NODES_MAX, NodeConfig, NodeSrtp, StartBy, StartHook, WatchingAgent};
pub use plugin::{
    Compiler, KeptPlugin, OnFault, PluginLimits, PluginLocation, PolicyBinding, RegistryPlugin,
    SetOrigin, TrustSettings,
};
pub use registry::{InvalidReference, PluginReference, RegistrySettings};
pub use set::{DscpSettings, PolicySet, RolloutSettings, ScenarioSettings, rollout_settings};
pub use source_file::WrittenConfig;
pub use telemetry::{Otlp, OtlpProtocol, Signal, TelemetrySettings};
pub use webhook::WebhookTarget;
pub use webrtc::{IceServer, IceServerLogin, WebrtcSettings};
