//! To be seen: what a server or a client counts ([`board`]), as Prometheus wants it, as JSON, as a page ([`serve`]) and as a line on a terminal ([`line`]).

pub(crate) mod board;
pub(crate) mod line;
pub(crate) mod serve;
