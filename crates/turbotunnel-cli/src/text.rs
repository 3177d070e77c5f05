//! Numbers as people read them: sizes, ages, rates. All screens and log lines use these.

use std::net::IpAddr;
use std::time::Duration;

/// `12 B`, `45.6 kB`, `1.2 MB`: decimal, as log lines and the status line show bytes.
pub fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    scaled(bytes as f64, 1000.0, &["kB", "MB", "GB", "TB", "PB", "EB"])
}

/// `12 B`, `64 KiB`, `10.9 MiB`: binary, as sizes are written on the command line.
pub fn binary_size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    scaled(bytes as f64, 1024.0, &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(mut value: f64, base: f64, units: &[&str]) -> String {
    let mut unit = "";
    for next in units {
        value /= base;
        unit = next;
        // Beyond this, rounding would show 1000.0 of the smaller unit.
        if value < base - 0.05 {
            break;
        }
    }
    let text = format!("{value:.1}");
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// `1 packet`, `213 packets`.
pub fn count(n: u64, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// `0.4 ms`, `3 ms`, `20.0 s`, `3 min 20 s`, `3 h 12 min`: how long something took or lived.
pub fn age(duration: Duration) -> String {
    let ms = duration.as_millis();
    let s = duration.as_secs();
    match ms {
        0 if !duration.is_zero() => format!("{:.1} ms", (duration.as_secs_f64() * 1000.0).max(0.1)),
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        60_000..3_600_000 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

/// `500 ms`, `20 s`, `10 m`: a time as it is set, with no more digits than it has.
pub fn setting(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 && !duration.is_zero() {
        format!("{duration:?}")
    } else if !ms.is_multiple_of(1000) {
        if ms < 1000 { format!("{ms} ms") } else { format!("{} s", ms as f64 / 1000.0) }
    } else if ms.is_multiple_of(60_000) && ms > 0 {
        format!("{} min", ms / 60_000)
    } else {
        format!("{} s", ms / 1000)
    }
}

/// What of an address is told to everybody who reads the log: `203.0.x.x`.
pub fn masked(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            format!("{a}.{b}.x.x")
        }
        IpAddr::V6(ip) => {
            let [a, b, ..] = ip.segments();
            format!("[{a:x}:{b:x}:...]")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let all = [0, 999, 1000, 1500, 118_000, 999_949, 999_950, 999_999, 1_000_000, u64::MAX];
        let texts: Vec<String> = all.into_iter().map(size).collect();
        assert_eq!(texts, ["0 B", "999 B", "1 kB", "1.5 kB", "118 kB", "999.9 kB", "1 MB", "1 MB", "1 MB", "18.4 EB"]);
        assert_eq!(binary_size(64 << 20), "64 MiB");
        assert_eq!(binary_size(1 << 20), "1 MiB");
        assert_eq!(binary_size((10 << 20) + 943_718), "10.9 MiB");
    }

    #[test]
    fn ages_read_well() {
        let all = [0, 3, 999, 1000, 20_000, 59_940, 60_000, 200_000, 11_520_000];
        let texts: Vec<String> = all.into_iter().map(|ms| age(Duration::from_millis(ms))).collect();
        assert_eq!(
            texts,
            ["0 ms", "3 ms", "999 ms", "1.0 s", "20.0 s", "59.9 s", "1 min 0 s", "3 min 20 s", "3 h 12 min"]
        );
        assert_eq!(age(Duration::from_micros(420)), "0.4 ms");
        assert_eq!(age(Duration::from_nanos(1)), "0.1 ms");
    }

    #[test]
    fn settings_read_as_they_were_written() {
        let all = [0, 500, 1000, 1500, 20_000, 60_000, 90_000, 600_000];
        let texts: Vec<String> = all.into_iter().map(|ms| setting(Duration::from_millis(ms))).collect();
        assert_eq!(texts, ["0 s", "500 ms", "1 s", "1.5 s", "20 s", "1 min", "90 s", "10 min"]);
    }
}
