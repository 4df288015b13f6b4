//! Numbers and names of the registry, and an accessor per metric on each view. Generated from `wit/registry.toml`.

use crate::admission::Region;
use crate::degradation::Session;
use crate::node::Node;
use crate::room::Room;
use crate::scenario::Params;

include!(concat!(env!("OUT_DIR"), "/registry.rs"));
