//! The state that the packet path reads: the board of nodes, the route of a room and the plan of a session.

mod board;
pub mod forward;
mod plan;
mod route;

pub use board::{Board, Cell};
pub use plan::{CapBounds, Plan};
pub use route::{Epoch, HOPS_MAX, Hop, HopGrant, Route, RouteCell};
