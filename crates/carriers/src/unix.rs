//! Unix domain sockets: the file of a server that is gone is replaced, that of one that is there is not.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use crate::words;

/// As of tokio's TCP listeners.
const BACKLOG: i32 = 1024;
/// A server that is alive takes a connection at once, unless 1,024 are waiting already.
const IS_IT_ALIVE: Duration = Duration::from_secs(1);

/// The file of a listening socket. Dropping it removes the file, if it is still the same one.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identify(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identify(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

pub(crate) async fn connect(path: &str) -> io::Result<UnixStream> {
    UnixStream::connect(path).await.map_err(|error| words::during(path, &error))
}

/// Listens at `path`, for those whom `mode` lets write there.
///
/// # Errors
///
/// [`io::ErrorKind::AddrInUse`]: somebody listens there. [`io::ErrorKind::AlreadyExists`]: a file that is no socket.
pub(crate) async fn bind(path: &str, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let path = Path::new(path);
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file of that name, and it is no socket",
            ));
        }
        match tokio::time::timeout(IS_IT_ALIVE, UnixStream::connect(path)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            _ => return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there already")),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), id: identify(path)? };
    // Before anybody can connect.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}
