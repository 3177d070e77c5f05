//! Every input that fuzzing has kept is played again, without cargo-fuzz.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use turbotunnel_fuzz_targets::{Run, TARGETS};

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

/// Name and content, in the order of the names.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = corpus().join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a readable file"))).collect()
}

fn replay(target: &str, run: Run) {
    let inputs = inputs(target);
    assert!(!inputs.is_empty(), "{target} has no corpus");
    for (path, data) in &inputs {
        if catch_unwind(|| run(data)).is_err() {
            panic!("{target}: {} breaks a promise; FUZZ_TELL=1 shows what it does", path.display());
        }
    }
    println!("{target}: {} inputs", inputs.len());
}

#[test]
fn there_is_a_folder_for_every_target_and_a_target_for_every_folder() {
    let folders = fs::read_dir(corpus()).expect("there is a corpus");
    let folders: BTreeSet<_> = folders.map(|folder| folder.expect("readable").file_name()).collect();
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(folders, targets);
}

/// `FUZZ_INPUT=FILE FUZZ_TARGET=NAME` plays this one instead.
#[test]
fn every_input_keeps_its_promises() {
    let of_target = |name: &str| TARGETS.into_iter().find(|(target, _)| *target == name).expect("a target");
    if let (Ok(target), Some(input)) = (std::env::var("FUZZ_TARGET"), std::env::var_os("FUZZ_INPUT")) {
        return of_target(&target).1(&fs::read(input).expect("a readable file"));
    }
    for (target, run) in TARGETS {
        replay(target, run);
    }
}
