//! One end of a session under observation: after every verb the promises of the crate's documentation are checked.

use std::collections::HashMap;
use std::time::Instant;

use turbotunnel::control::MIN_KCP_PACKET;
use turbotunnel::encapsulation::MAX_PACKET;
use turbotunnel::tunnel::{CarrierId, Event, Stats, StreamFailure, Tunnel};
use turbotunnel::{SessionError, StreamId};

use crate::mux_end::Turned;

/// Carriers that were never used, in one run.
const MOST_DIALS: u64 = 8;

/// What a packet that is not for this session, or makes no sense, must not touch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    timeout: Option<Instant>,
    current: Option<CarrierId>,
    ended: Option<SessionError>,
    has_work: bool,
    stats: Stats,
    kcp: kcp::Stats,
    smux: smux::Stats,
}

impl Facts {
    pub(crate) fn of(tunnel: &Tunnel, now: Instant) -> Self {
        let (kcp, smux) = tunnel.engine_stats();
        let (mut kcp, smux, mut stats) = (kcp.clone(), smux.clone(), tunnel.stats());
        // Taken in and refused: that is counted.
        (stats.packets_received, stats.packets_dropped) = (0, 0);
        (kcp.packets_received, kcp.packets_malformed) = (0, 0);
        (kcp.dropped_wrong_una, kcp.dropped_wrong_ack) = (0, 0);
        (kcp.dropped_empty_push, kcp.dropped_beyond_window) = (0, 0);
        Self {
            timeout: tunnel.poll_timeout(),
            current: tunnel.current(),
            ended: tunnel.ended().cloned(),
            has_work: tunnel.has_work(now),
            stats,
            kcp,
            smux,
        }
    }
}

/// What the application has asked for and waits for.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    read: Turned,
    write: Turned,
    delivered: bool,
    closed: bool,
}

impl Waits {
    /// Whoever waits for a stream that is over in one way or another looks after it.
    fn let_in(&mut self) {
        self.read.let_in();
        self.write.let_in();
    }
}

pub(crate) struct End {
    tunnel: Tunnel,
    waits: HashMap<StreamId, Waits>,
    ended: Option<SessionError>,
    end_told: bool,
    /// Every stream was finished, those that nobody has accepted too.
    closing: bool,
    /// It was told what the peer never said: streams may begin twice, and end before their time.
    misled: bool,
    packet: Vec<u8>,
}

impl End {
    pub(crate) fn new(tunnel: Tunnel) -> Self {
        Self {
            tunnel,
            waits: HashMap::new(),
            ended: None,
            end_told: false,
            closing: false,
            misled: false,
            packet: Vec::new(),
        }
    }

    pub(crate) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// For verbs that promise nothing but what is checked after each.
    pub(crate) fn with<T>(&mut self, act: impl FnOnce(&mut Tunnel) -> T) -> T {
        let outcome = act(&mut self.tunnel);
        self.check();
        outcome
    }

    /// The application was turned away and not told since that it can read, or write.
    pub(crate) fn waits_for(&self, id: StreamId) -> (bool, bool) {
        self.waits.get(&id).map_or((false, false), |waits| (waits.read.waits(), waits.write.waits()))
    }

    pub(crate) fn expect_anything(&mut self) {
        self.misled = true;
    }

    pub(crate) fn handle_packet(&mut self, now: Instant, id: CarrierId, packet: &[u8]) {
        self.with(|tunnel| tunnel.handle_packet(now, id, packet));
    }

    /// A packet that cannot be of the peer's.
    pub(crate) fn handle_noise(&mut self, now: Instant, id: CarrierId, packet: &[u8]) {
        let due = self.tunnel.poll_timeout().is_some_and(|at| at <= now);
        let before = Facts::of(&self.tunnel, now);
        self.handle_packet(now, id, packet);
        // Any call does what is due.
        if !due {
            assert_eq!(Facts::of(&self.tunnel, now), before, "{packet:02x?} changed something");
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let early = self.tunnel.poll_timeout().is_none_or(|at| at > now);
        let before = Facts::of(&self.tunnel, now);
        self.tunnel.handle_timeout(now);
        if early {
            assert_eq!(Facts::of(&self.tunnel, now), before, "called early it does nothing");
        }
        assert!(self.tunnel.poll_timeout().is_none_or(|at| at > now), "a timer that has fired is over");
        self.check();
    }

    /// The next packet for this carrier, if there is one.
    pub(crate) fn poll_transmit(&mut self, now: Instant, id: CarrierId) -> Option<Vec<u8>> {
        let mut packet = std::mem::take(&mut self.packet);
        packet.clear();
        packet.extend_from_slice(b"stays");
        let before = Facts::of(&self.tunnel, now);
        let current = self.tunnel.current() == Some(id);
        let made = self.tunnel.poll_transmit(now, id, &mut packet);
        assert_eq!(packet[..5], *b"stays");
        let made = if made {
            let packet = packet.split_off(5);
            assert!((1..=MAX_PACKET).contains(&packet.len()), "packet of {} bytes", packet.len());
            assert!(packet.len() < MIN_KCP_PACKET || current, "data for a carrier that does not send");
            Some(packet)
        } else {
            assert_eq!(packet.len(), 5, "a packet that was not made left bytes");
            if !current {
                assert_eq!(Facts::of(&self.tunnel, now), before, "asking for a packet in vain changed something");
            }
            None
        };
        self.packet = packet;
        self.check();
        made
    }

    /// Everything was asked for, and there was nothing: what is true then.
    pub(crate) fn check_drained(&mut self, now: Instant) {
        if self.ended.is_some() {
            // Last words may be left for a carrier that was closed before they could be said.
            return;
        }
        let before = Facts::of(&self.tunnel, now);
        let ids = 0..=self.tunnel.stats().carriers.saturating_add(MOST_DIALS) as u32;
        for id in ids.map(CarrierId) {
            assert!(self.poll_transmit(now, id).is_none(), "a packet waited for something other than room");
        }
        assert_eq!(Facts::of(&self.tunnel, now), before, "asking for a packet in vain changed something");
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        let event = self.tunnel.poll_event()?;
        match &event {
            Event::Readable(id) => {
                let waited = self.waits.get_mut(id).is_some_and(|waits| waits.read.told());
                assert!(waited || self.is_closed(*id), "{event:?} for one who did not wait");
            }
            Event::Writable(id) => {
                let waited = self.waits.get_mut(id).is_some_and(|waits| waits.write.told());
                assert!(waited || self.is_closed(*id), "{event:?} for one who did not wait");
            }
            Event::Delivered(id) => {
                let asked = self.waits.get_mut(id).is_some_and(|waits| std::mem::take(&mut waits.delivered));
                assert!(asked || self.closing || self.misled, "{event:?} for one who did not finish, or twice");
            }
            Event::ClosedByPeer { id, .. } => {
                self.waits.get_mut(id).into_iter().for_each(Waits::let_in);
            }
            Event::Ended(why) => {
                self.waits.values_mut().for_each(Waits::let_in);
                assert!(!std::mem::replace(&mut self.end_told, true), "the end is told twice");
                assert_eq!(self.tunnel.ended(), Some(why));
            }
            _ => {}
        }
        Some(event)
    }

    fn is_closed(&self, id: StreamId) -> bool {
        self.misled || self.waits.get(&id).is_some_and(|waits| waits.closed)
    }

    // Streams.

    pub(crate) fn write(&mut self, now: Instant, id: StreamId, bytes: &[u8]) -> Result<usize, StreamFailure> {
        let taken = self.tunnel.write(now, id, bytes);
        if let Ok(taken) = taken {
            assert!(taken <= bytes.len());
            if taken == 0 && !bytes.is_empty() {
                self.waits.entry(id).or_default().write.away();
            }
        }
        self.check();
        taken
    }

    pub(crate) fn read(&mut self, now: Instant, id: StreamId, buf: &mut [u8]) -> Result<Option<usize>, StreamFailure> {
        let read = self.tunnel.read(now, id, buf);
        match read {
            Ok(None) => self.waits.entry(id).or_default().read.away(),
            // After an abort more may come up when somebody has read.
            Err(StreamFailure::Session(_)) => {
                let turned = &mut self.waits.entry(id).or_default().read;
                turned.away();
                turned.let_in();
            }
            Ok(Some(len)) => assert!(len <= buf.len()),
            Err(_) => {}
        }
        self.check();
        read
    }

    pub(crate) fn finish(&mut self, now: Instant, id: StreamId) -> Result<(), StreamFailure> {
        let first = !self.waits.get(&id).is_some_and(|waits| waits.closed);
        let outcome = self.tunnel.finish(now, id);
        if outcome.is_ok() && first {
            self.expect_delivery(id);
        }
        self.check();
        outcome
    }

    /// As [`Tunnel::close_stream`].
    pub(crate) fn close_stream(&mut self, now: Instant, id: StreamId) {
        self.expect_delivery(id);
        self.waits.entry(id).or_default().closed = true;
        self.with(|tunnel| tunnel.close_stream(now, id));
    }

    /// As [`Tunnel::close`], which finishes all streams.
    pub(crate) fn close(&mut self, now: Instant, streams: impl Iterator<Item = StreamId>) {
        streams.for_each(|id| self.expect_delivery(id));
        self.closing = true;
        self.with(|tunnel| tunnel.close(now));
    }

    fn expect_delivery(&mut self, id: StreamId) {
        self.waits.entry(id).or_default().delivered = true;
    }

    fn check(&mut self) {
        let ended = self.tunnel.ended();
        if self.ended.is_some() {
            assert_eq!(ended, self.ended.as_ref(), "a session that is over stays so, and for the same reason");
            assert_eq!(
                (self.tunnel.poll_timeout(), self.tunnel.current()),
                (None, None),
                "nothing goes on behind the end"
            );
        }
        self.ended = ended.cloned();
    }
}
