use evenkeel_media::trunk::OwnershipBallot;

use super::*;
use crate::damping::HoldDown;
use crate::messages::TakeoverRefusal;

const HOLD_DOWN: HoldDown =
    HoldDown { first: Duration::from_secs(5), longest: Duration::from_secs(300) };

mod group;
mod handing_over;
mod lease;
mod messages;
mod operator;
mod start;
mod takeover;
mod three;

use group::{Group, Link};
