//! `keygen`: a new key in a file, and its public half on stdout.

use std::path::Path;

use crate::args::KeygenArgs;
use crate::failure::Failure;
use crate::keys;

pub(super) fn run(args: &KeygenArgs) -> Result<(), Failure> {
    let key = keys::generate()?;
    if args.file == Path::new("-") {
        return super::print(&format!("# public key: {}\n{}\n", key.public(), *key.to_secret_text()));
    }
    keys::write_new(&args.file, &key, args.force)?;
    super::print(&format!("{}\n", key.public()))
}
