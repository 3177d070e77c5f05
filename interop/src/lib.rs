//! What the tests against other implementations need: the Go programs as children ([`peers`]), bytes whose place in a
//! stream can be told from their value ([`pattern`]), random scripts ([`script`]), a relay that slips packets in between ([`noise`]), and
//! a test runner that says loudly what it could not run ([`runner`]).
//!
//! Environment:
//!
//! | variable | what it does |
//! |---|---|
//! | `TURBOTUNNEL_GO_PEERS=DIR` | other programs than those that `interop/build` makes, see [`peers::Peers::find`] |
//! | `TURBOTUNNEL_INTEROP_BYTES=64MiB` | bytes of each transfer, see [`transfer_bytes`] |
//! | `TURBOTUNNEL_INTEROP_RUNS=100` | how often a short transfer is repeated, see [`runs`] |
//! | `TURBOTUNNEL_INTEROP_SEED=7` | the one random script to play, see [`seeds`] |
//! | `TURBOTUNNEL_REQUIRE_INTEROP=1` | a test that cannot run is a failure |

pub mod noise;
pub mod pattern;
pub mod peers;
pub mod random;
pub mod runner;
pub mod script;

/// How many bytes a transfer of a test has: `TURBOTUNNEL_INTEROP_BYTES`, a number with or without `KiB`, `MiB` or `GiB`
/// behind it; 4 MiB if not given.
///
/// # Panics
///
/// If the variable holds something else: a test of another size than asked for would be worse.
pub fn transfer_bytes() -> u64 {
    match std::env::var("TURBOTUNNEL_INTEROP_BYTES") {
        Ok(text) => parse_bytes(&text).unwrap_or_else(|| panic!("TURBOTUNNEL_INTEROP_BYTES={text}: want e.g. 64MiB")),
        Err(_) => 4 << 20,
    }
}

/// How often a test repeats what goes wrong now and then or never: `TURBOTUNNEL_INTEROP_RUNS`, 3 if not given.
///
/// # Panics
///
/// If the variable is no number.
pub fn runs() -> usize {
    match std::env::var("TURBOTUNNEL_INTEROP_RUNS") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("TURBOTUNNEL_INTEROP_RUNS={text}: want a number")),
        Err(_) => 3,
    }
}

/// Seeds of the random scripts to play: `TURBOTUNNEL_INTEROP_SEED` alone, if it is given, else eight for each of [`runs`].
///
/// # Panics
///
/// If the variable is no number.
pub fn seeds() -> Vec<u64> {
    match std::env::var("TURBOTUNNEL_INTEROP_SEED") {
        Ok(text) => vec![text.parse().unwrap_or_else(|_| panic!("TURBOTUNNEL_INTEROP_SEED={text}: want a number"))],
        Err(_) => (0..8 * runs() as u64).collect(),
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        assert_eq!(parse_bytes("4194304"), Some(4 << 20));
        assert_eq!(parse_bytes("64MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("1KiB"), Some(1024));
        assert_eq!(parse_bytes("64 MiB"), None);
        assert_eq!(parse_bytes("MiB"), None);
        assert_eq!(parse_bytes("99999999999GiB"), None);
    }
}
