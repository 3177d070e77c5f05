//! Plants faults one at a time and expects the named test to notice.
//!
//! ```text
//! turbotunnel-planted              all of them
//! turbotunnel-planted some 10      ten, others each day
//! turbotunnel-planted una token    those with one of these words in their name
//! turbotunnel-planted list         their names
//! ```
//!
//! It works in a copy of the tree under `target/planted`, so a run that is broken off leaves nothing in the source.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use turbotunnel_planted::{Fault, Test, faults};

/// A test that takes longer hangs. (Most take a second.)
const PATIENCE: Duration = Duration::from_secs(90);

/// What a build may take.
const BUILD_PATIENCE: Duration = Duration::from_secs(600);

/// Address space of a test, KiB: some faults make memory grow without end, and the machine is not theirs.
const MEMORY: &str = "4194304";

/// What became of a planted fault.
enum Verdict {
    /// The test is red, or comes to no end.
    Noticed,
    /// The test is green all the same.
    Missed,
    /// The faulty source does not compile, or the test cannot be run.
    Broken(String),
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let chosen = match choose(&words) {
        Ok(chosen) => chosen,
        Err(text) => {
            println!("{text}");
            return ExitCode::from(if words == ["list"] { 0 } else { 2 });
        }
    };
    match plant_all(&chosen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn choose(words: &[&str]) -> Result<Vec<&'static Fault>, String> {
    match words {
        [] => Ok(faults().collect()),
        ["list"] => Err(faults().map(|fault| fault.name).collect::<Vec<_>>().join("\n")),
        ["some", count] => {
            let count: usize = count.parse().map_err(|_| format!("\"{count}\" is not a number"))?;
            let day = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() / 86_400);
            let first = usize::try_from(day).unwrap_or(0).wrapping_mul(count) % faults().count();
            Ok(faults().cycle().skip(first).take(count.min(faults().count())).collect())
        }
        words => {
            let chosen: Vec<_> = faults().filter(|fault| words.iter().any(|word| fault.name.contains(word))).collect();
            if chosen.is_empty() { Err(format!("no fault has {words:?} in its name")) } else { Ok(chosen) }
        }
    }
}

fn plant_all(chosen: &[&Fault]) -> io::Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let garden = Garden::new(&root)?;
    let (mut bad, began) = (Vec::new(), Instant::now());
    for fault in chosen {
        let started = Instant::now();
        let verdict = garden.try_fault(fault)?;
        let seconds = started.elapsed().as_secs();
        match verdict {
            Verdict::Noticed => println!("noticed  {:60} {seconds:3} s  {}", fault.name, fault.test.name),
            Verdict::Missed => {
                println!("MISSED   {:60} {seconds:3} s  {} is green", fault.name, fault.test.name);
                bad.push(fault.name);
            }
            Verdict::Broken(why) => {
                println!("BROKEN   {:60} {seconds:3} s\n{why}", fault.name);
                bad.push(fault.name);
            }
        }
    }
    println!("{} of {} noticed, {} s", chosen.len() - bad.len(), chosen.len(), began.elapsed().as_secs());
    Ok(bad.is_empty())
}

/// The copy of the tree.
struct Garden {
    root: PathBuf,
    tree: PathBuf,
    target: PathBuf,
}

impl Garden {
    fn new(root: &Path) -> io::Result<Self> {
        let base = root.join("target/planted");
        let garden = Self { root: root.to_owned(), tree: base.join("tree"), target: base.join("target") };
        fs::create_dir_all(&garden.tree)?;
        // Only what has changed, so that the build goes on where the last one ended. Nothing hidden, and nothing built.
        for entry in fs::read_dir(root)? {
            let name = entry?.file_name();
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                copy_changed(&root.join(&name), &garden.tree.join(&name))?;
            }
        }
        Ok(garden)
    }

    fn try_fault(&self, fault: &Fault) -> io::Result<Verdict> {
        let right = fs::read_to_string(self.root.join(fault.file))?;
        let wrong = match fault.plant(&right) {
            Ok(wrong) => wrong,
            Err(why) => return Ok(Verdict::Broken(why)),
        };
        let place = self.tree.join(fault.file);
        fs::write(&place, wrong)?;
        let verdict = self.run(&fault.test);
        fs::write(&place, right)?;
        verdict
    }

    /// Whether that went well (`None`: it came to no end), and what was said.
    fn cargo(&self, test: &Test, more: &[&str]) -> io::Result<(Option<bool>, String)> {
        // A build may take what it needs.
        let (limit, patience) = if more.contains(&"--no-run") { ("", BUILD_PATIENCE) } else { (MEMORY, PATIENCE) };
        // `timeout` ends cargo and the test, which is cargo's child, with all that they started.
        let mut cargo = Command::new("timeout");
        cargo.args(["--signal=KILL", &patience.as_secs().to_string()]);
        cargo.args(["sh", "-c", "[ -z \"$0\" ] || ulimit -v \"$0\"; exec \"$@\"", limit]);
        cargo.arg(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target).env_remove("SIM_SEED");
        cargo.args(["test", "--quiet", "--offline", "--package", test.package]);
        if test.package == "turbotunnel" {
            cargo.args(["--features", "secure"]);
        }
        if test.target == "lib" {
            cargo.arg("--lib")
        } else {
            cargo.args(["--test", test.target])
        };
        cargo.args(more);
        // Into a file: somebody has to read a pipe.
        let log = self.target.join("planted.log");
        fs::create_dir_all(&self.target)?;
        let file = fs::File::create(&log)?;
        let began = Instant::now();
        let status = cargo.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).status()?;
        let ended = began.elapsed() < patience;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        Ok((ended.then_some(status.success()), text))
    }

    fn run(&self, test: &Test) -> io::Result<Verdict> {
        let (built, text) = self.cargo(test, &["--no-run"])?;
        if built != Some(true) {
            return Ok(Verdict::Broken(text));
        }
        let (green, text) = self.cargo(test, &["--", "--exact", test.name])?;
        // "Red" has to be the test's own verdict, and "green" that of a test that ran.
        Ok(if green.is_none() || text.contains("1 failed") || text.contains("signal:") {
            Verdict::Noticed
        } else if green == Some(true) && text.contains("1 passed") {
            Verdict::Missed
        } else {
            Verdict::Broken(text)
        })
    }
}

fn copy_changed(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_name() != "target" {
                copy_changed(&entry.path(), &to.join(entry.file_name()))?;
            }
        }
        // What is gone from the source is gone from the copy.
        for entry in fs::read_dir(to)? {
            let entry = entry?;
            if !from.join(entry.file_name()).exists() {
                let path = entry.path();
                if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        return Ok(());
    }
    if fs::read(from)? != fs::read(to).unwrap_or_default() || !to.exists() {
        fs::copy(from, to)?;
    }
    Ok(())
}
