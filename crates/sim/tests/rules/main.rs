//! Every rule of the path, as a promise that a simulated session keeps. One file per chapter, one test per rule.

mod amnesia;
mod carriers;
mod control;
mod cuts;
mod dialling;
mod ending;
mod go;
mod idle;
mod large;
mod limits;
mod memory;
mod receiving;
mod resending;
mod sealed;
mod silence;
mod spare;

use std::time::Duration;

use turbotunnel::CarrierEnd;
use turbotunnel::tunnel::Event;
use turbotunnel_sim::{Side, Sim};

/// When each carrier came into use at that end.
fn ups(sim: &Sim, side: Side) -> Vec<Duration> {
    let told = sim.told(side).iter();
    told.filter(|told| matches!(told.event, Event::CarrierUp { .. })).map(|told| told.at).collect()
}

/// When each carrier was lost at that end, and why.
fn losses(sim: &Sim, side: Side) -> Vec<(Duration, CarrierEnd)> {
    let lost = sim.told(side).iter().filter_map(|told| match told.event {
        Event::CarrierLost { why, .. } => Some((told.at, why)),
        _ => None,
    });
    lost.collect()
}
