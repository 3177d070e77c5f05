//! Where mistakes are planted, and where the tests are that have to notice.

use crate::Test;

pub(crate) const fn of(package: &'static str, target: &'static str, name: &'static str) -> Test {
    Test { package, target, name }
}

pub(crate) const fn kcp(name: &'static str) -> Test {
    of("turbotunnel-kcp", "stories", name)
}

pub(crate) const fn smux(name: &'static str) -> Test {
    of("turbotunnel-smux", "stories", name)
}

pub(crate) const fn refusal(name: &'static str) -> Test {
    of("turbotunnel-smux", "refusals", name)
}

pub(crate) const fn rule(name: &'static str) -> Test {
    of("turbotunnel-sim", "rules", name)
}

pub(crate) const fn tokio_half(target: &'static str, name: &'static str) -> Test {
    of("turbotunnel", target, name)
}

pub(crate) const fn unit(name: &'static str) -> Test {
    of("turbotunnel", "lib", name)
}

pub(crate) const fn program(target: &'static str, name: &'static str) -> Test {
    of("turbotunnel-cli", target, name)
}

pub(crate) const SEND: &str = "crates/kcp/src/send.rs";
pub(crate) const ACKS: &str = "crates/kcp/src/send/acks.rs";
pub(crate) const RECV: &str = "crates/kcp/src/recv.rs";
pub(crate) const KCP: &str = "crates/kcp/src/engine.rs";
pub(crate) const POOL: &str = "crates/kcp/src/pool.rs";
pub(crate) const SN: &str = "crates/kcp/src/sn.rs";
pub(crate) const STREAM: &str = "crates/smux/src/stream.rs";
pub(crate) const SLAB: &str = "crates/smux/src/slab.rs";
pub(crate) const INPUT: &str = "crates/smux/src/input.rs";
pub(crate) const WAKE: &str = "crates/smux/src/wake.rs";
pub(crate) const OUTPUT: &str = "crates/smux/src/output.rs";
pub(crate) const MUX: &str = "crates/smux/src/mux.rs";
pub(crate) const ENGINE: &str = "crates/turbotunnel/src/engine.rs";
pub(crate) const TUNNEL: &str = "crates/turbotunnel/src/tunnel.rs";
pub(crate) const TUNNEL_END: &str = "crates/turbotunnel/src/tunnel/end.rs";
pub(crate) const BOUNDS: &str = "crates/turbotunnel/src/tunnel/bounds.rs";
pub(crate) const FLIGHT: &str = "crates/kcp/src/flight.rs";
pub(crate) const BUDGET: &str = "crates/turbotunnel/src/budget.rs";
pub(crate) const PATH: &str = "crates/turbotunnel/src/path.rs";
pub(crate) const SPARE: &str = "crates/turbotunnel/src/path/spare.rs";
pub(crate) const BACKOFF: &str = "crates/turbotunnel/src/backoff.rs";
pub(crate) const LISTENER: &str = "crates/turbotunnel/src/listener.rs";
pub(crate) const RECEPTION: &str = "crates/turbotunnel/src/listener/reception.rs";
pub(crate) const GATE: &str = "crates/turbotunnel/src/listener/gate.rs";
pub(crate) const HANDSHAKE: &str = "crates/turbotunnel/src/secure/handshake.rs";
pub(crate) const RECORD: &str = "crates/turbotunnel/src/secure/record.rs";
pub(crate) const LIFETIME: &str = "crates/turbotunnel/src/lifetime.rs";
pub(crate) const PRIMITIVES: &str = "crates/turbotunnel/src/secure/primitives.rs";
pub(crate) const ADMISSION: &str = "crates/turbotunnel/src/listener/admission.rs";
pub(crate) const SHARED: &str = "crates/turbotunnel/src/shared.rs";
pub(crate) const DRIVER: &str = "crates/turbotunnel/src/driver.rs";
pub(crate) const SECURE_CARRIER: &str = "crates/turbotunnel/src/carrier/secure.rs";
pub(crate) const CARRIER: &str = "crates/turbotunnel/src/carrier/stream.rs";
pub(crate) const QUEUE: &str = "crates/turbotunnel/src/carrier/queue.rs";
pub(crate) const ENCAPSULATION: &str = "crates/turbotunnel/src/encapsulation.rs";
pub(crate) const SESSION_MAP: &str = "crates/turbotunnel/src/session_map.rs";
pub(crate) const STREAM_HANDLE: &str = "crates/turbotunnel/src/stream.rs";
pub(crate) const ECHO_CLIENT: &str = "crates/turbotunnel-cli/src/commands/echo_client.rs";
