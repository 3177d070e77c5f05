//! What a process of this machine uses, as `/proc` tells it (proc(5)). For measurements; elsewhere than on Linux there is nothing to read.

use std::fs;
use std::io;
use std::time::Duration;

/// User and system time of a process, to 10 ms. Zero if it is gone, or where the system does not tell.
#[must_use]
pub fn cpu_time(process: u32) -> Duration {
    // Fields 14 and 15, in clock ticks of 10 ms; the name in front may have spaces.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<u64> = behind_name.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let ticks = fields.get(11).copied().unwrap_or(0) + fields.get(12).copied().unwrap_or(0);
    Duration::from_millis(ticks * 10)
}

/// Memory that a process has in RAM, in KiB. Not a number if it is gone.
#[must_use]
pub fn resident(process: u32) -> f64 {
    status(process, "VmRSS:")
}

/// The most that [`resident`] has been since the process began, or since [`forget_peak`].
#[must_use]
pub fn peak(process: u32) -> f64 {
    status(process, "VmHWM:")
}

/// The part of [`resident`] that is pages of files, its own program most of all: read when they are first needed, and dropped by the system when they are in the way.
#[must_use]
pub fn resident_of_files(process: u32) -> f64 {
    status(process, "RssFile:")
}

/// Lets [`peak`] begin anew.
///
/// # Errors
///
/// The process is gone, or not ours.
pub fn forget_peak(process: u32) -> io::Result<()> {
    fs::write(format!("/proc/{process}/clear_refs"), "5")
}

/// Open descriptors of a process: each connection is one.
///
/// # Errors
///
/// The process is gone, or not ours.
pub fn descriptors(process: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

fn status(process: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(f64::NAN)
}
