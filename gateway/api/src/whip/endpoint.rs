//! The paths of WHIP and WHEP.

use evenkeel_config::token::ClientDirection;

/// The room of a request, and the use of it.
pub(super) struct Endpoint {
    pub(super) direction: ClientDirection,
    pub(super) scenario: String,
    pub(super) room: String,
}

/// The first segment of paths.
pub(super) fn protocol(direction: ClientDirection) -> &'static str {
    match direction {
        ClientDirection::Publish => "whip",
        ClientDirection::View => "whep",
    }
}
