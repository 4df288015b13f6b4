//! What is inside the binary: the policy sets we ship, and the names of the plugins.

/// The policy sets we ship, by file name. A file of the same name in the folder of policies replaces one.
pub(super) const SETS: [(&str, &str); 3] = [
    ("call.toml", include_str!("../../../../policies/call.toml")),
    ("conference.toml", include_str!("../../../../policies/conference.toml")),
    ("live.toml", include_str!("../../../../policies/live.toml")),
];

/// The names of the plugins we ship; the host holds their bytes.
pub(super) fn plugins() -> impl Iterator<Item = &'static str> {
    evenkeel_host::shipped().iter().map(|shipped| shipped.name)
}
