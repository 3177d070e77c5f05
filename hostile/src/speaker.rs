//! An end of a session that says whatever an attack wants said: real KCP below, and frames as they please above.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::tunnel::opening_conv;

use crate::wire::{self, Smux, frame};

/// One end of one session over one connection.
#[derive(Debug)]
pub(crate) struct Speaker {
    pub(crate) tcp: TcpStream,
    kcp: kcp::Kcp,
    partial: Vec<u8>,
    /// Bytes of frames that have come and that nobody has taken.
    pub(crate) heard: Vec<u8>,
    /// Whether frames that come are kept in [`Speaker::heard`]; those that are not are acknowledged all the same.
    listens: bool,
    /// The other end has closed the connection.
    pub(crate) is_over: bool,
}

impl Speaker {
    /// A client of its own session, that has said its first segment (a NOP).
    pub(crate) fn client(addr: SocketAddr, source: Ipv4Addr, id: [u8; 8]) -> io::Result<Self> {
        let conv = u32::from_le_bytes([id[4], id[5], id[6], id[7]]) ^ 0x5eed;
        let mut speaker = Self::new(wire::carrier(addr, source, id, &[])?, conv);
        speaker.say(&frame(Smux::Nop, 0, &[]), Duration::from_secs(1))?;
        Ok(speaker)
    }

    /// The server of whoever has connected: waits for his id and the packet that begins his session.
    ///
    /// # Errors
    ///
    /// He says neither within the connection's read timeout.
    pub(crate) fn server(mut tcp: TcpStream) -> io::Result<Self> {
        tcp.read_exact(&mut [0; 8])?;
        let mut packets = PacketBatch::new();
        let mut partial = Vec::new();
        loop {
            read_packets(&mut tcp, &mut packets, &mut partial)?;
            if let Some(conv) = packets.packets().find_map(|packet| opening_conv(packet, 0)) {
                let mut speaker = Self::new(tcp, conv);
                (speaker.partial, speaker.listens) = (partial, true);
                speaker.take(&packets);
                return Ok(speaker);
            }
        }
    }

    fn new(tcp: TcpStream, conv: u32) -> Self {
        let kcp = kcp::Kcp::new(Instant::now(), conv, kcp::Config::default());
        Self { tcp, kcp, partial: Vec::new(), heard: Vec::new(), listens: false, is_over: false }
    }

    /// Says `bytes`, as frames or pieces of some, and gives how many of them the other end took before it stopped for as long as `patience`, or hung
    /// up.
    pub(crate) fn say(&mut self, bytes: &[u8], patience: Duration) -> io::Result<usize> {
        let (mut said, mut last) = (0, Instant::now());
        while said < bytes.len() && !self.is_over {
            let n = self.kcp.write(&bytes[said..]);
            said += n;
            if n > 0 {
                last = Instant::now();
                self.turn(Duration::ZERO)?;
            } else if last.elapsed() > patience {
                break;
            } else {
                self.turn(Duration::from_millis(20))?;
            }
        }
        Ok(said)
    }

    /// Goes on for `time`: acknowledges, repeats, and takes in.
    pub(crate) fn stay(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.is_over {
            self.turn(Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Sends what there is, then takes in what comes within `wait`.
    pub(crate) fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let now = Instant::now();
        self.kcp.handle_timeout(now);
        let mut out = PacketBatch::new();
        while out.push_with(|packet| self.kcp.poll_transmit(now, packet)) {}
        if !out.is_empty() && self.tcp.write_all(out.as_bytes()).is_err() {
            self.is_over = true;
            return Ok(());
        }
        let mut packets = PacketBatch::new();
        if wait.is_zero() {
            self.tcp.set_nonblocking(true)?;
        } else {
            self.tcp.set_read_timeout(Some(wait))?;
        }
        let read = read_packets(&mut self.tcp, &mut packets, &mut self.partial);
        if wait.is_zero() {
            self.tcp.set_nonblocking(false)?;
        }
        match read {
            Ok(()) => self.take(&packets),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => self.is_over = true,
        }
        Ok(())
    }

    fn take(&mut self, packets: &PacketBatch) {
        for packet in packets.packets() {
            // Control packets, and what is not for us.
            let _ = self.kcp.handle_packet(Instant::now(), packet);
            while let Some(bytes) = self.kcp.peek() {
                if self.listens {
                    self.heard.extend_from_slice(bytes);
                }
                self.kcp.consume();
            }
        }
    }
}

/// Reads once, and cuts that into packets.
fn read_packets(tcp: &mut TcpStream, packets: &mut PacketBatch, partial: &mut Vec<u8>) -> io::Result<()> {
    let bytes = packets.bytes_mut();
    bytes.clear();
    bytes.extend_from_slice(partial);
    let start = bytes.len();
    bytes.resize(start + (64 << 10), 0);
    let n = match tcp.read(&mut bytes[start..]) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => n,
        Err(error) => {
            bytes.clear();
            return Err(error);
        }
    };
    bytes.truncate(start + n);
    packets.cut_incomplete(partial).map_err(io::Error::other)
}
