//! A relay between an honest client and his server, for an attacker who has seen the connection: it passes everything on and notes conv and numbers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use turbotunnel::encapsulation::PacketBatch;

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Notes>);

#[derive(Debug, Default)]
struct Notes {
    any: AtomicBool,
    conv: AtomicU32,
    next_sn: AtomicU32,
    id: OnceLock<[u8; 8]>,
}

impl Seen {
    /// The conversation, once there was one.
    pub(crate) fn conv(&self) -> io::Result<u32> {
        if self.0.any.load(Ordering::Acquire) {
            Ok(self.0.conv.load(Ordering::Acquire))
        } else {
            Err(io::Error::other("the tap has seen no segment"))
        }
    }

    /// The id, once it has been said.
    pub(crate) fn id(&self) -> Option<[u8; 8]> {
        self.0.id.get().copied()
    }

    /// The number of the client's next segment.
    pub(crate) fn next_sn(&self) -> u32 {
        self.0.next_sn.load(Ordering::Acquire)
    }

    fn note(&self, packet: &[u8]) {
        for segment in kcp::segments(packet).into_iter().flatten() {
            if segment.cmd == kcp::wire::Command::Push {
                self.0.conv.store(segment.conv, Ordering::Release);
                self.0.next_sn.fetch_max(segment.sn.value() + 1, Ordering::AcqRel);
                self.0.any.store(true, Ordering::Release);
            }
        }
    }
}

/// Passes on whatever comes to the address given back. It lives as long as the process.
pub(crate) fn tap(server: SocketAddr) -> io::Result<(SocketAddr, Seen)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (at, seen) = (listener.local_addr()?, Seen::default());
    let notes = seen.clone();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(server) else { continue };
            let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else { continue };
            let notes = notes.clone();
            let mut id = Vec::with_capacity(8);
            let (mut batch, mut partial) = (PacketBatch::new(), Vec::new());
            pass(client, server, move |bytes| {
                let of_id = (8 - id.len()).min(bytes.len());
                id.extend_from_slice(&bytes[..of_id]);
                if let Ok(id) = <[u8; 8]>::try_from(id.as_slice()) {
                    notes.0.id.get_or_init(|| id);
                }
                batch.bytes_mut().clear();
                batch.bytes_mut().extend_from_slice(&partial);
                batch.bytes_mut().extend_from_slice(&bytes[of_id..]);
                if batch.cut_incomplete(&mut partial).is_ok() {
                    batch.packets().for_each(|packet| notes.note(packet));
                }
            });
            pass(server2, client2, |_| {});
        }
    });
    Ok((at, seen))
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8]) + Send + 'static) {
    thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        let _ = to.set_nodelay(true);
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            look(&bytes[..n]);
            if to.write_all(&bytes[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
