//! Keys from the making of them to bytes that come back, as a user has it.

mod common;

use common::{Running, fetch, pattern, run, text, through_pipes, turbotunnel};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A new key in a file; its public half.
    fn key(&self, name: &str) -> String {
        let output = run(&format!("keygen {}", self.path(name)));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    fn write(&self, name: &str, what: &str) -> String {
        std::fs::write(self.path(name), what).unwrap();
        self.path(name)
    }
}

/// A server with the options, and the link that it shows.
fn server(options: &str) -> (Running, String) {
    let server = Running::start(&format!("echo-server 127.0.0.1:0 {options}"));
    let line = server.line("clients: turbotunnel echo-client");
    let link = line.split('\'').nth(1).unwrap().to_owned();
    (server, link)
}

fn echo(args: &str) -> (i32, bool, String) {
    let sent = pattern(100_000);
    let output = through_pipes(turbotunnel(&format!("echo-client {args}")), sent.clone());
    (output.status.code().unwrap(), output.stdout == sent, text(&output.stderr))
}

#[test]
fn two_commands_and_one_link_are_an_encrypted_tunnel() {
    let folder = Folder::new();
    let (server, link) = server(&format!("--key {}", folder.path("server.key")));
    assert!(link.starts_with("turbotunnel://k"), "{link}");
    let (code, back, said) = echo(&link);
    assert_eq!((code, back), (0, true), "{said}");
    // Another way to say the same.
    let (key, at) = link["turbotunnel://".len()..].split_once('@').unwrap();
    assert_eq!(echo(&format!("{at} -k {key}")).0, 0);
    assert_eq!(echo(&format!("{at} -k {}", folder.write("server.pub", key))).0, 0);
    drop(server);
    // The key was made at the first start and stays.
    let again = Running::start(&format!("echo-server {at} --key {}", folder.path("server.key")));
    again.line("clients: ");
    assert_eq!(echo(&link).0, 0);
}

#[cfg(unix)]
/// Connections die after 30 to 90 kB, and with that handshakes and records are cut anywhere; by FIN and by RST.
#[test]
fn a_transfer_with_keys_through_connections_that_are_cut_is_intact() {
    let folder = Folder::new();
    let (_server, link) = server(&format!("--key {}", folder.path("server.key")));
    let (key, at) = link["turbotunnel://".len()..].split_once('@').unwrap();
    for how in ["fin", "rst"] {
        let cutter = Running::start(&format!("lilbastard --bytes 60kB --jitter 0.5 --how {how} {at} 127.0.0.1:0"));
        let sent = pattern(2_000_000);
        let client = turbotunnel(&format!("echo-client turbotunnel://{key}@{}", cutter.address()));
        let output = through_pipes(client, sent.clone());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{how}: {said}");
        assert!(output.stdout == sent, "{how}: {} bytes came back: {said}", output.stdout.len());
        assert!(said.matches(" lost after ").count() > 10, "{how}: {said}");
    }
}

#[test]
fn keygen_writes_a_file_for_its_owner_only_and_over_none() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new();
    let public = folder.key("own.key");
    assert_eq!((public.len(), &public[..1]), (47, "k"));
    let path = folder.path("own.key");
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    let again = run(&format!("keygen {path}"));
    assert_eq!((again.status.code(), text(&again.stdout)), (Some(2), String::new()));
    assert!(text(&again.stderr).contains("-f writes over it"), "{}", text(&again.stderr));
    assert_eq!(run(&format!("keygen -f {path}")).status.code(), Some(0));
    let shown = run("keygen -");
    assert!(text(&shown.stdout).contains("\nTURBOTUNNEL-SECRET-"));

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    for command in [format!("share h:1 --key {path}"), format!("echo-server 127.0.0.1:0 --key {path}")] {
        let refused = run(&command);
        assert_eq!(refused.status.code(), Some(2), "{command}");
        let said = text(&refused.stderr);
        assert!(said.contains("can be read or written by others (mode 644)") && said.contains("chmod 600"), "{said}");
    }
}

/// As the documents have it: `keygen ~/.config/turbotunnel/client.key` on a machine where nothing of this was before.
#[cfg(unix)]
#[test]
fn a_key_makes_the_folders_that_it_needs_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new();
    let mode = |name: &str| std::fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o777;
    folder.key("config/turbotunnel/client.key");
    assert_eq!((mode("config"), mode("config/turbotunnel")), (0o700, 0o700));
    assert_eq!(mode("config/turbotunnel/client.key"), 0o600);
    let (_server, link) = server(&format!("--key {}", folder.path("state/turbotunnel/server.key")));
    assert_eq!((mode("state/turbotunnel"), echo(&link).0), (0o700, 0));
    // Without --key it goes where the user's programs keep what they remember.
    let mut command = turbotunnel("server 127.0.0.1:0 --echo");
    command.env_remove("STATE_DIRECTORY").env("XDG_STATE_HOME", folder.path("own"));
    let server = Running::of(&mut command);
    server.line("clients: ");
    assert_eq!((mode("own/turbotunnel"), mode("own/turbotunnel/server.key")), (0o700, 0o600));

    let file = folder.write("file", "");
    let refused = run(&format!("keygen {file}/client.key"));
    let said = format!("error: cannot make the folder {file} for a key: ");
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).starts_with(&said), "{}", text(&refused.stderr));
    // Nobody else makes a key where one is missing that others have to know.
    let none = folder.path("none/old.key");
    for (command, tip) in [
        (format!("client h:1 -k {} --key {none} -L 0", folder.key("k")), format!("tip: turbotunnel keygen {none}")),
        (format!("server 127.0.0.1:0 --echo --key {} --key {none}", folder.path("k")), "tip: the first --key".into()),
    ] {
        let said = text(&run(&command).stderr);
        assert!(said.contains(&format!("error: cannot use the key file {none}: ")) && said.contains(&tip), "{said}");
    }
}

#[test]
fn share_makes_the_link_of_a_key_and_shows_it_to_cameras() {
    let folder = Folder::new();
    let key = folder.key("server.key");
    let share = |more: &str| {
        let output =
            run(&format!("share tunnel.example:443 [2001:db8::1]:8000 --key {} {more}", folder.path("server.key")));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let link = format!("turbotunnel://{key}@tunnel.example:443,[2001:db8::1]:8000");
    assert_eq!(share(""), format!("{link}\n"));
    assert_eq!(share("--name home"), format!("{link}#home\n"));
    let with_picture = share("--qr");
    assert!(with_picture.ends_with(&format!("\n{link}\n")) && with_picture.lines().count() > 20);
    let missing = run(&format!("share h:1 --key {}", folder.path("none")));
    assert_eq!(missing.status.code(), Some(2));
    let said = text(&missing.stderr);
    assert!(said.contains("tip: it has to be the key that the server has") && !said.contains("keygen"), "{said}");
}

#[test]
fn another_key_than_the_servers_is_5_and_says_what_it_may_be() {
    let folder = Folder::new();
    let (_server, link) = server(&format!("--key {}", folder.path("server.key")));
    let other = folder.key("other.key");
    let at = link.split_once('@').unwrap().1;
    let (code, _, said) = echo(&format!("turbotunnel://{other}@{at} --fail-fast"));
    assert_eq!(code, 5, "{said}");
    assert!(said.contains(&format!("error: no valid answer from tcp://{at}\n")), "{said}");
    assert!(said.contains("is the link old?"), "{said}");
}

#[cfg(unix)]
#[test]
fn clients_are_admitted_by_a_list_that_is_read_again() {
    let folder = Folder::new();
    let (ann, bob) = (folder.key("ann.key"), folder.key("bob.key"));
    let list = folder.write("clients", &format!("{ann} # Ann\n"));
    let (server, link) = server(&format!("--key {} --clients {list}", folder.path("server.key")));
    let of = |who: &str| echo(&format!("{link} --key {}", folder.path(who)));
    assert_eq!(of("ann.key").0, 0);
    let (code, _, said) = of("bob.key");
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("the server does not accept this client's key"), "{said}");
    assert_eq!(echo(&link).0, 5, "nobody in particular");

    folder.write("clients", "nonsense\n");
    server.signal("HUP");
    server.line("the list stays as it was");
    assert_eq!(of("ann.key").0, 0);
    folder.write("clients", &format!("# no Ann any more\n{bob}\n"));
    server.signal("HUP");
    server.line("clients read again");
    assert_eq!((of("ann.key").0, of("bob.key").0), (5, 0));
}

/// A certificate for localhost, and its key, which is nobody's secret.
#[cfg(unix)]
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIUPsbnpBaIevOQaMfCtcVSp1zXULIwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEzMDA4NDg0MFoYDzIxMjYxMTA2
MDg0ODQwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQAvCVc+hr2yalqRG6ZhqHaP83SuSr0csnX5LzcuKPzQUT/ncREua7z
n8+C+ykS7K6rXFs9yKUp0jlOcozLEz/Oo2kwZzAdBgNVHQ4EFgQUtNegJZJgAkUW
lPdATXFW5f+qsiUwHwYDVR0jBBgwFoAUtNegJZJgAkUWlPdATXFW5f+qsiUwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SAAwRQIgGU6D3XBUHop6YrQLNHqyLQP3cq0Jw9bKBWS8Bz2r6d4CIQDwYY1FJQmO
myu/mEBaU/5Rco0ChzMDDAI9nQMJTGAvcA==
-----END CERTIFICATE-----
";
#[cfg(unix)]
const CERTIFICATE_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQguKKmjO7xdkO3noSh
vk5/IUoU0BFxYhlNuYPhs3K4Y9ChRANCAAQAvCVc+hr2yalqRG6ZhqHaP83SuSr0
csnX5LzcuKPzQUT/ncREua7zn8+C+ykS7K6rXFs9yKUp0jlOcozLEz/O
-----END PRIVATE KEY-----
";

/// Whoever renews certificates and lists without looking on hears when one does not do: in a log that has errors only, too, and in the numbers.
#[cfg(unix)]
#[test]
fn a_reread_that_fails_is_a_warning_and_a_number() {
    let folder = Folder::new();
    let ann = folder.key("ann.key");
    let list = folder.write("clients", &ann);
    let (certificate, key) = (folder.write("tls.pem", CERTIFICATE), folder.write("tls.key", CERTIFICATE_KEY));
    let status = folder.path("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&status).unwrap();
    manager.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let options = format!(
        "tls://127.0.0.1:0 --key {} --clients {list} --tls-cert {certificate} --tls-key {key}",
        folder.path("server.key")
    );
    let mut quiet = turbotunnel(&format!("-q --log-format json echo-server {options}"));
    let quiet = Running::of(quiet.env("NOTIFY_SOCKET", &status));
    manager.recv(&mut [0; 1000]).unwrap();
    let server = Running::start(&format!("echo-server {options} --status 127.0.0.1:0"));
    let at = server.line("status on http://").split_once("http://").unwrap().1.to_owned();
    let failed = || {
        let numbers = fetch(&at, "metrics");
        let value = numbers.lines().find_map(|line| line.strip_prefix("turbotunnel_reload_failed "));
        value.unwrap_or_else(|| panic!("{numbers}")).to_owned()
    };
    assert_eq!(failed(), "0");
    let until = |value: &str| {
        let end = std::time::Instant::now() + common::PATIENCE;
        while failed() != value {
            assert!(std::time::Instant::now() < end, "it stays {}", failed());
        }
    };
    for (file, good, bad, kept, again) in [
        (&list, ann.as_str(), "nonsense\n", "the list stays as it was", "clients read again from "),
        (&certificate, CERTIFICATE, "no PEM\n", " keeps its certificate", "certificate read again from "),
    ] {
        std::fs::write(file, bad).unwrap();
        server.signal("HUP");
        server.line(kept);
        quiet.signal("HUP");
        let warning: serde_json::Value = serde_json::from_str(&quiet.line(kept)).unwrap();
        assert_eq!((&warning["level"], &warning["event"]), (&"warning".into(), &"reload_failed".into()), "{warning}");
        assert_eq!(&warning["file"], file, "{warning}");
        until("1");
        std::fs::write(file, good).unwrap();
        server.signal("HUP");
        server.line(&format!("{again}{file}"));
        until("0");
    }
}

#[test]
fn contradictions_are_usage() {
    let folder = Folder::new();
    let key = folder.key("own.key");
    for (args, told) in [
        (format!("echo-client turbotunnel://{key}@h:1 --plain"), "--plain, and a link"),
        (format!("echo-client h:1 --key {}", folder.path("own.key")), "no key for tcp://h:1"),
        (format!("echo-client h:1 -k {key} --plain"), "cannot be used with"),
        (format!("echo-client turbotunnel://{}@h:1", &key[..40]), "cut short"),
        ("echo-server 127.0.0.1:0 --clients x".to_owned(), "--key"),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args}");
        assert!(text(&output.stderr).contains(told), "{args}: {}", text(&output.stderr));
    }
}
