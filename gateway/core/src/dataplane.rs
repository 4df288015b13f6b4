//! What packets read: the board of nodes, the route of a room, the plan of a session.

mod board;
pub mod forward;
mod plan;
mod route;

pub use board::{Board, Cell};
pub use plan::{Bounds, Plan};
pub use route::{Epoch, Grant, HOPS_MAX, Hop, Route, RouteCell};
