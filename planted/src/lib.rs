//! Mistakes that somebody might make, and the test that has to notice each.
//!
//! A test suite is as good as the mistakes that it finds. Here are some, by name: each is a piece of the source and what the mistake
//! makes of it, and the test that turns red. Nothing of it is compiled into the program. `cargo run -p turbotunnel-planted` plants them one at a
//! time in a copy of the tree and runs the tests; the tests of this crate see to it that each still fits the source and that its
//! test still exists, so that no change of the source lets one rot.

mod engines;
mod places;
mod sessions;

/// All of them.
pub fn faults() -> impl Iterator<Item = &'static Fault> + Clone {
    engines::FAULTS.iter().chain(sessions::FAULTS)
}

/// A mistake.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What somebody did, or forgot.
    pub name: &'static str,
    /// Where.
    pub file: &'static str,
    /// The right source. It stands there exactly once.
    pub right: &'static str,
    /// The wrong one.
    pub wrong: &'static str,
    /// Who notices.
    pub test: Test,
}

/// A test that has to turn red.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// The package.
    pub package: &'static str,
    /// The file of tests in its `tests` folder, without `.rs` (or the folder with a `main.rs`); `lib` for those beside the source.
    pub target: &'static str,
    /// The test, as `cargo test -- --exact` wants it.
    pub name: &'static str,
}

impl Fault {
    /// The file with the mistake in it.
    ///
    /// # Errors
    ///
    /// The right source does not stand in `text` exactly once.
    pub fn plant(&self, text: &str) -> Result<String, String> {
        match text.matches(self.right).count() {
            1 => Ok(text.replacen(self.right, self.wrong, 1)),
            count => Err(format!("\"{}\": its source stands {count} times in {}", self.name, self.file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    fn folder(package: &str) -> PathBuf {
        root().join(match package {
            "turbotunnel" => "crates/turbotunnel".to_owned(),
            "turbotunnel-interop" => "interop".to_owned(),
            "turbotunnel-cli" => "crates/turbotunnel-cli".to_owned(),
            other => format!("crates/{}", other.trim_start_matches("turbotunnel-")),
        })
    }

    #[test]
    fn every_fault_fits_the_source() {
        let misfits: Vec<_> = faults()
            .filter_map(|fault| {
                let text = fs::read_to_string(root().join(fault.file)).unwrap_or_default();
                fault.plant(&text).err()
            })
            .collect();
        assert!(misfits.is_empty(), "{}", misfits.join("\n"));
        assert!(faults().all(|fault| fault.right != fault.wrong));
    }

    #[test]
    fn every_test_that_has_to_notice_exists() {
        for Fault { name, test, .. } in faults() {
            let (module, function) = test.name.rsplit_once("::").unwrap_or(("main", test.name));
            if test.target == "lib" {
                let file = module.trim_end_matches("::tests").replace("::", "/");
                let read = |file: &str| fs::read_to_string(folder(test.package).join("src").join(file));
                let inside = read(&format!("{file}.rs")).unwrap_or_default();
                let text = inside + &read(&format!("{file}/tests.rs")).unwrap_or_default();
                assert!(text.contains(&format!("fn {function}(")), "\"{name}\": no test {}", test.name);
                continue;
            }
            let tests = folder(test.package).join("tests");
            let in_folder = tests.join(test.target).join(format!("{}.rs", module.replace("::", "/")));
            let text = fs::read_to_string(tests.join(format!("{}.rs", test.target)))
                .or_else(|_| fs::read_to_string(&in_folder))
                .unwrap_or_else(|error| panic!("\"{name}\": {}: {error}", in_folder.display()));
            assert!(text.contains(&format!("fn {function}(")), "\"{name}\": no test {} in {}", test.name, test.target);
        }
    }

    #[test]
    fn there_are_many_and_each_has_a_name_of_its_own() {
        let names: HashSet<_> = faults().map(|fault| fault.name).collect();
        assert_eq!(names.len(), faults().count());
        assert!(faults().count() >= 40, "{} faults", faults().count());
    }
}
