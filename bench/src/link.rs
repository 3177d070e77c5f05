//! A path between two network namespaces: a TUN device in each, and this process between them.
//!
//! Every packet waits until those before it have left at the path's rate, then for the delay. What finds more than the buffer before it is
//! dropped, as a router does. It is the kernel's own TCP that goes through, with its handshake and its slow start.
//!
//! It begins with a line on standard input, when the devices are up, and ends with that.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tun_rs::{DeviceBuilder, SyncDevice};

use crate::path::Path;

#[derive(Default)]
struct Waiting {
    packets: VecDeque<(Instant, Vec<u8>)>,
    /// When the last of them has left.
    busy_until: Option<Instant>,
}

/// One direction.
#[derive(Default)]
struct Way {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Way {
    fn take(&self, path: &Path, from: &SyncDevice) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let len = from.recv(&mut buffer)?;
            let now = Instant::now();
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let starts = waiting.busy_until.map_or(now, |busy| busy.max(now));
            let leaves = path.rate.map_or(now, |bits| starts + time_of(len, bits));
            let before = path.rate.map_or(0, |bits| bytes_of(starts - now, bits));
            if before > path.buffer {
                continue;
            }
            waiting.busy_until = Some(leaves);
            waiting.packets.push_back((leaves + path.delay, buffer[..len].to_vec()));
            drop(waiting);
            self.arrived.notify_one();
        }
    }

    fn give(&self, to: &SyncDevice) -> io::Result<()> {
        loop {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let (due, packet) = loop {
                match waiting.packets.pop_front() {
                    Some(next) => break next,
                    None => waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(waiting);
            let early = due.saturating_duration_since(Instant::now());
            if !early.is_zero() {
                thread::sleep(early);
            }
            to.send(&packet)?;
        }
    }
}

fn time_of(len: usize, bits: u64) -> Duration {
    Duration::from_nanos((len as u64 * 8).saturating_mul(1_000_000_000) / bits)
}

fn bytes_of(time: Duration, bits: u64) -> u64 {
    (time.as_secs_f64() * bits as f64 / 8.0) as u64
}

/// Runs it until standard input ends. The devices are made here and moved to their namespaces by whoever started this.
pub(crate) fn run(path: &Path, names: [&str; 2]) -> io::Result<()> {
    let devices = [device(names[0], path.mtu)?, device(names[1], path.mtu)?];
    println!("ready");
    // A device that is not up yet gives errors.
    let mut commands = io::stdin().lock().lines();
    if commands.next().transpose()?.is_none() {
        return Ok(());
    }
    let ways = [Way::default(), Way::default()];
    thread::scope(|scope| {
        for (from, way) in ways.iter().enumerate() {
            let devices = &devices;
            // They end with the process.
            scope.spawn(move || ended(way.take(path, &devices[from])));
            scope.spawn(move || ended(way.give(&devices[1 - from])));
        }
        commands.for_each(drop);
        std::process::exit(0);
    })
}

fn device(name: &str, mtu: u16) -> io::Result<SyncDevice> {
    DeviceBuilder::new().name(name).mtu(mtu).tx_queue_len(10_000).enable(false).build_sync()
}

fn ended(result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("link: {error}");
        std::process::exit(1);
    }
}
