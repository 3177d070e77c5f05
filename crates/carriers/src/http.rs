//! As much of HTTP/1.1 as an upgrade and a CONNECT need: the head of a message.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Web servers take 8 KiB and more of a head; what a proxy says about itself is rarely longer.
const MAX_HEAD: usize = 16 << 10;
/// Headers in it.
#[cfg(feature = "ws")]
pub(crate) const MAX_HEADERS: usize = 100;
const READ_SIZE: usize = 2 << 10;

/// The head of a message, with its empty line, and what came behind it.
pub(crate) struct Head {
    pub(crate) head: Vec<u8>,
    pub(crate) rest: Vec<u8>,
}

/// Reads the head of a message that begins with `begins`, at most 16 KiB.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`]: it begins otherwise, or is too long. [`io::ErrorKind::UnexpectedEof`].
pub(crate) async fn read_head(io: &mut (impl AsyncRead + Unpin), begins: &[u8]) -> io::Result<Head> {
    let mut head = Vec::with_capacity(READ_SIZE);
    loop {
        // What is in there already has no end in it, but may have the beginning of one.
        let looked_at = head.len().saturating_sub(3);
        if (&mut *io).take(READ_SIZE as u64).read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let common = begins.len().min(head.len());
        if head[..common] != begins[..common] {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if let Some(end) = end_of_head(&head[looked_at..]) {
            let rest = head.split_off(looked_at + end);
            return Ok(Head { head, rest });
        }
        if head.len() >= MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Behind an empty line. Some end lines with LF alone.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find_map(|at| {
        let rest = &bytes[at..];
        [&b"\r\n\r\n"[..], b"\n\n"].iter().find(|end| rest.starts_with(end)).map(|end| at + end.len())
    })
}

/// The first line of a head, as far as it can be shown.
pub(crate) fn first_line(head: &[u8]) -> String {
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let shown = line.iter().take(80).filter(|byte| byte.is_ascii_graphic() || **byte == b' ');
    shown.map(|&byte| char::from(byte)).collect::<String>().trim_end().to_owned()
}

/// The only header of that name.
#[cfg(feature = "ws")]
pub(crate) fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    let mut found = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    let value = found.next()?.value;
    found.next().is_none().then_some(value)
}

/// One of the headers of that name has the token in its list.
#[cfg(feature = "ws")]
pub(crate) fn has_token(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name))
        .flat_map(|header| header.value.split(|&byte| byte == b','))
        .any(|value| value.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_ends_where_it_ends_however_it_is_cut() {
        let message = b"HTTP/1.1 200 Fine\r\nA: b\r\n\r\nrest";
        for size in 1..message.len() {
            let (mut near, far) = tokio::io::duplex(size);
            let writing = tokio::spawn(async move {
                let mut far = far;
                tokio::io::AsyncWriteExt::write_all(&mut far, message).await.unwrap();
            });
            let Head { head, mut rest } = read_head(&mut near, b"HTTP/").await.unwrap();
            near.read_to_end(&mut rest).await.unwrap();
            writing.await.unwrap();
            assert_eq!((head.len(), &rest[..]), (message.len() - 4, &b"rest"[..]), "cut at {size}");
            assert_eq!(first_line(&head), "HTTP/1.1 200 Fine");
        }
    }

    #[tokio::test]
    async fn a_head_has_a_limit_and_a_beginning() {
        let long = [b"HTTP/".to_vec(), vec![b'x'; 1 << 20]].concat();
        let error = read_head(&mut &long[..], b"HTTP/").await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = read_head(&mut &b"SSH-2.0"[..], b"HTTP/").await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = read_head(&mut &b"HTTP/1.1 200"[..], b"HTTP/").await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
