//! `share`: one string to hand on, and the same as a picture for a camera.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use turbotunnel::secure::{Link, ParseLinkError};

use crate::address;
use crate::args::ShareArgs;
use crate::failure::{Exit, Failure};
use crate::keys;

/// Not "make one": a link with a new key would lead to no server.
const NO_KEY: &str = "it has to be the key that the server has: what it was given as --key, or else ~/.local/state/turbotunnel/server.key;\n\
    under systemd /var/lib/turbotunnel/server.key";

pub(super) fn run(args: &ShareArgs) -> Result<(), Failure> {
    let key = keys::known_key(&args.key, NO_KEY)?.public();
    let address = |at: &String| match at.split_once(':') {
        // What a link has no place for, it says itself.
        Some((_, rest)) if rest.starts_with("//") => keys::carrier(at).map(|at| at.to_string()),
        _ => address::server(at),
    };
    let addresses: Vec<_> = args.servers.iter().map(address).collect::<Result<_, _>>()?;
    let usage = |error: ParseLinkError| Failure::new(Exit::Usage, error.to_string());
    let link = Link::new(key, addresses).map_err(usage)?;
    let link = link.with_name(args.name.as_deref().unwrap_or_default()).map_err(usage)?.to_string();
    let picture = if args.qr { picture(&link)? } else { String::new() };
    super::print(&format!("{picture}{link}\n"))
}

/// Light on dark, as terminals are; cameras take it either way round.
fn picture(text: &str) -> Result<String, Failure> {
    let code = QrCode::new(text)
        .map_err(|error| Failure::new(Exit::Usage, format!("the link is too long for a QR code: {error}")))?;
    let lines = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    Ok(format!("{lines}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_size_of_its_text() {
        let small = picture("turbotunnel://").unwrap();
        let lines: Vec<_> = small.lines().collect();
        // 21 modules, four of margin on each side, two to a character from top to bottom.
        assert_eq!(lines.len(), 15);
        assert!(lines.iter().all(|line| line.chars().count() == 29));
        assert!(picture(&"x".repeat(3000)).is_err());
    }
}
