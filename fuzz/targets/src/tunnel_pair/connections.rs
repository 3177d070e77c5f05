//! The connections between the ends, as dialer, driver and listener see them; and the packets of others.

use kcp::wire::Command;
use kcp::{Segment, Sn, Ts};
use turbotunnel::control::{ByeReason, Control, MIN_KCP_PACKET};
use turbotunnel::tunnel::{Action, Tunnel, opening_conv};
use turbotunnel::{CarrierEnd, SessionId};

use super::ops::Noise;
use super::{CONV, Pair};
use crate::tunnel_end::End;
use crate::wires::{Arrival, Over, Plug, Wire};
use crate::{start, tell};

const TOKEN: [u8; 8] = [7; 8];
const ID: [u8; SessionId::LEN] = *b"a fuzzed";
/// Packets that somebody in between remembers.
const MOST_REMEMBERED: usize = 16;

impl Pair {
    pub(super) fn wire(&self, index: u8) -> Option<usize> {
        let open: Vec<usize> = (0..self.wires.len()).filter(|wire| self.wires[*wire].connected).collect();
        open.get(usize::from(index) % open.len().max(1)).copied()
    }

    pub(super) fn answer_dial(&mut self, connects: bool) -> bool {
        let now = self.now;
        let Some(wire) = self.wires.iter_mut().find(|wire| !wire.connected) else { return false };
        let carrier = wire.plugs[0].carrier.expect("a client knows its carriers");
        let end = self.ends[0].as_mut().expect("there always is a client");
        if connects {
            wire.connected = true;
            wire.pipes[1].write(&ID);
            end.with(|tunnel| tunnel.handle_dialed(now, carrier));
        } else {
            wire.plugs[0].gone = true;
            end.with(|tunnel| tunnel.handle_dial_failed(now, carrier));
        }
        self.wires.retain(|wire| !wire.is_over());
        true
    }

    /// What an end has to send goes onto its wires, as long as they take it. True if there was something.
    pub(super) fn send(&mut self, side: usize, packets: u32) -> bool {
        let Some(end) = &mut self.ends[side] else { return false };
        let mut left = packets;
        for wire in &mut self.wires {
            let Some(carrier) = wire.plugs[side].carrier else { continue };
            while left > 0 && wire.takes_packets(side) {
                let Some(packet) = end.poll_transmit(self.now, carrier) else { break };
                left -= 1;
                if self.mute && packet.len() < MIN_KCP_PACKET {
                    continue;
                }
                wire.send(side, &packet);
                if self.remembered.len() == MOST_REMEMBERED {
                    self.remembered.remove(0);
                }
                self.remembered.push(packet);
            }
        }
        left < packets
    }

    pub(super) fn act(&mut self, side: usize) -> bool {
        let mut busy = false;
        while let Some(end) = &mut self.ends[side]
            && let Some(action) = end.with(Tunnel::poll_action)
        {
            busy = true;
            tell(&(self.now - start(), side, &action));
            match action {
                Action::Dial(carrier) => {
                    assert_eq!(side, 0, "a server dialled");
                    self.wires.push(Wire::dialling(carrier));
                }
                Action::CloseWrite(carrier) => {
                    let now = self.now;
                    for wire in self.wires.iter_mut().filter(|wire| wire.plugs[side].carrier == Some(carrier)) {
                        // The last word of a session.
                        while wire.takes_packets(side)
                            && let Some(packet) = end.poll_transmit(now, carrier)
                        {
                            if !self.mute || packet.len() >= MIN_KCP_PACKET {
                                wire.send(side, &packet);
                            }
                        }
                        wire.close_write(side);
                    }
                }
                Action::Drop(carrier) => {
                    let dropped = self.wires.iter_mut().filter(|wire| wire.plugs[side].carrier == Some(carrier));
                    dropped.for_each(|wire| wire.drop_at(side));
                }
                other => panic!("nobody knows what {other:?} means"),
            }
        }
        self.wires.retain(|wire| !wire.is_over());
        busy
    }

    /// True if something arrived.
    pub(super) fn deliver(&mut self, at: usize, to: usize, bytes: usize) -> bool {
        let wire = &mut self.wires[at];
        if wire.stalled || !wire.connected || wire.plugs[to].gone {
            return false;
        }
        match wire.pipes[to].take(bytes) {
            None => return false,
            Some(Arrival::Bytes(bytes)) if wire.plugs[to].carrier.is_none() => self.introduce(at, &bytes),
            Some(Arrival::Bytes(bytes)) => self.hand_over(at, to, &bytes),
            Some(Arrival::Over(over)) => self.handle_over(at, to, over),
        }
        true
    }

    pub(super) fn hand_over(&mut self, at: usize, to: usize, bytes: &[u8]) {
        let plug = &mut self.wires[at].plugs[to];
        let (batch, carrier) = (plug.packets(bytes), plug.carrier.expect("it belongs to the session"));
        let end = self.ends[to].as_mut().expect("there is a session");
        for packet in batch.packets() {
            // Whoever does not know the session is not its peer, SETTINGS has nothing to know the peer by (the HELLO before it has), and a carrier may
            // have been given up that is still there.
            let of_peer = !matches!(Control::decode(packet), Some(Control::Unknown { .. } | Control::Settings(_)));
            let dropped = end.tunnel().stats().packets_dropped;
            end.handle_packet(self.now, carrier, packet);
            if of_peer && end.tunnel().stats().packets_dropped == dropped {
                self.last_heard[to] = self.now;
            }
        }
    }

    pub(super) fn handle_over(&mut self, at: usize, to: usize, over: Over) {
        let wire = &mut self.wires[at];
        wire.plugs[to].read_ended = true;
        let carrier = wire.plugs[to].carrier;
        match over {
            // The peer closed first: close in order, too.
            Over::Fin => wire.close_write(to),
            Over::Reset => wire.drop_at(to),
        }
        if let (Some(carrier), Some(end)) = (carrier, &mut self.ends[to]) {
            let now = self.now;
            end.with(|tunnel| tunnel.handle_ended(now, carrier, CarrierEnd::from(over)));
        }
    }

    /// A connection that the server cannot place yet: as its listener does.
    pub(super) fn introduce(&mut self, at: usize, bytes: &[u8]) {
        let (now, sn) = (self.now, self.config.counters.sn);
        let received = &mut self.wires[at].plugs[1].partial;
        received.extend_from_slice(bytes);
        let Some((id, packets)) = received.split_first_chunk::<{ SessionId::LEN }>() else { return };
        assert_eq!(*id, ID, "the id is the first thing on a connection");
        let packets = packets.to_vec();
        if self.ends[1].is_none() {
            let mut plug = Plug::default();
            let batch = plug.packets(&packets);
            let Some(conv) = batch.packets().find_map(|packet| opening_conv(packet, sn)) else { return };
            assert!(self.forged || conv == CONV);
            self.ends[1] = Some(End::new(Tunnel::server(now, self.config.clone(), CONV, TOKEN)));
            self.last_heard[1] = now;
        }
        let ended = self.end(1).tunnel();
        if ended.ended().is_some() {
            let Some(embryo) = ended.embryo() else { return self.answer_unknown(at, &packets) };
            // It goes on, for whoever knows its conv. Its application knew of no stream.
            let mut plug = Plug::default();
            let conv = |packet| Control::decode(packet).map(|control| control.conv()).or_else(|| kcp::conv_of(packet));
            if !plug.packets(&packets).packets().any(|packet| conv(packet) == Some(embryo.conv())) {
                return;
            }
            self.wires.iter_mut().filter(|wire| wire.plugs[1].carrier.is_some()).for_each(|wire| wire.drop_at(1));
            self.ends[1] = Some(End::new(Tunnel::reborn(now, self.config.clone(), embryo)));
            (self.last_heard[1], self.closed[1]) = (now, false);
        }
        let end = self.end(1);
        let carrier = end.with(|tunnel| tunnel.attach(now));
        let plug = &mut self.wires[at].plugs[1];
        plug.carrier = Some(carrier);
        plug.partial.clear();
        self.hand_over(at, 1, &packets);
    }

    /// The session is over: whoever has heard of it is told.
    pub(super) fn answer_unknown(&mut self, at: usize, packets: &[u8]) {
        let wire = &mut self.wires[at];
        let mut plug = Plug::default();
        for packet in plug.packets(packets).packets() {
            if let Some(Control::Hello(hello)) = Control::decode(packet).filter(|_| !self.mute)
                && hello.heard
            {
                let mut unknown = Vec::new();
                Control::Unknown { conv: hello.conv }.encode(&mut unknown);
                wire.send(1, &unknown);
            }
        }
        // What was answered is not answered again.
        let partial = [&ID[..], &plug.partial].concat();
        wire.plugs[1].partial = partial;
    }

    // Packets of others.

    pub(super) fn noise(&mut self, to: usize, wire: u8, noise: &Noise<'_>) {
        let mut packet = Vec::new();
        match noise {
            Noise::Bytes(bytes) => packet.extend_from_slice(bytes),
            Noise::OtherConv(which) => {
                let Some(known) = self.remembered.get(usize::from(*which) % MOST_REMEMBERED) else { return };
                packet.clone_from(known);
                let conv_at = match packet.len() {
                    MIN_KCP_PACKET.. => 0,
                    // HELLO has two bytes before it.
                    23 => 3,
                    _ => 1,
                };
                packet[conv_at] ^= 0x80;
            }
            Noise::WrongToken(token) => {
                let reason = ByeReason::Shutdown;
                Control::Bye { conv: CONV, token: *token, reason, una: Sn::new(self.config.counters.sn) }
                    .encode(&mut packet);
            }
            Noise::WrongUna(far) => {
                let (sn, una) = (Sn::new(self.config.counters.sn), 1 << 29 | u32::from(*far));
                let cmd = [Command::Push, Command::Ack, Command::Wask, Command::Wins][usize::from(far & 3)];
                let payload: &[u8] = if cmd == Command::Push { b"never said" } else { b"" };
                let una = sn.plus(una);
                Segment { conv: CONV, cmd, frg: 0, wnd: 9, ts: Ts::default(), sn, una, payload }.encode(&mut packet);
            }
        }
        let control = Control::decode(&packet);
        let bye = matches!(control, Some(Control::Bye { token, .. }) if token != TOKEN);
        let ours = control.is_some_and(|control| control.conv() == CONV && !bye);
        let parses = kcp::segments(&packet).is_ok() && kcp::conv_of(&packet) == Some(CONV);
        if ours || (parses && !matches!(noise, Noise::WrongUna(_))) {
            return;
        }
        let Some(wire) = self.wire(wire) else { return };
        let now = self.now;
        if let (Some(carrier), Some(end)) = (self.wires[wire].plugs[to].carrier, &mut self.ends[to]) {
            end.handle_noise(now, carrier, &packet);
        }
    }

    pub(super) fn forge(&mut self, to: usize, wire: u8, which: u8, at: u8, change: u8) {
        let Some(known) = self.remembered.get(usize::from(which) % MOST_REMEMBERED) else { return };
        let mut packet = known.clone();
        let at = usize::from(at) % packet.len();
        packet[at] ^= change;
        let Some(wire) = self.wire(wire) else { return };
        let now = self.now;
        if let (Some(carrier), Some(end)) = (self.wires[wire].plugs[to].carrier, &mut self.ends[to]) {
            self.forged = true;
            end.expect_anything();
            end.handle_packet(now, carrier, &packet);
        }
    }
}
