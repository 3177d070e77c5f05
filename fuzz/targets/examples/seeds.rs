//! Writes the inputs that fuzzing begins with: packets and byte streams recorded from Go programs (`testdata/vectors`), the vectors of `docs/wire.md`,
//! command lines of the README. `cargo run -p turbotunnel-fuzz-targets --example seeds -- FOLDER` writes them to `FOLDER/TARGET/`.
//!
//! How each target reads its input is told by its file; what is written here is the same backwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use turbotunnel::encapsulation::PacketBatch;

/// The conv of targets that have one.
const CONV: u32 = 0x1122_3344;

#[derive(Deserialize)]
struct Recording {
    sessions: Vec<Session>,
}

#[derive(Deserialize)]
struct Session {
    all_tcp_bytes_hex: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Transcripts {
    cases: Vec<Transcript>,
}

#[derive(Deserialize)]
struct Transcript {
    all_bytes_client_to_server_hex: String,
    all_bytes_server_to_client_hex: String,
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

struct Seeds {
    folder: PathBuf,
    written: BTreeMap<String, u32>,
}

impl Seeds {
    fn write(&mut self, target: &str, input: &[u8]) {
        let folder = self.folder.join(target);
        fs::create_dir_all(&folder).expect("a folder that can be written to");
        let number = self.written.entry(target.to_owned()).or_default();
        *number += 1;
        fs::write(folder.join(format!("recorded-{number}")), input).expect("a file that can be written");
    }
}

fn main() {
    let folder = std::env::args().nth(1).expect("the folder to write to");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = |path: &str| fs::read_to_string(root.join(path)).expect("a file of the repository");
    let mut seeds = Seeds { folder: folder.into(), written: BTreeMap::new() };

    let recording: Recording = serde_json::from_str(&text("testdata/vectors/turbotunnel-tcp.json")).expect("JSON");
    for session in &recording.sessions {
        for (name, bytes) in &session.all_tcp_bytes_hex {
            connection(&mut seeds, name.ends_with("client->server"), &hex(bytes));
        }
    }
    let transcripts: Transcripts = serde_json::from_str(&text("testdata/vectors/smux-transcripts.json")).expect("JSON");
    for case in &transcripts.cases {
        for (is_server, bytes) in
            [(true, &case.all_bytes_client_to_server_hex), (false, &case.all_bytes_server_to_client_hex)]
        {
            byte_stream(&mut seeds, is_server, &hex(bytes));
        }
    }
    for line in text("docs/wire.md").lines() {
        if let Some((_, bytes)) = line.strip_prefix("    vector ").and_then(|vector| vector.split_once(": ")) {
            seeds.write("control", &hex(bytes));
        }
    }
    let readme = text("README.md");
    let lines = readme.lines().filter_map(|line| line.split_once("$ turbotunnel ").map(|(_, words)| words));
    let more = ["demo --size 4MiB --time 5s --how fin,rst", "lilbastard --listen :80 --upstream [::1]:70 --jitter 0.5"];
    for words in lines.chain(more) {
        seeds.write("command_line", words.replace(' ', "\n").as_bytes());
    }
    for (target, count) in seeds.written {
        println!("{target}: {count} inputs");
    }
}

/// All bytes of one direction of a connection.
fn connection(seeds: &mut Seeds, is_up: bool, bytes: &[u8]) {
    // Three pieces in turn.
    let pieces = [3, 7, 200, 31];
    seeds.write("carrier_bytes", &[&[u8::from(!is_up)], &pieces[..], bytes].concat());
    let packets = if is_up { &bytes[8..] } else { bytes };
    seeds.write("encapsulation", &[&pieces[..], packets].concat());

    let mut batch = PacketBatch::new();
    batch.bytes_mut().extend_from_slice(packets);
    batch.cut_incomplete(&mut Vec::new()).expect("Go's packets are short");
    // Settings as they are, then operation 9 (bytes) and 15 (a short wait) for each packet.
    let mut input = vec![3, 3, 3, 0, 0];
    for packet in batch.packets().filter(|packet| packet.len() <= 255) {
        seeds.write("kcp_segments", &[packet, &[0; 4]].concat());
        input.extend_from_slice(&[9, packet.len() as u8]);
        input.extend_from_slice(&CONV.to_le_bytes());
        input.extend_from_slice(&packet[4..]);
        input.extend_from_slice(&[3, 9, 11, 9, 15, 20]);
    }
    seeds.write("kcp_input", &input);
}

/// All bytes of one direction inside KCP.
fn byte_stream(seeds: &mut Seeds, is_server: bool, bytes: &[u8]) {
    let version = u8::from(bytes.first() == Some(&1));
    // Pieces of 5, settings as they are, then operation 10 (bytes), 12 (accept) and 16 (read).
    let mut input = vec![1, 5, version, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, u8::from(!is_server)];
    for piece in bytes.chunks(250).take(8) {
        input.extend_from_slice(&[10, piece.len() as u8]);
        input.extend_from_slice(piece);
        input.extend_from_slice(&[12, 16, 0, 100, 0]);
    }
    seeds.write("smux_input", &input);
}
