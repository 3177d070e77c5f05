//! Any text is read as a public key, a secret key, the file of one, and a link.
//!
//! Held to: what is understood means the same when it is written and read again; one kind of key is never taken for the other; what is refused is refused with words, and those do not
//! tell a secret.

use std::str::FromStr;

use turbotunnel::fuzzing::parse_key_file;
use turbotunnel::secure::{Link, PublicKey, StaticKey};

/// See the [module](self).
pub fn run(data: &[u8]) {
    match parse_key_file(data) {
        Ok(key) => check_secret(&key),
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let public = PublicKey::from_str(text);
    match StaticKey::from_secret_text(text) {
        Ok(key) => {
            assert!(public.is_err(), "a secret key was taken for a public one");
            check_secret(&key);
            assert_eq!(parse_key_file(text.as_bytes()).map(|key| key.public()).ok(), Some(key.public()));
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
    match public {
        Ok(key) => {
            assert_eq!(key.to_string(), text, "there are two ways to write one key");
            check_link(&Link::new(key, ["host:1"]).expect("an address"));
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
    match Link::from_str(text) {
        Ok(link) => check_link(&link),
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}

fn check_secret(key: &StaticKey) {
    let text = key.to_secret_text();
    let again = StaticKey::from_secret_text(&text).expect("what we write");
    assert_eq!((again.public(), again.secret_bytes()), (key.public(), key.secret_bytes()));
    assert!(PublicKey::from_str(&text).is_err());
}

fn check_link(link: &Link) {
    assert!((1..=16).contains(&link.addresses().len()));
    assert!(link.name().is_none_or(|name| !name.is_empty() && name.len() <= 100 && !name.contains('\n')));
    let text = link.to_string();
    assert_eq!(Link::from_str(&text).as_ref(), Ok(link), "read again");
    assert!(text.chars().all(|char| !char.is_control() && char != ' '), "{text:?} cannot be handed on");
}
