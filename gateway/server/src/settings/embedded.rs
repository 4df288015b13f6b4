//! What is inside the binary: the policy sets we ship, and the names of the plugins.

/// The policy sets we ship, by file name. A file of the same name in the folder of policies replaces one.
pub(super) const SETS: [(&str, &str); 2] = [
    ("call.toml", include_str!("../../../../policies/call.toml")),
    ("live.toml", include_str!("../../../../policies/live.toml")),
];

/// The plugins we ship; the host holds their bytes.
pub(super) const PLUGINS: [&str; 5] =
    ["admit-capacity", "degrade-ladder", "route-nearest", "scenario-call", "scenario-live"];
