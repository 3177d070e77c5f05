//! What is not built in is said to be missing, and addresses of it can be read all the same.

use turbotunnel_carriers::{Acceptor, Address, BindError, DialOptions, Dialer, ListenOptions, OptionsError};

#[tokio::test]
async fn kinds_that_are_not_here_say_so() {
    for text in ["h:1", "tls://h:1", "ws://h/", "wss://h/", "unix:/s", "exec:cat"] {
        let address: Address = text.parse().unwrap();
        let kind = address.kind();
        let made = Dialer::new(address, DialOptions::default()).map(|dialer| dialer.address().kind());
        let expected = if kind.is_here() { Ok(kind) } else { Err(OptionsError::NotHere(kind)) };
        assert_eq!(made, expected);
    }
    for text in ["tls://127.0.0.1:0", "ws://127.0.0.1:0/", "wss://127.0.0.1:0/"] {
        let address: turbotunnel_carriers::ListenAddress = text.parse().unwrap();
        let kind = address.kind();
        match Acceptor::bind(address, ListenOptions::default()).await {
            Ok(_) => assert!(kind.is_here() && !kind.has_tls()),
            Err(BindError::Options(OptionsError::NoCertificate(_))) => assert!(kind.is_here() && kind.has_tls()),
            Err(error) => assert_eq!(error.to_string(), format!("this version has no carriers of kind {kind}")),
        }
    }
}
