//! To be seen: what a server or a client counts ([`board`]), and its listener or session itself ([`own`]), as Prometheus wants it, as JSON, as a page ([`serve`]) and as a line on a terminal ([`line`]).

pub(crate) mod board;
pub(crate) mod line;
pub(crate) mod own;
pub(crate) mod serve;
