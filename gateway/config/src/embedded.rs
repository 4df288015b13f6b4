/// The shipped policy sets by file name. A file of the same name in the policy folder replaces one.
pub(super) const SETS: [(&str, &str); 3] = [
    ("call.toml", include_str!("../../../policies/call.toml")),
    ("conference.toml", include_str!("../../../policies/conference.toml")),
    ("live.toml", include_str!("../../../policies/live.toml")),
];

/// Names of the shipped plugins; the host holds their bytes.
pub(super) fn plugins() -> impl Iterator<Item = &'static str> {
    evenkeel_host::shipped().iter().map(|shipped| shipped.name)
}
