//! The attacks, one file for each kind.

mod carriers;
mod descriptors;
mod flooders;
mod garbage;
mod greedy;
mod half_open;
mod hostile_server;
mod ids;
mod intruder;
mod keys;
mod log;
mod mixed;
mod network;
mod replies;
mod spray;
mod stopped;
mod streams;
mod twin;

use crate::attack::Attack;

/// All of them, in the order in which they are played.
pub(crate) const ALL: &[&Attack] = &[
    &ids::FLOOD,
    &half_open::HALF_OPEN,
    &half_open::DRIP,
    &descriptors::EXHAUSTED,
    &streams::SYN_FLOOD,
    &streams::TINY_FRAMES,
    &greedy::NEVER_READ,
    &greedy::WIDE,
    &greedy::BUDGET_USED_UP,
    &greedy::GAP,
    &spray::CONV_SPRAY,
    &carriers::OF_ONE_SESSION,
    &flooders::FLOOD,
    &twin::DEAD_TWIN,
    &intruder::FOREIGN_CONV,
    &intruder::FORGED_UNA,
    &intruder::EMPTY_PUSH,
    &intruder::GO_CLIENT,
    &intruder::CONTROL_PACKETS,
    &garbage::BAD_LENGTHS,
    &garbage::RANDOM_BYTES,
    &replies::ACKS,
    &replies::WASKS,
    &replies::PINGS,
    &replies::HELLOS,
    &log::STUCK,
    &log::CLOSED,
    &log::DISK_FULL,
    &stopped::SERVER_STOPPED,
    &stopped::SERVER_STOPPED_LONG,
    &stopped::STOPPED_AT_FIRST,
    &stopped::CLIENT_STOPPED,
    &stopped::SLOW_READER,
    &network::GONE,
    &stopped::SERVER_RESTARTED,
    &stopped::SERVER_GONE,
    &stopped::SERVER_SILENT,
    &stopped::REFUSED_GO_CLIENT,
    &hostile_server::UNSOLICITED_SYNS,
    &hostile_server::ACCEPT_AND_CLOSE,
    &hostile_server::PROGRESS_AND_CLOSE,
    &hostile_server::ENDLESS_PACKETS,
    &keys::HALF_OPEN,
    &keys::DRIP,
    &keys::GARBAGE,
    &keys::REPLAYS,
    &keys::SESSIONS,
    &greedy::IMMORTAL,
    &mixed::MIXED,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_attack_has_a_name_of_its_own_and_a_ceiling() {
        let names: HashSet<_> = ALL.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|attack| !attack.ceilings.is_empty()));
    }
}
