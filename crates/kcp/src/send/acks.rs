//! What a packet's acknowledgements say, and what follows for the segments that were sent.
//!
//! In: `una`, windows and ACKs, one segment after the other ([`Sender::on_una`], [`Sender::on_window`], [`Sender::on_ack`]). Out: once the packet is read,
//! round trips, what is lost, and what the congestion window makes of it ([`Sender::settle`]).

use std::time::Instant;

use super::{ASSUMED_WINDOW, Cause, Sender, Slot, State, WINDOW_PROBE_FIRST};
use crate::config::{LARGE_PLACES, Retransmission};
use crate::flight::Acknowledged;
use crate::pool::Pool;
use crate::rto::Rto;
use crate::sn::{Sn, Ts};
use crate::stats::Stats;
use crate::wire::HEADER_LEN;

/// What one packet's acknowledgements amount to; applied by [`Sender::settle`].
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Segments newly acknowledged, by `una` or ACK.
    pub(super) count: usize,
    pub(super) una_moved: bool,
    /// Bytes of them.
    pub(super) bytes: usize,
    /// Flying before the packet.
    pub(super) flying: usize,
    /// The last of the segments' transmissions, and one.
    pub(super) order: u64,
    /// Latest transmission known to have arrived.
    pub(super) proven: Option<u64>,
    /// When the last segment was sent of which a round trip can be told.
    pub(super) sample: Option<Instant>,
    /// The last segment that `una` has passed; its ACK may stand beside.
    passed: Option<Passed>,
    implausible: u64,
}

impl Progress {
    /// The news took another way than an ACK: it came, but its time and order say nothing.
    pub(crate) fn forget_times(&mut self) {
        self.sample = None;
        self.proven = None;
    }
}

#[derive(Debug)]
struct Passed {
    sn: Sn,
    once: bool,
    exact: bool,
    order: u64,
    sent_at: Instant,
    ts: Ts,
}

impl Sender {
    /// To be called before the first segment of a packet.
    pub(crate) fn progress(&self) -> Progress {
        Progress { flying: self.flying(), ..Progress::default() }
    }

    /// Whether `una` is one that the peer can have; an old one can.
    pub(crate) fn accepts_una(&self, una: Sn) -> bool {
        una.distance_from(self.nxt()) <= 0
    }

    /// Whether `sn` has been sent, however long ago.
    pub(crate) fn accepts_ack(&self, sn: Sn) -> bool {
        sn.distance_from(self.nxt()) < 0
    }

    /// `una` came without a window. What is assumed of a peer that has announced none is assumed from there.
    pub(crate) fn assume_window(&mut self) {
        if !self.edge_announced {
            self.edge = self.passed_places.plus(ASSUMED_WINDOW);
        }
    }

    /// Everything below `una`, which [`Self::accepts_una`], has arrived.
    #[inline]
    pub(crate) fn on_una(&mut self, una: Sn, progress: &mut Progress, pool: &mut Pool) {
        if una.distance_from(self.una) > 0 {
            self.pass_to(una, progress, pool);
        }
    }

    fn pass_to(&mut self, una: Sn, progress: &mut Progress, pool: &mut Pool) {
        progress.una_moved = true;
        while self.una != una
            && let Some(slot) = self.slots.pop_front()
        {
            let (sn, bytes) = (self.una, slot.payload.len() + HEADER_LEN);
            self.una = sn.next();
            self.numbered -= 1;
            self.numbered_places -= usize::from(slot.places);
            self.places -= usize::from(slot.places);
            self.passed_places = self.passed_places.plus(slot.places.into());
            if slot.state == State::Acknowledged {
                self.acknowledged -= 1;
                continue;
            }
            if slot.state == State::Flying {
                self.flying_bytes -= bytes;
                progress.order = progress.order.max(slot.order + 1);
                if slot.once {
                    progress.proven = progress.proven.max(Some(slot.order));
                    progress.sample = Some(slot.sent_at);
                }
                let Slot { once, exact, order, sent_at, ts, .. } = slot;
                progress.passed = Some(Passed { sn, once, exact, order, sent_at, ts });
            } else {
                self.lost -= 1;
            }
            progress.count += 1;
            progress.bytes += bytes;
            pool.put(slot.payload);
        }
    }

    /// The peer has room for `wnd` places from `una` on, which [`Self::on_una`] has passed. An edge once announced stays.
    pub(crate) fn on_window(&mut self, una: Sn, wnd: u16) {
        // Old news has room for so much less as was sent since, and at most so large.
        let since = u32::try_from(self.una.distance_from(una)).unwrap_or(u32::MAX);
        let most = if self.takes_large { LARGE_PLACES } else { 1 };
        let edge = self.passed_places.plus(u32::from(wnd).saturating_sub(since.saturating_mul(most)));
        let moved = edge.distance_from(self.edge) > 0;
        if !self.edge_announced || moved {
            self.edge = edge;
            self.edge_announced = true;
        }
        if moved {
            // A window can move and be closed all the same: by data that was sent before the peer told it.
            self.probe.wanted &= edge.offset_from(self.passed_places).is_none_or(|window| window <= self.places);
            self.probe.due = None;
            self.probe.wait = WINDOW_PROBE_FIRST;
        }
    }

    pub(crate) fn on_ack(&mut self, sn: Sn, ts: Ts, progress: &mut Progress, pool: &mut Pool) {
        if let Some(passed) = progress.passed.take_if(|passed| passed.sn == sn) {
            if passed.exact && passed.ts == ts {
                progress.proven = progress.proven.max(Some(passed.order));
                progress.sample = Some(passed.sent_at);
            } else if passed.once {
                progress.sample = None;
                progress.implausible += 1;
            }
        }
        let Some(index) = self.index(sn) else {
            return;
        };
        let slot = &mut self.slots[index];
        match slot.state {
            State::Flying if slot.exact && slot.ts == ts => {
                progress.proven = progress.proven.max(Some(slot.order));
                progress.sample = Some(slot.sent_at);
            }
            State::Flying if slot.once => {
                progress.proven = progress.proven.max(Some(slot.order));
                progress.implausible += 1;
            }
            State::Flying => {}
            State::Lost(_) => self.lost -= 1,
            State::Acknowledged | State::Unsent => return,
        }
        let bytes = slot.payload.len() + HEADER_LEN;
        progress.bytes += bytes;
        if slot.state == State::Flying {
            self.flying_bytes -= bytes;
            progress.order = progress.order.max(slot.order + 1);
        }
        slot.state = State::Acknowledged;
        pool.put(std::mem::take(&mut slot.payload));
        self.acknowledged += 1;
        progress.count += 1;
    }

    /// Draws the conclusions of a packet's acknowledgements. Most packets that bring data bring none.
    #[inline]
    pub(crate) fn settle(&mut self, now: Instant, progress: &Progress, rto: &mut Rto, stats: &mut Stats) {
        if progress.una_moved || progress.count > 0 {
            self.on_progress(now, progress, rto, stats);
        }
        self.arm_window_probe(now);
    }

    fn on_progress(&mut self, now: Instant, progress: &Progress, rto: &mut Rto, stats: &mut Stats) {
        stats.rtt_implausible += progress.implausible;
        if progress.count > 0 {
            if let Some(sent_at) = progress.sample {
                rto.sample(now.saturating_duration_since(sent_at));
                stats.rtt_samples += 1;
            }
            match self.mode {
                Retransmission::Timeout => self.congestion.on_acknowledged(progress.count, progress.flying),
                Retransmission::TailProbe => {
                    let news = Acknowledged {
                        bytes: progress.bytes,
                        round_trip: progress.sample.map(|sent_at| now.saturating_duration_since(sent_at)),
                        order: progress.order,
                        next: self.next_order(),
                        flying: self.flying_bytes,
                    };
                    self.flight.on_acknowledged(now, news);
                }
            }
            self.acknowledged_at = now;
        }
        if progress.una_moved {
            self.una_moved_at = now;
            self.probe_goes = false;
        }
        // After a timeout that came too early the estimate is wrong, and an ACK for the first transmission tells nothing. So,
        // as Karn says, the longer timeout stays until a transmission is known to have arrived in its time.
        let ends_backoff = match self.mode {
            Retransmission::TailProbe => progress.una_moved,
            Retransmission::Timeout => progress.proven.is_some(),
        };
        if ends_backoff {
            self.backoff = 0;
        }
        if self.slots.is_empty() {
            // Nothing is left: then the log is of no use.
            self.log_base += self.log.len() as u64;
            self.log.clear();
            self.lost_queue.clear();
            return;
        }
        self.trim_log();
        if let Some(proven) = progress.proven {
            while self.log_base < proven && !self.log.is_empty() {
                self.give_up_first(Cause::Overtaken);
                self.trim_log();
            }
        }
    }
}
