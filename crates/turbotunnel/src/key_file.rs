//! Secret keys in files that only their owner can read.
//!
//! ```text
//! # turbotunnel secret key: whoever has it is you.
//! # public key: k...
//! TURBOTUNNEL-SECRET-...
//! ```
//!
//! One secret key a file; lines that begin with `#` and empty ones do not count. A file that others may read is refused, as ssh does: its key may have been read already.
//! Where the system has no such permissions (Windows) that is not looked at.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::secure::{ParseKeyError, StaticKey};

/// A key and a few lines of comment are shorter.
const MAX_LEN: u64 = 4096;

/// Why a key file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file system says no; not found, for one.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        #[source]
        error: io::Error,
    },
    /// Others than its owner may read or write it. `chmod 600`, and think about who may have seen the key.
    #[error("{} can be read or written by others (mode {mode:03o})", .path.display())]
    Permissions {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is no secret key in it, or more than one.
    #[error("{} has {keys} secret keys in it, and not one", .path.display())]
    NotOne {
        /// Which file.
        path: PathBuf,
        /// How many there are.
        keys: usize,
    },
    /// There is something else in it.
    #[error("{}, line {line}: {error}", .path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        #[source]
        error: ParseKeyError,
    },
}

impl KeyFileError {
    /// The file is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads the secret key in a file.
///
/// # Errors
///
/// The file is not there, others may read it, or what is in it is not one key.
pub fn read_key_file(path: impl AsRef<Path>) -> Result<StaticKey, KeyFileError> {
    let path = path.as_ref();
    let io = |error| KeyFileError::Io { path: path.to_owned(), error };
    let file = File::open(path).map_err(io)?;
    check_permissions(path, &file.metadata().map_err(io)?)?;
    // Not longer, so that the text does not move in memory and leave copies.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN as usize + 1));
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(io)?;
    parse(path, &bytes)
}

/// The key in what a file holds.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<StaticKey, KeyFileError> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() as u64 <= MAX_LEN => text,
        _ => return Err(KeyFileError::NotOne { path: path.to_owned(), keys: 0 }),
    };
    let mut keys = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = StaticKey::from_secret_text(line);
        keys.push(key.map_err(|error| KeyFileError::Key { path: path.to_owned(), line: at + 1, error })?);
    }
    let count = keys.len();
    match keys.pop() {
        Some(key) if count == 1 => Ok(key),
        _ => Err(KeyFileError::NotOne { path: path.to_owned(), keys: count }),
    }
}

/// Writes a new file with the key, which only its owner can read. `overwrite`: in the place of what is there; else that is an error.
///
/// What was there stays until the new file is whole.
///
/// # Errors
///
/// The file is there, or cannot be written.
pub fn write_key_file(path: impl AsRef<Path>, key: &StaticKey, overwrite: bool) -> Result<(), KeyFileError> {
    let path = path.as_ref();
    let io = |error| KeyFileError::Io { path: path.to_owned(), error };
    let secret = key.to_secret_text();
    let text = [
        "# turbotunnel secret key: whoever has it is you.\n# public key: ",
        &key.public().to_string(),
        "\n",
        &secret,
        "\n",
    ];
    let text = Zeroizing::new(text.concat());
    if !overwrite {
        let mut file = create_new(path).map_err(io)?;
        return file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let mut file = create_new(&beside).map_err(io)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let written = written.and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written.map_err(io)
}

fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn check_permissions(path: &Path, metadata: &std::fs::Metadata) -> Result<(), KeyFileError> {
    use std::os::unix::fs::PermissionsExt;

    let mode = metadata.permissions().mode() & 0o777;
    // A pipe, as from a program that keeps keys, has no others.
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_permissions(_: &Path, _: &std::fs::Metadata) -> Result<(), KeyFileError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> StaticKey {
        StaticKey::from_bytes(&[7; 32])
    }

    #[test]
    fn a_key_is_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.key");
        write_key_file(&path, &key(), false).unwrap();
        assert_eq!(read_key_file(&path).unwrap().public(), key().public());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("# public key: {}\n", key().public())));
    }

    #[test]
    fn what_is_there_is_overwritten_only_if_that_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.key");
        write_key_file(&path, &key(), false).unwrap();
        let other = StaticKey::from_bytes(&[8; 32]);
        assert!(matches!(write_key_file(&path, &other, false), Err(KeyFileError::Io { .. })));
        assert_eq!(read_key_file(&path).unwrap().public(), key().public());
        write_key_file(&path, &other, true).unwrap();
        assert_eq!(read_key_file(&path).unwrap().public(), other.public());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(read_key_file(folder.path().join("none")).unwrap_err().is_not_found());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.key");
        write_key_file(&path, &key(), false).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "as it was written");
        for tight in [0o600, 0o400] {
            mode(tight);
            assert!(read_key_file(&path).is_ok(), "{tight:o}");
        }
        for loose in [0o640, 0o604, 0o660, 0o620, 0o644, 0o777] {
            mode(loose);
            let error = read_key_file(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Permissions { mode, .. } if mode == loose), "{error}");
        }
        // The new file is tight, whatever the old one was.
        write_key_file(&path, &key(), true).unwrap();
        assert!(read_key_file(&path).is_ok());
    }

    #[test]
    fn what_is_no_key_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let secret = key().to_secret_text();
        for (n, (text, told)) in [
            ("".to_owned(), "has 0 secret keys"),
            ("# nothing but a remark\n".to_owned(), "has 0 secret keys"),
            (format!("{}\n{}\n", *secret, *secret), "has 2 secret keys"),
            (format!("# remark\n\n{}\n", key().public()), "line 3: a public key"),
            (secret[..40].to_owned(), "line 1: a key that is cut short"),
            ("hello\n".to_owned(), "line 1: not a key"),
            ("x".repeat(5000), "has 0 secret keys"),
        ]
        .into_iter()
        .enumerate()
        {
            let path = folder.path().join(n.to_string());
            create_new(&path).unwrap().write_all(text.as_bytes()).unwrap();
            let error = read_key_file(&path).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
