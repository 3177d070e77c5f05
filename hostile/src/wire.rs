//! Bytes of an attacker: connections from a given address, packets, segments, frames.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use kcp::{Segment, Sn, Ts};
use smux::{StreamId, Version};
use socket2::{Domain, Protocol, Socket, Type};
use turbotunnel::encapsulation::PacketBatch;

pub(crate) use kcp::wire::Command as Kcp;
pub(crate) use smux::wire::Command as Smux;

/// A connection from `source`. It waits no longer than five seconds for anything.
pub(crate) fn dial(addr: SocketAddr, source: Ipv4Addr) -> io::Result<TcpStream> {
    const LIMIT: Duration = Duration::from_secs(5);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&addr.into(), LIMIT)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// A connection that has said `id`, and then `packets`.
pub(crate) fn carrier(addr: SocketAddr, source: Ipv4Addr, id: [u8; 8], packets: &[&[u8]]) -> io::Result<TcpStream> {
    let mut stream = dial(addr, source)?;
    let mut bytes = id.to_vec();
    bytes.extend_from_slice(&framed(packets));
    stream.write_all(&bytes)?;
    Ok(stream)
}

/// A connection with a session of its own, begun with [`opening`]: the server has acknowledged it.
///
/// What comes before that is a stranger's, and servers put up with little of it.
pub(crate) fn session(addr: SocketAddr, source: Ipv4Addr, id: [u8; 8], conv: u32) -> io::Result<TcpStream> {
    let mut stream = carrier(addr, source, id, &[&opening(conv)])?;
    stream.read_exact(&mut [0; 1])?;
    Ok(stream)
}

/// Packets as they stand on a connection.
pub(crate) fn framed(packets: &[&[u8]]) -> Vec<u8> {
    let mut batch = PacketBatch::new();
    packets.iter().for_each(|packet| batch.push(packet));
    batch.as_bytes().to_vec()
}

/// One segment as a packet.
pub(crate) fn packet(conv: u32, cmd: Kcp, sn: u32, una: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let (sn, una, ts) = (Sn::new(sn), Sn::new(una), Ts::new(0));
    Segment { conv, cmd, frg: 0, wnd: 1024, ts, sn, una, payload }.encode(&mut packet);
    packet
}

/// The 32 bytes that begin a session: the first segment, with a NOP in it.
pub(crate) fn opening(conv: u32) -> Vec<u8> {
    packet(conv, Kcp::Push, 0, 0, &frame(Smux::Nop, 0, &[]))
}

/// One frame.
pub(crate) fn frame(command: Smux, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("our own frames are short");
    let header = smux::wire::Header { version: Version::V2, command, length, stream: StreamId::new(stream) };
    [&header.encode()[..], payload].concat()
}

/// An id that nobody else has: who attacks, and a number. Its first half differs, and that is what logs show; so does its end, and that is what servers
/// spread by.
pub(crate) fn id(who: u8, n: usize) -> [u8; 8] {
    let [high, low] = (n as u16).to_be_bytes();
    [0xa7, who, high, low, 1, 2, 3, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_a_session_is_32_bytes_with_the_id_and_length_42() {
        let packet = opening(7);
        assert_eq!(packet.len(), 32);
        assert_eq!(turbotunnel::tunnel::opening_conv(&packet, 0), Some(7));
        assert_eq!(8 + framed(&[&packet]).len(), 42);
    }
}
