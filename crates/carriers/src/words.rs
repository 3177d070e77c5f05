//! Errors in the words of a person.

use std::io;

/// Something that no system's number stands for.
pub(crate) fn other(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

/// Bytes that are not what they should be.
#[cfg(any(feature = "tls", feature = "ws"))]
pub(crate) fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// The same error with what was tried before it. For systems' errors, whose text says what happened and not where.
pub(crate) fn during(what: &str, error: &io::Error) -> io::Error {
    let text = error.to_string();
    let text = text.rfind(" (os error ").map_or(&text[..], |at| &text[..at]);
    io::Error::new(error.kind(), format!("{what}: {text}"))
}
