//! The mistakes.

use crate::{Fault, Test};

const fn of(package: &'static str, target: &'static str, name: &'static str) -> Test {
    Test { package, target, name }
}

const fn kcp(name: &'static str) -> Test {
    of("turbotunnel-kcp", "stories", name)
}

const fn smux(name: &'static str) -> Test {
    of("turbotunnel-smux", "stories", name)
}

const fn refusal(name: &'static str) -> Test {
    of("turbotunnel-smux", "refusals", name)
}

const fn rule(name: &'static str) -> Test {
    of("turbotunnel-sim", "rules", name)
}

const fn tokio_half(target: &'static str, name: &'static str) -> Test {
    of("turbotunnel", target, name)
}

const fn unit(name: &'static str) -> Test {
    of("turbotunnel", "lib", name)
}

const fn program(target: &'static str, name: &'static str) -> Test {
    of("turbotunnel-cli", target, name)
}

const SEND: &str = "crates/kcp/src/send.rs";
const ACKS: &str = "crates/kcp/src/send/acks.rs";
const RECV: &str = "crates/kcp/src/recv.rs";
const KCP: &str = "crates/kcp/src/engine.rs";
const POOL: &str = "crates/kcp/src/pool.rs";
const SN: &str = "crates/kcp/src/sn.rs";
const STREAM: &str = "crates/smux/src/stream.rs";
const INPUT: &str = "crates/smux/src/input.rs";
const OUTPUT: &str = "crates/smux/src/output.rs";
const MUX: &str = "crates/smux/src/mux.rs";
const ENGINE: &str = "crates/turbotunnel/src/engine.rs";
const TUNNEL: &str = "crates/turbotunnel/src/tunnel.rs";
const TUNNEL_END: &str = "crates/turbotunnel/src/tunnel/end.rs";
const BOUNDS: &str = "crates/turbotunnel/src/tunnel/bounds.rs";
const FLIGHT: &str = "crates/kcp/src/flight.rs";
const BUDGET: &str = "crates/turbotunnel/src/budget.rs";
const PATH: &str = "crates/turbotunnel/src/path.rs";
const BACKOFF: &str = "crates/turbotunnel/src/backoff.rs";
const LISTENER: &str = "crates/turbotunnel/src/listener.rs";
const RECEPTION: &str = "crates/turbotunnel/src/listener/reception.rs";
const GATE: &str = "crates/turbotunnel/src/listener/gate.rs";
const HANDSHAKE: &str = "crates/turbotunnel/src/secure/handshake.rs";
const RECORD: &str = "crates/turbotunnel/src/secure/record.rs";
const LIFETIME: &str = "crates/turbotunnel/src/lifetime.rs";
const PRIMITIVES: &str = "crates/turbotunnel/src/secure/primitives.rs";
const ADMISSION: &str = "crates/turbotunnel/src/listener/admission.rs";
const SHARED: &str = "crates/turbotunnel/src/shared.rs";
const DRIVER: &str = "crates/turbotunnel/src/driver.rs";
const CARRIER: &str = "crates/turbotunnel/src/carrier/stream.rs";
const QUEUE: &str = "crates/turbotunnel/src/carrier/queue.rs";
const ENCAPSULATION: &str = "crates/turbotunnel/src/encapsulation.rs";
const SESSION_MAP: &str = "crates/turbotunnel/src/session_map.rs";
const STREAM_HANDLE: &str = "crates/turbotunnel/src/stream.rs";
const ECHO_CLIENT: &str = "crates/turbotunnel-cli/src/commands/echo_client.rs";

/// All of them.
pub const FAULTS: &[Fault] = &[
    // KCP, sending.
    Fault {
        name: "skip the resend on rebirth",
        file: SEND,
        right: "if self.slots[index].state != State::Acknowledged {\n                self.mark_lost(self.at(index), Cause::Resume);",
        wrong: "if self.slots[index].state == State::Acknowledged {\n                self.mark_lost(self.at(index), Cause::Resume);",
        test: kcp("carriers::a_reborn_carrier_carries_everything_again_at_once_however_long_it_was_away"),
    },
    Fault {
        name: "resend from a stale una",
        file: TUNNEL,
        right: "PeerKind::Ours if self.path.is_client() => Resume::AfterUna,",
        wrong: "PeerKind::Ours if self.path.is_client() => Resume::Now,",
        test: rule("carriers::una_is_learned_before_anything_is_resent"),
    },
    Fault {
        name: "send before una is learned",
        file: KCP,
        right: "self.learning = in_flight && how != Resume::Now;",
        wrong: "self.learning = in_flight && how == Resume::AfterFirst;",
        test: kcp("carriers::learning_comes_before_sending_again"),
    },
    Fault {
        name: "accept a una beyond nxt",
        file: ACKS,
        right: "una.distance_from(self.nxt()) <= 0",
        wrong: "una.distance_from(self.nxt()) <= 1",
        test: kcp("receiving::an_impossible_una_or_ack_has_no_effect_but_its_neighbours_do"),
    },
    Fault {
        name: "take an edge back",
        file: ACKS,
        right: "if !self.edge_announced || moved {",
        wrong: "if !self.edge_announced || edge != self.edge {",
        test: kcp("windows::an_announced_edge_is_not_taken_back"),
    },
    Fault {
        name: "send one segment beyond the window",
        file: SEND,
        right: "let window = self.send_window.min(self.peer_window()).saturating_sub(self.slots.len());",
        wrong: "let window = (self.send_window.min(self.peer_window()) + 1).saturating_sub(self.slots.len());",
        test: of(
            "turbotunnel-kcp",
            "lib",
            "engine::tests::a_smaller_window_is_announced_and_the_larger_one_still_accepted",
        ),
    },
    Fault {
        name: "double timeouts without a cap",
        file: SEND,
        right: "base.saturating_mul(self.backoff.saturating_add(1)).min(self.max_backoff.max(base))",
        wrong: "base.saturating_mul(1 << self.backoff.min(20))",
        test: kcp("sending::timeouts_grow_linearly_to_a_cap_and_start_anew_with_progress"),
    },
    Fault {
        name: "resend by timeout between peers of ours",
        file: ENGINE,
        right: "self.kcp.set_retransmission(Retransmission::TailProbe);",
        wrong: "self.kcp.set_retransmission(Retransmission::Timeout);",
        test: rule("resending::no_packet_is_resent_while_the_carrier_lives"),
    },
    Fault {
        name: "no tail probe",
        file: SEND,
        right: "self.mark_lost(sn, Cause::Probe);\n            self.trim_log();",
        wrong: "self.trim_log();",
        test: rule("resending::the_tail_probe_repeats_what_a_receiver_had_to_drop"),
    },
    Fault {
        name: "keep the probe back while the flight is full",
        file: SEND,
        right: "if self.probe_goes && self.lost > 0 {",
        wrong: "if false {",
        test: kcp("sending::a_full_flight_does_not_hold_back_the_probe"),
    },
    Fault {
        name: "take any ack for the last transmission",
        file: ACKS,
        right: "if passed.exact && passed.ts == ts {",
        wrong: "if passed.exact {",
        test: kcp("sending::the_ts_of_an_ack_tells_which_transmission_arrived"),
    },
    Fault {
        name: "never ask for a closed window",
        file: SEND,
        right: "due.ask_window = true;\n            self.probe.wait",
        wrong: "self.probe.wait",
        test: kcp("windows::a_lost_window_update_costs_one_question"),
    },
    Fault {
        name: "numbers compared as they are",
        file: SN,
        right: "self.0.wrapping_sub(base.0).cast_signed()",
        wrong: "if self.0 >= base.0 { self.0.wrapping_sub(base.0).cast_signed().saturating_abs() } else { -1 }",
        test: kcp("numbers_and_clocks_go_round"),
    },
    Fault {
        name: "a timer runs without a carrier",
        file: KCP,
        right: "        if self.suspended {\n            return None;\n        }\n        self.sender.deadline",
        wrong: "        self.sender.deadline",
        test: kcp("carriers::a_reborn_carrier_carries_everything_again_at_once_however_long_it_was_away"),
    },
    // KCP, receiving.
    Fault {
        name: "acknowledge an empty push",
        file: RECV,
        right: "        if payload.is_empty() {",
        wrong: "        if payload.is_empty() && sn.offset_from(self.rcv_nxt).is_none() {",
        test: kcp("receiving::an_empty_push_is_never_acknowledged"),
    },
    Fault {
        name: "forget to acknowledge duplicates again",
        file: RECV,
        right: "            stats.duplicates += 1;\n            self.cumulative_ack = Some((sn, ts));",
        wrong: "            stats.duplicates += 1;\n            let _ = ts;",
        test: rule("receiving::an_old_duplicate_is_acknowledged_again"),
    },
    Fault {
        name: "accept one segment beyond the window",
        file: RECV,
        right: "is_some_and(|offset| offset >= self.window)",
        wrong: "is_some_and(|offset| offset > self.window)",
        test: kcp("receiving::what_lies_beyond_the_window_is_dropped_without_ack"),
    },
    Fault {
        name: "no limit on the bytes of segments",
        file: RECV,
        right: "self.held >= 2 * self.most_room * LARGEST_USUAL &&",
        wrong: "self.held >= usize::MAX &&",
        test: kcp("receiving::a_peer_that_ignores_the_window_and_sends_giants_is_held_to_a_budget"),
    },
    Fault {
        name: "no word when the window opens again",
        file: RECV,
        right: "if self.wnd() == 0 {\n            return false;",
        wrong: "if self.wnd() > 0 {\n            return false;",
        test: kcp("windows::a_reader_that_stops_closes_the_window_and_opens_it_again"),
    },
    Fault {
        name: "half a packet takes effect",
        file: "crates/kcp/src/wire.rs",
        right: "while let Some((_, behind)) = split_segment(conv, rest)? {",
        wrong: "while let Ok(Some((_, behind))) = split_segment(conv, rest) {",
        test: kcp("receiving::a_packet_that_does_not_parse_changes_nothing"),
    },
    // smux.
    Fault {
        name: "fin before the last data",
        file: OUTPUT,
        right: "        if stream.send.is_empty() {\n            return self.put_fin(",
        wrong: "        if stream.send.is_empty() || stream.fin != Fin::Open {\n            return self.put_fin(",
        test: smux("fin_waits_behind_its_data"),
    },
    Fault {
        name: "no update at the first read",
        file: STREAM,
        right: "let tell = first || grown ||",
        wrong: "let tell = grown || first && grown ||",
        test: smux("the_first_read_is_told_then_each_sixteenth"),
    },
    Fault {
        name: "lose an update at a wrap",
        file: STREAM,
        right: "if further > 0 {",
        wrong: "if edge > self.edge && further > 0 {",
        test: smux("counters_wrap"),
    },
    Fault {
        name: "enforce no window",
        file: STREAM,
        right: "        if length > room {",
        wrong: "        if length > room.saturating_add(65_535) {",
        test: smux("more_than_the_window_ends_the_session"),
    },
    Fault {
        name: "believe any update",
        file: STREAM,
        right: "if progress > in_flight || upd.window > LARGEST_WINDOW {",
        wrong: "if upd.window > LARGEST_WINDOW && progress > in_flight {",
        test: smux("updates_that_cannot_be_true_are_ignored"),
    },
    Fault {
        name: "the peer's fin ends our writing",
        file: INPUT,
        right: "            stream.peer_fin = true;\n",
        wrong: "            stream.peer_fin = true;\n            stream.peer_closed = true;\n",
        test: smux("each_side_finishes_in_its_own_time"),
    },
    Fault {
        name: "only one fin from who closes altogether",
        file: STREAM,
        right: "Fin::Sent => self.let_go && !self.peer_fin,",
        wrong: "Fin::Sent => false,",
        test: smux("close_tells_the_writer_at_the_other_end"),
    },
    Fault {
        name: "a bulk stream keeps its turn",
        file: OUTPUT,
        right: "self.turns.push_back(key);\n        }\n    }",
        wrong: "self.turns.push_front(key);\n        }\n    }",
        test: smux("streams_take_turns"),
    },
    Fault {
        name: "no limit on streams",
        file: INPUT,
        right: "let full = self.table.len() >= self.config.max_streams ||",
        wrong: "let full = self.table.len() >= usize::MAX ||",
        test: smux("the_table_and_the_backlog_have_an_end"),
    },
    Fault {
        name: "count payload instead of allocation",
        file: MUX,
        right: "self.recv_allocated < self.recv_limit()",
        wrong: "self.recv_allocated / 16 < self.recv_limit()",
        test: smux("a_stalled_reader_stops_the_others_only_at_the_sessions_limit"),
    },
    Fault {
        name: "ids begin again after the last one",
        file: MUX,
        right: "self.next_id = id.checked_add(2);",
        wrong: "self.next_id = Some(id.wrapping_add(2));",
        test: smux("ids_run_out_for_good"),
    },
    Fault {
        name: "a held fin goes without an answer",
        file: MUX,
        right: "                self.doubtful.push(key);",
        wrong: "                self.release_fin(key);",
        test: smux("a_held_fin_goes_when_the_stream_is_quiet"),
    },
    Fault {
        name: "a fin is not held back towards go",
        file: ENGINE,
        right: "(self.peer != PeerKind::Ours && !self.closing).then_some(quiet)",
        wrong: "(self.peer == PeerKind::Ours && !self.closing).then_some(quiet)",
        test: rule("go::a_fin_is_held_back_towards_a_go_peer"),
    },
    // Packets in a byte stream.
    Fault {
        name: "take a request that brings more than before for a copy",
        file: QUEUE,
        right: "usize::try_from(known).ok().and_then(|known| bytes.get(known..)).unwrap_or_default()",
        wrong: "if known == 0 { bytes } else { &[] }",
        test: tokio_half("queue", "late_copies_of_requests_change_nothing"),
    },
    Fault {
        name: "forget an answer once it was given",
        file: QUEUE,
        right: "Ok(Some(bytes[..bytes.len().min(max)].to_vec()))",
        wrong: "let bytes = bytes[..bytes.len().min(max)].to_vec();
            from_session.io.consume(bytes.len());
            from_session.start += bytes.len() as u64;
            Ok(Some(bytes))",
        test: tokio_half("queue", "an_answer_that_was_lost_is_given_again"),
    },
    Fault {
        name: "take a long poll for nobody",
        file: QUEUE,
        right: "if state.calls > 0 { Duration::ZERO } else { state.quiet_since.elapsed() }",
        wrong: "state.quiet_since.elapsed()",
        test: tokio_half("queue", "a_carrier_that_nobody_polls_is_over_after_its_idle_time"),
    },
    Fault {
        name: "leave those who wait for a carrier that is over",
        file: QUEUE,
        right: "state.wait_for(|state| state.broken.is_some())",
        wrong: "state.wait_for(|_| false)",
        test: tokio_half("queue", "a_position_that_cannot_be_ends_the_carrier"),
    },
    Fault {
        name: "keep half a packet across carriers",
        file: CARRIER,
        right: "Self { io: Box::pin(io), partial: Vec::new(), out: PacketBatch::new(), written: 0 }",
        wrong: "{
            thread_local! { static KEPT: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) }; }
            impl<T> Drop for StreamCarrier<T> {
                fn drop(&mut self) {
                    KEPT.set(std::mem::take(&mut self.partial));
                }
            }
            Self { io: Box::pin(io), partial: KEPT.take(), out: PacketBatch::new(), written: 0 }
        }",
        test: tokio_half("session", "a_stream_outlives_its_carriers"),
    },
    Fault {
        name: "write a packet again from its beginning",
        file: "crates/turbotunnel/src/carrier/mod.rs",
        right: "        *written += n;\n",
        wrong: "        *written = n;\n",
        test: tokio_half("lib", "carrier::stream::tests::the_session_id_goes_first_and_packets_follow_whole"),
    },
    Fault {
        name: "a split inside the length is lost",
        file: ENCAPSULATION,
        right: "        partial.extend_from_slice(&self.bytes[whole..]);",
        wrong: "        if self.bytes.len() - whole >= HEADER_LEN {\n            partial.extend_from_slice(&self.bytes[whole..]);\n        }",
        test: of("turbotunnel", "lib", "encapsulation::tests::any_split_gives_the_same_packets"),
    },
    // Which carrier, and when.
    Fault {
        name: "send on the fenced carrier",
        file: TUNNEL,
        right: "if self.ended.is_some() || self.path.current() != Some(id) ||",
        wrong: "if self.ended.is_some() || !self.path.listens_to(id) ||",
        test: rule("carriers::exactly_one_carrier_sends"),
    },
    Fault {
        name: "acknowledgements wait for a timer however many",
        file: TUNNEL,
        right: "if waiting.is_none_or(|count| count >= ACKS_AT_ONCE) {",
        wrong: "if waiting.is_none() {",
        test: tokio_half("faults", "a_transfer_one_way_does_not_wait_for_a_timer"),
    },
    Fault {
        name: "each message that comes puts the acknowledgement off again",
        file: TUNNEL,
        right: "let by = *self.acks_by.get_or_insert(now + ACK_DELAY);",
        wrong: "let by = *self.acks_by.insert(now + ACK_DELAY);",
        test: tokio_half("faults", "an_answer_carries_the_acknowledgement"),
    },
    Fault {
        name: "count a flight's rounds in numbers",
        file: SEND,
        right: "self.flight = self.flight.resumed(now, self.next_order());",
        wrong: "self.flight = self.flight.resumed(now, self.next_order() + self.numbered as u64);",
        test: rule("carriers::a_cut_every_second_leaves_two_thirds_of_the_rate"),
    },
    Fault {
        name: "drop the old carrier unread",
        file: PATH,
        right: "self.actions.push_back(Action::CloseWrite(old));",
        wrong: "self.actions.push_back(Action::Drop(old));",
        test: rule("carriers::a_replaced_carrier_is_read_to_its_end"),
    },
    Fault {
        name: "leak a replaced carrier",
        file: PATH,
        right: "old.deadline = Some(now + if client { READ_OUT_CLIENT } else { READ_OUT_SERVER });",
        wrong: "old.deadline = if client { Some(now + READ_OUT_CLIENT + READ_OUT_SERVER * 1000) } else { None };",
        test: rule("silence::a_replaced_carrier_that_does_not_end_is_dropped"),
    },
    Fault {
        name: "an old carrier number takes over",
        file: PATH,
        right: "newest.is_none_or(|newest| number.wrapping_sub(newest).cast_signed() > 0)",
        wrong: "newest.is_none_or(|newest| number != newest)",
        test: rule("carriers::a_hello_that_comes_late_does_not_take_over"),
    },
    Fault {
        name: "a connection alone forgets the backoff",
        file: PATH,
        right: "            self.take_over(now, id);\n        }\n    }\n\n    /// Client: the dial failed.",
        wrong: "            self.take_over(now, id);\n            self.backoff.progress();\n        }\n    }\n\n    /// Client: the dial failed.",
        test: rule("dialling::backoff_is_forgotten_only_by_progress"),
    },
    Fault {
        name: "no pause between dials",
        file: BACKOFF,
        right: "self.without_progress = dials.saturating_add(1);",
        wrong: "self.without_progress = dials;",
        test: rule(
            "dialling::accept_and_close_is_dialled_at_most_ten_times_in_the_first_second_and_once_a_second_after_ten",
        ),
    },
    Fault {
        name: "progress on each connection buys any number of dials",
        file: BACKOFF,
        right: "self.pause().max(apart)",
        wrong: "self.pause().max(apart.min(Duration::ZERO))",
        test: tokio_half(
            "lib",
            "backoff::tests::progress_on_each_connection_buys_a_hundred_dials_a_second_and_no_more",
        ),
    },
    Fault {
        name: "forget to expire",
        file: PATH,
        right: "if now >= self.last_contact + self.time_to_live {",
        wrong: "if now >= self.last_contact + self.time_to_live * 100 {",
        test: rule("dialling::time_to_live_ends_the_session"),
    },
    Fault {
        name: "a silent carrier is not replaced",
        file: PATH,
        right: "Verdict::Dead if !self.is_dialing() => self.schedule_dial(now),",
        wrong: "Verdict::Dead if !self.is_dialing() => {}",
        test: rule("silence::silence_is_noticed_within_four_seconds"),
    },
    Fault {
        name: "any packet is an answer",
        file: TUNNEL,
        right: "                if received.answer {",
        wrong: "                if received.answer || !received.progress() || received.data {",
        test: rule("silence::silence_of_a_go_server_is_noticed_within_eight_seconds"),
    },
    Fault {
        name: "only one dial at a time",
        file: PATH,
        right: "self.next_dial = Some(now + DIAL_BESIDE);",
        wrong: "self.next_dial = None;",
        test: rule("dialling::a_black_hole_for_a_minute_costs_the_minute_plus_at_most_five_seconds"),
    },
    Fault {
        name: "believe one stray carrier",
        file: PATH,
        right: "if count >= REJECTIONS && now - first >= REJECTED_FOR {",
        wrong: "if count >= 1 || now - first >= REJECTED_FOR {",
        test: rule("amnesia::one_dial_gone_astray_ends_nothing"),
    },
    Fault {
        name: "deliver what a ghost says",
        file: TUNNEL,
        right: "una.zip(self.path.floor(id)).is_some_and(|(una, floor)| una.distance_from(floor) < 0)",
        wrong: "una.zip(self.path.floor(id)).is_some_and(|(una, floor)| una.distance_from(floor) < -100_000)",
        test: rule("amnesia::the_ghost_of_a_go_server_is_recognised_and_nothing_of_it_is_delivered"),
    },
    // What ends a session.
    Fault {
        name: "a bye needs no token",
        file: TUNNEL,
        right: "if self.token != Some(token) || self.is_forgotten(now, id, Some(una)) {",
        wrong: "if self.is_forgotten(now, id, Some(una)) {",
        test: rule("control::a_bye_without_the_token_does_nothing"),
    },
    Fault {
        name: "a goodbye acknowledges nothing",
        file: TUNNEL,
        right: "                self.learn(now, id, una);\n                self.end(",
        wrong: "                self.end(",
        test: rule("ending::a_bye_acknowledges_what_came_before_it"),
    },
    Fault {
        name: "a hello needs no token",
        file: TUNNEL,
        right: "if self.token_confirmed && !knows_token {",
        wrong: "if self.token_confirmed && !knows_token && hello.carrier == 0 {",
        test: rule("control::a_hello_without_the_token_does_nothing"),
    },
    Fault {
        name: "tell the token for ever",
        file: TUNNEL,
        right: "if self.path.is_client() || !self.token_confirmed { self.token } else { None }",
        wrong: "self.token",
        test: rule("control::the_token_is_told_once"),
    },
    Fault {
        name: "delivered when sent",
        file: ENGINE,
        right: "if self.kcp.una().distance_from(sn) <= 0 {",
        wrong: "if self.kcp.nxt().distance_from(sn) <= 0 {",
        test: rule("ending::delivered_means_acknowledged"),
    },
    Fault {
        name: "close does not wait",
        file: TUNNEL_END,
        right: "self.engine.mux().is_quiet() && self.engine.kcp().una().distance_from(closing.end) >= 0",
        wrong: "self.engine.mux().is_quiet() || self.engine.kcp().una().distance_from(closing.end) >= 0",
        test: rule("ending::close_waits_until_the_peer_has_everything"),
    },
    Fault {
        name: "the last word is not noticed",
        file: TUNNEL,
        right: "        // It may have been the last word.\n        self.advance(now);\n",
        wrong: "        self.update_owed(now);\n        self.note_closing(now);\n",
        test: tokio_half("ends", "a_close_does_not_wait_for_an_answer_to_its_last_word"),
    },
    Fault {
        name: "bytes that wait for a full carrier are owed nothing",
        file: TUNNEL,
        right: "let taken = self.engine.write(id, bytes)?;\n        self.advance(now);\n",
        wrong: "let taken = self.engine.write(id, bytes)?;\n        let _ = now;\n",
        test: tokio_half("faults", "what_comes_up_while_the_carrier_is_full_is_owed_an_answer"),
    },
    Fault {
        name: "any first segment opens a session",
        file: TUNNEL,
        right: "segment.sn.value() == first_sn &&",
        wrong: "(segment.sn.value() == first_sn || segment.sn.value() < 1_000) &&",
        test: rule("amnesia::only_the_first_segment_opens_a_session"),
    },
    // The tokio half.
    Fault {
        name: "an ended session is forgotten at once",
        file: SESSION_MAP,
        right: "            shard.ended.insert(name, Ended { end, embryo });",
        wrong: "            let _ = Ended { end, embryo };",
        test: tokio_half("listener", "a_late_first_segment_of_an_ended_session_begins_no_ghost"),
    },
    Fault {
        name: "close whoever is refused",
        file: RECEPTION,
        right: "                // It comes again.\n                early.clear(0);",
        wrong: "                if true { return Ok(None) }",
        test: tokio_half("listener", "a_client_of_a_forgotten_session_is_held_however_much_it_sends"),
    },
    Fault {
        name: "strangers without a limit keep others out",
        file: ADMISSION,
        right: "            self.strangers.keys().next().copied()\n",
        wrong: "            self.strangers.keys().next_back().copied()\n",
        test: unit("listener::admission::tests::the_oldest_stranger_makes_room_for_the_newest"),
    },
    Fault {
        name: "one source takes everybody's new sessions",
        file: ADMISSION,
        right: "if of_source == Some(None) {",
        wrong: "if false && of_source == Some(None) {",
        test: unit("listener::admission::tests::new_sessions_have_a_rate_and_a_source_does_not_eat_the_others_share"),
    },
    Fault {
        name: "forget no source",
        file: ADMISSION,
        right: "n.strangers + n.carriers > 0 || n.new_sessions.full_at > now",
        wrong: "n.strangers + n.carriers > 0 || n.new_sessions.full_at <= now",
        test: unit("listener::admission::tests::sources_are_forgotten"),
    },
    Fault {
        name: "a carrier that ends leaves its place taken",
        file: ADMISSION,
        right: "                neighbours.carriers -= 1;",
        wrong: "                neighbours.carriers -= 0;",
        test: unit("listener::admission::tests::carriers_have_a_number_in_all_and_by_source"),
    },
    Fault {
        name: "ask for a refused session only when its client does",
        file: RECEPTION,
        right: "                Some(_) => match tokio::time::timeout(ASK_AGAIN, more).await {",
        wrong: "                Some(_) => match tokio::time::timeout(100 * ASK_AGAIN, more).await {",
        test: tokio_half("limits", "a_flood_of_sessions_leaves_nothing_behind"),
    },
    Fault {
        name: "connections of one session pile up",
        file: SHARED,
        right: "if state.newcomers.len() >= NEWCOMERS {",
        wrong: "if state.newcomers.len() >= 1000 * NEWCOMERS {",
        test: unit("shared::tests::connections_that_the_driver_has_not_taken_yet_are_four"),
    },
    Fault {
        name: "keep for its time to live what was begun and left",
        file: BOUNDS,
        right: "        Some(left + EMBRYONIC_LIMIT)",
        wrong: "        Some(left + 20 * EMBRYONIC_LIMIT)",
        test: rule("limits::a_session_that_is_begun_and_left_ends_after_ten_seconds"),
    },
    Fault {
        name: "take whoever has answered for somebody who left",
        file: BOUNDS,
        right: "            && !self.token_confirmed\n            && smux",
        wrong: "            && smux",
        test: rule("limits::an_idle_client_without_a_stream_is_not_taken_for_one_that_left"),
    },
    Fault {
        name: "forget that the opening of an abandoned session was taken",
        file: BOUNDS,
        right: "        if embryo.opened {",
        wrong: "        if false && embryo.opened {",
        test: rule("limits::an_honest_client_goes_on_with_a_session_that_was_taken_for_abandoned"),
    },
    Fault {
        name: "a stream that is not taken looks like one that ended",
        file: ENGINE,
        right: "                self.mux.tell_refusals();",
        wrong: "",
        test: rule("limits::a_stream_that_is_not_taken_fails_at_its_opener"),
    },
    Fault {
        name: "tear a refusal",
        file: OUTPUT,
        right: "if room < HEADER_LEN + if told { HEADER_LEN + UPD_LEN } else { 0 } {",
        wrong: "if room < HEADER_LEN {",
        test: refusal("a_refusal_waits_for_room"),
    },
    Fault {
        name: "a stream that is given up looks finished",
        file: MUX,
        right: "        if tells && unfinished {",
        wrong: "        if false && tells && unfinished {",
        test: refusal("a_stream_that_is_reset_fails_once_what_came_has_been_read"),
    },
    Fault {
        name: "take back an end that was told",
        file: MUX,
        right: "matches!(stream.fin, Fin::Open | Fin::Wanted | Fin::Due)",
        wrong: "matches!(stream.fin, Fin::Open | Fin::Wanted | Fin::Due | Fin::Sent)",
        test: refusal("a_stream_that_is_reset_fails_once_what_came_has_been_read"),
    },
    Fault {
        name: "open streams faster than the peer takes them",
        file: TUNNEL,
        right: "const OPEN_RATE: u32 = 1_000;",
        wrong: "const OPEN_RATE: u32 = 2_000;",
        test: rule("limits::streams_are_opened_at_the_pace_that_the_peer_takes"),
    },
    Fault {
        name: "a client takes whatever streams a server opens",
        file: ENGINE,
        right: "const UNSOLICITED: usize = 16;",
        wrong: "const UNSOLICITED: usize = 1600;",
        test: rule("limits::a_client_that_expects_no_streams_takes_sixteen"),
    },
    Fault {
        name: "a full buffer is an exemption",
        file: BOUNDS,
        right: "        self.stalled += now.saturating",
        wrong: "        self.stalled = now.saturating",
        test: rule("limits::a_peer_that_acknowledges_nothing_ends_after_five_minutes"),
    },
    Fault {
        name: "both ends send keepalives",
        file: ENGINE,
        right: "if self.side == Side::Server && self.peer == PeerKind::Ours {",
        wrong: "if self.side == Side::Client && self.peer == PeerKind::Ours {",
        test: rule("idle::an_idle_session_wakes_for_keepalives_only"),
    },
    Fault {
        name: "a quiet engine keeps its buffers",
        file: POOL,
        right: "let keep = if self.is_quiet() { 0 } else",
        wrong: "let keep = if self.is_quiet() { 2 } else",
        test: kcp("facts::an_engine_knows_what_waits_and_what_it_holds"),
    },
    Fault {
        name: "keep idle memory for ever where the peer sends the keepalives",
        file: INPUT,
        right: "Command::Nop => self.trim(),",
        wrong: "Command::Nop => {}",
        test: of("turbotunnel-smux", "facts", "a_keepalive_of_the_peers_gives_idle_memory_back"),
    },
    Fault {
        name: "wake ten times a second",
        file: DRIVER,
        right: "if more || this.set_timer(cx, timeout) {",
        wrong: "let timeout = timeout.map(|at| at.min(now() + Duration::from_millis(100)));\n        if more || this.set_timer(cx, timeout) {",
        test: tokio_half("session", "idle_sessions_wake_up_for_keepalives_only"),
    },
    Fault {
        name: "shutdown does not wait",
        file: STREAM_HANDLE,
        right: "            if writing.delivered {\n",
        wrong: "            if writing.delivered || self.finishing {\n",
        test: tokio_half("session", "shutdown_completes_only_when_the_peer_has_acknowledged"),
    },
    Fault {
        name: "a writer is not woken",
        file: "crates/turbotunnel/src/shared.rs",
        right: "wakers.push(self.streams.get_mut(&id).and_then(|waiters| waiters.writing().writer.take()));",
        wrong: "wakers.push(self.streams.get_mut(&id).and_then(|waiters| waiters.reader.take()));",
        test: tokio_half("session", "a_writer_waits_for_a_reader_that_does_not_read"),
    },
    // Memory, and how much is on its way.
    Fault {
        name: "memory that was never earned",
        file: MUX,
        right: "let earned = if self.scarce { 0 } else {",
        wrong: "let earned = if !self.scarce { max } else {",
        test: rule("memory::a_session_of_which_nothing_is_read_holds_little"),
    },
    Fault {
        name: "what others have written does not count",
        file: MUX,
        right: "let taken = bytes.len().min(room).min(left.max(",
        wrong: "let taken = bytes.len().min(room).min(room.max(",
        test: smux("what_may_wait_to_be_sent_is_bounded_over_all_streams"),
    },
    Fault {
        name: "who came first keeps the room",
        file: MUX,
        right: "left.max(share.saturating_sub(stream.send.len()))",
        wrong: "left.max(usize::from(share == 0))",
        test: smux("who_writes_first_does_not_starve_the_others"),
    },
    Fault {
        name: "what found no room waits for the next packet",
        file: ENGINE,
        right: "self.update_recv_room();\n        self.pass_up(now)\n",
        wrong: "self.update_recv_room();\n        self.collect_events(now);\n        Ok(())\n",
        test: rule("memory::what_found_no_room_comes_when_memory_is_no_longer_scarce"),
    },
    Fault {
        name: "a session that ends gives nothing back",
        file: BUDGET,
        right: "self.change_to(0);\n    }\n}",
        wrong: "self.change_to(self.charged - SESSION);\n    }\n}",
        test: tokio_half("limits", "memory_has_a_limit_over_all_sessions"),
    },
    Fault {
        name: "who moves goes for want of memory",
        file: LISTENER,
        right: "stale.sort_by_key(|(moved_at, ..)| *moved_at);",
        wrong: "stale.sort_by_key(|(moved_at, ..)| std::cmp::Reverse(*moved_at));",
        test: tokio_half("limits", "memory_has_a_limit_over_all_sessions"),
    },
    Fault {
        name: "what is taken as it comes is not acknowledged",
        file: RECV,
        right: "stats.bytes_received += len as u64;\n        self.cumulative_ack = Some((sn, ts));",
        wrong: "stats.bytes_received += len as u64;\n        let _ = ts;",
        test: of("turbotunnel-kcp", "model", "pair::two_engines_keep_their_promises_on_any_path"),
    },
    Fault {
        name: "a carrier's slow start is slowed down",
        file: FLIGHT,
        right: "grown: (grown + news.bytes).min(MOST) };",
        wrong: "grown: (grown + news.bytes / 8).min(MOST) };",
        test: of("turbotunnel-kcp", "flight", "a_carrier_that_begins_slowly_is_not_slowed_down_more"),
    },
    Fault {
        name: "what was held up and comes at once is taken for bandwidth",
        file: FLIGHT,
        right: "per_second(self.delivered, elapsed.max(sending));",
        wrong: "per_second(self.delivered, elapsed.min(sending.max(elapsed)));",
        test: of("turbotunnel-kcp", "lib", "flight::tests::what_was_held_up_and_comes_at_once_was_not_sent_at_once"),
    },
    Fault {
        name: "each carrier begins as if nothing was known",
        file: FLIGHT,
        right: "let begin = (self.limit / RESUMED_SHARE).clamp(",
        wrong: "let begin = (self.limit / usize::MAX).clamp(",
        test: of("turbotunnel-kcp", "flight", "after_a_cut_a_carrier_gets_more_at_once_but_not_too_much"),
    },
    // The program.
    Fault {
        name: "exit 0 on loss",
        file: ECHO_CLIENT,
        right: "if !progress.stdin_ended.get() || received.get() < progress.sent.get() {",
        wrong: "if !progress.stdin_ended.get() {",
        test: program("echo", "a_server_that_sends_too_little_back_is_1_not_0"),
    },
    Fault {
        name: "exit 0 when stdout is closed",
        file: ECHO_CLIENT,
        right: "stdout.write_all(&buffer[..n]).await.map_err(Ended::Stdout)?;",
        wrong: "let _ = stdout.write_all(&buffer[..n]).await.map_err(Ended::Stdout);",
        test: program("echo", "a_closed_stdout_is_1_not_0_and_no_panic"),
    },
    // Keys.
    Fault {
        name: "the id is enough to attach to another client's session",
        file: GATE,
        right: "Name { id: session, owner: Some(client) }",
        wrong: "Name { id: session, owner: Some(client).filter(|_| false) }",
        test: tokio_half("secure_sessions", "the_id_of_a_session_is_worth_nothing_to_another_client"),
    },
    Fault {
        name: "close at once who says no valid first message",
        file: GATE,
        right: "return tokio::io::copy(&mut io, &mut tokio::io::sink()).await.map(drop);",
        wrong: "return Ok(());",
        test: tokio_half("secure_sessions", "strangers_hear_nothing_whatever_they_say_and_for_the_same_time"),
    },
    Fault {
        name: "look at the list of clients in the handshake only",
        file: LISTENER,
        right: "            self.server.expel_unadmitted(gate);",
        wrong: "            let _ = |server: &Server| server.expel_unadmitted(gate);",
        test: tokio_half("secure_sessions", "a_client_that_is_taken_off_the_list_loses_its_sessions_within_a_second"),
    },
    Fault {
        name: "believe in plain mode that one is not admitted",
        file: TUNNEL,
        right: "Control::NotAdmitted { .. } if self.path.is_client() && self.authenticated =>",
        wrong: "Control::NotAdmitted { .. } if self.path.is_client() =>",
        test: tokio_half("secure_sessions", "a_plain_session_does_not_believe_that_it_is_not_admitted_or_held"),
    },
    Fault {
        name: "believe in plain mode that one is held",
        file: TUNNEL,
        right: "Control::Held { limit, .. } if self.path.is_client() && self.authenticated =>",
        wrong: "Control::Held { limit, .. } if self.path.is_client() =>",
        test: tokio_half("secure_sessions", "a_plain_session_does_not_believe_that_it_is_not_admitted_or_held"),
    },
    Fault {
        name: "a carrier is never too old",
        file: LIFETIME,
        right: "if now < self.at && !newly_worn {",
        wrong: "if !newly_worn {",
        test: tokio_half("secure_sessions", "a_carrier_is_replaced_after_an_hour_before_it_breaks"),
    },
    Fault {
        name: "go on with the records behind one that did not open",
        file: RECORD,
        right: "                    self.failed = Some(error);",
        wrong: "                    self.opened.records = self.opened.records.saturating_sub(1);",
        test: tokio_half("secure", "records::left_out_repeated_moved_and_foreign_records_end_it"),
    },
    Fault {
        name: "one nonce for all records",
        file: RECORD,
        right: "        Ok(number)",
        wrong: "        Ok(number * 0)",
        test: tokio_half("secure", "records::left_out_repeated_moved_and_foreign_records_end_it"),
    },
    Fault {
        name: "a client's sessions have no number",
        file: ADMISSION,
        right: "|holding| holding.sessions >= self.limits.sessions_per_client",
        wrong: "|holding| holding.sessions > usize::MAX - 1",
        test: tokio_half("secure_sessions", "sessions_of_one_key_beyond_the_limit_wait_and_those_of_others_do_not"),
    },
    Fault {
        name: "leave the secret of ML-KEM out of the psk",
        file: HANDSHAKE,
        right: "let psk = keyed(secret, &",
        wrong: "let psk = keyed(&[secret[0] & 0; KEY_LEN], &",
        test: tokio_half("secure", "differential::clatter_can_take_the_place_of_either_end"),
    },
    Fault {
        name: "leave the suite out of the prologue",
        file: HANDSHAKE,
        right: "[NAME, &[suite.number()], &route, &mark].concat()",
        wrong: "[NAME, &[suite.number() & 0], &route, &mark].concat()",
        test: tokio_half("secure", "differential::clatter_can_take_the_place_of_either_end"),
    },
    Fault {
        name: "take public keys of small order",
        file: PRIMITIVES,
        right: "if shared.iter().all(|byte| *byte == 0) {",
        wrong: "if shared.is_empty() {",
        test: unit("secure::primitives::tests::x25519_agrees_with_the_standard_and_refuses_points_of_small_order"),
    },
];
