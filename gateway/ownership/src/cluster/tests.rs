use evenkeel_media::trunk::OwnershipBallot;

use super::*;
use crate::damping::HoldDown;

mod group;
mod handing_over;
mod lease;
mod messages;
mod operator;
mod start;
mod takeover;

use group::{Group, Link};
