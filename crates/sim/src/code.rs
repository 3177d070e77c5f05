//! A script as the code of a test that plays it: printed by a failure, kept by whoever mends it.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::fault::{Dial, Fault, How, When};
use crate::network::Side;
use crate::pipe::Link;
use crate::script::{Deed, Peers, Script, Settings};
use crate::sealed::Wear;
use crate::traffic::{Manners, Reading, Traffic};

/// Rust code that makes this value, with everything of this crate in scope.
trait Code {
    fn code(&self) -> String;
}

impl Code for Duration {
    fn code(&self) -> String {
        match (self.subsec_nanos() % 1_000, self.as_micros()) {
            (0, micros) if micros % 1_000_000 == 0 => format!("secs({})", micros / 1_000_000),
            (0, micros) if micros % 1_000 == 0 => format!("ms({})", micros / 1_000),
            (0, micros) => format!("us({micros})"),
            _ => format!("std::time::Duration::from_nanos({})", self.as_nanos()),
        }
    }
}

impl Code for u32 {
    fn code(&self) -> String {
        self.to_string()
    }
}

impl<A: Code, B: Code> Code for (A, B) {
    fn code(&self) -> String {
        format!("({}, {})", self.0.code(), self.1.code())
    }
}

impl Code for Side {
    fn code(&self) -> String {
        format!("Side::{self:?}")
    }
}

impl Code for How {
    fn code(&self) -> String {
        match self {
            Self::Freeze(time) => format!("How::Freeze({})", time.code()),
            Self::DeadLate(time) => format!("How::DeadLate({})", time.code()),
            other => format!("How::{other:?}"),
        }
    }
}

impl Code for Dial {
    fn code(&self) -> String {
        format!("Dial::{self:?}")
    }
}

impl Code for Fault {
    fn code(&self) -> String {
        let when = match self.when {
            When::Up(bytes) => format!("When::Up({bytes})"),
            When::Down(bytes) => format!("When::Down({bytes})"),
            When::After(time) => format!("When::After({})", time.code()),
        };
        format!("Fault::new({when}, {})", self.how.code())
    }
}

impl Code for Deed {
    fn code(&self) -> String {
        match self {
            Self::Redial => "Deed::Redial".to_owned(),
            Self::Strike(how) => format!("Deed::Strike({})", how.code()),
            Self::Sleep(side, time) => format!("Deed::Sleep({}, {})", side.code(), time.code()),
            Self::RestartServer => "Deed::RestartServer".to_owned(),
        }
    }
}

impl Code for Peers {
    fn code(&self) -> String {
        match self {
            Self::Ours => "Peers::Ours".to_owned(),
            Self::GoServer(fin) => format!("Peers::GoServer(Fin::{fin:?})"),
            Self::GoClient(fin) => format!("Peers::GoClient(Fin::{fin:?})"),
        }
    }
}

impl Code for Wear {
    fn code(&self) -> String {
        format!("Wear {{ lifetime: {}, used: {} }}", self.lifetime.code(), self.used)
    }
}

impl Code for Settings {
    fn code(&self) -> String {
        let Self { window, send_buffer, first_unsent, max_buffered, time_to_live, spare, counters } = *self;
        let turbotunnel::Counters { sn, ts_ms, stream_bytes, streams } = counters;
        let counters = format!(
            "turbotunnel::Counters {{ sn: {sn}, ts_ms: {ts_ms}, stream_bytes: {stream_bytes}, streams: {streams} }}"
        );
        format!(
            "Settings {{ window: {window}, send_buffer: {send_buffer}, first_unsent: {first_unsent}, max_buffered: {max_buffered}, \
             time_to_live: {}, spare: {spare}, counters: {counters} }}",
            time_to_live.code()
        )
    }
}

impl Code for Link {
    fn code(&self) -> String {
        let plain = Self::new(self.delay);
        let mut code = format!("Link::new({})", self.delay.code());
        code.extend(self.rate.map(|rate| format!(".rate({rate})")));
        if self.capacity != plain.capacity {
            code += &format!(".capacity({})", self.capacity);
        }
        if !self.jitter.is_zero() {
            code += &format!(".jitter({})", self.jitter.code());
        }
        code.extend(self.dial.map(|dial| format!(".dials_in({})", dial.code())));
        for (name, share) in [("loses", self.loss), ("reorders", self.reorder), ("doubles", self.double)] {
            if share > 0 {
                code += &format!(".{name}({share})");
            }
        }
        code
    }
}

impl Code for Reading {
    fn code(&self) -> String {
        match self {
            Self::Prompt => "Reading::Prompt".to_owned(),
            Self::Slow { bytes, every } => format!("Reading::Slow {{ bytes: {bytes}, every: {} }}", every.code()),
            Self::Stops { after, pause } => format!("Reading::Stops {{ after: {after}, pause: {} }}", pause.code()),
        }
    }
}

impl Code for Traffic {
    fn code(&self) -> String {
        let mut code = match self.manners {
            Manners::Free => format!("Traffic::both({}, {})", self.up, self.down),
            Manners::Echo => format!("Traffic::echo({})", self.up),
            Manners::Turns { request, response } => {
                format!("Traffic::turns({}, {request}, {response})", self.up / request.max(1))
            }
        };
        code.extend(self.pace.map(|pace| format!(".paced({}, {})", pace.bytes, pace.every.code())));
        for (name, reading) in [("client_reads", self.client_reads), ("server_reads", self.server_reads)] {
            if reading != Reading::Prompt {
                code += &format!(".{name}({})", reading.code());
            }
        }
        if !self.finishes {
            code += ".stays_open()";
        }
        if self.finishes_last {
            code += ".finishes_last()";
        }
        if !self.starts_at.is_zero() {
            code += &format!(".starts_at({})", self.starts_at.code());
        }
        if self.opener == Side::Server {
            code += ".opened_by_server()";
        }
        code
    }
}

fn list<T: Code>(f: &mut Formatter<'_>, name: &str, items: &[T]) -> fmt::Result {
    match items {
        [] => Ok(()),
        [item] => writeln!(f, "        {name}: vec![{}],", item.code()),
        items => {
            writeln!(f, "        {name}: vec![")?;
            items.iter().try_for_each(|item| writeln!(f, "            {},", item.code()))?;
            writeln!(f, "        ],")
        }
    }
}

impl Display for Script {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plain = Self::new(self.seed);
        writeln!(f, "    let script = Script {{")?;
        if self.peers != plain.peers {
            writeln!(f, "        peers: {},", self.peers.code())?;
        }
        if let Some(suite) = self.sealed {
            writeln!(f, "        sealed: Some(Suite::{suite:?}),")?;
        }
        list(f, "wear", &self.wear)?;
        if self.settings != plain.settings {
            writeln!(f, "        settings: {},", self.settings.code())?;
        }
        if self.link != plain.link {
            writeln!(f, "        link: {},", self.link.code())?;
        }
        list(f, "links", &self.links)?;
        list(f, "dials", &self.dials)?;
        list(f, "faults", &self.faults)?;
        list(f, "deeds", &self.deeds)?;
        list(f, "traffic", &self.traffic)?;
        if self.limit != plain.limit {
            writeln!(f, "        limit: {},", self.limit.code())?;
        }
        writeln!(f, "        ..Script::new({})", self.seed)?;
        write!(f, "    }};")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fin, ms, us};

    /// What is printed is what was meant: it compiles, below, to the same script.
    #[test]
    fn a_script_is_printed_as_code() {
        let script = Script {
            peers: Peers::GoServer(Fin::Old),
            link: Link::new(us(1_500)).rate(1_000).capacity(9_000).jitter(ms(3)).loses(4),
            faults: vec![(1, Fault::new(When::Up(30), How::Freeze(ms(250)))), (2, Fault::new(When::Down(8), How::Fin))],
            deeds: vec![(ms(1_000), Deed::Sleep(Side::Server, ms(90_000)))],
            traffic: vec![Traffic::turns(3, 10, 20).finishes_last().starts_at(ms(5))],
            ..Script::new(7)
        };
        assert_eq!(
            script.to_string(),
            "    let script = Script {
        peers: Peers::GoServer(Fin::Old),
        link: Link::new(us(1500)).rate(1000).capacity(9000).jitter(ms(3)).loses(4),
        faults: vec![
            (1, Fault::new(When::Up(30), How::Freeze(ms(250)))),
            (2, Fault::new(When::Down(8), How::Fin)),
        ],
        deeds: vec![(secs(1), Deed::Sleep(Side::Server, secs(90)))],
        traffic: vec![Traffic::turns(3, 10, 20).finishes_last().starts_at(ms(5))],
        ..Script::new(7)
    };"
        );
    }
}
