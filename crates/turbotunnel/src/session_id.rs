//! The 8 bytes that tie the carriers of one session together.

use std::fmt;
use std::str::FromStr;

/// Names a session, independently of any network address: the first 8 bytes that a client writes on every carrier.
///
/// Any value is legal. It is printed as 16 lower-case hexadecimal digits, as the Go programs of the worked example do.
/// In plain mode whoever reads it off the wire can attach a carrier of his own; treat it like a password in logs
/// ([`SessionId::short`] is what belongs there).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; SessionId::LEN]);

impl SessionId {
    /// Length on the wire, in bytes.
    pub const LEN: usize = 8;

    /// A new random identifier from the operating system.
    ///
    /// # Errors
    ///
    /// When the operating system has no random bytes to give.
    #[cfg(feature = "tokio")]
    pub fn random() -> std::io::Result<Self> {
        let mut id = [0; Self::LEN];
        getrandom::fill(&mut id).map_err(|e| std::io::Error::other(e.to_string()))?;
        Ok(Self(id))
    }

    /// The first 8 hexadecimal digits: enough to follow a session in a log, too little to attach to it.
    #[must_use]
    pub fn short(&self) -> String {
        let mut hex = self.to_string();
        hex.truncate(8);
        hex
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", self.short())
    }
}

/// The text is not 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session id is 16 hexadecimal digits")]
pub struct ParseSessionIdError;

impl FromStr for SessionId {
    type Err = ParseSessionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 2 * Self::LEN || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseSessionIdError);
        }
        let number = u64::from_str_radix(text, 16).map_err(|_| ParseSessionIdError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_printed_and_read_as_the_go_programs_do() {
        let id = SessionId([0xc2, 0xd8, 0x96, 0x2e, 0x64, 0x8d, 0x8b, 0x0b]);
        assert_eq!(id.to_string(), "c2d8962e648d8b0b");
        assert_eq!("c2d8962e648d8b0b".parse(), Ok(id));
        assert_eq!(id.short(), "c2d8962e");
        for wrong in ["", "c2d8962e648d8b0", "c2d8962e648d8b0b0", "+2d8962e648d8b0b", "c2d8962e648d8b0g"] {
            assert_eq!(wrong.parse::<SessionId>(), Err(ParseSessionIdError), "{wrong}");
        }
    }

    #[test]
    fn debug_output_does_not_give_the_id_away() {
        assert_eq!(format!("{:?}", SessionId([0xab; 8])), "SessionId(abababab…)");
    }
}
