//! How many files and connections this process may have open.

/// The soft limit (`ulimit -n`), where the system tells it in a file, as Linux does. `None`: not known, or there is none.
///
/// `getrlimit` is not in the standard library, and calling it is `unsafe`. Where it is not known connections are limited by number only, and an
/// accept that fails pauses.
pub(super) fn limit() -> Option<usize> {
    parse(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

fn parse(limits: &str) -> Option<usize> {
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    open_files.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_soft_limit_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             63444                63444                processes \n\
                      Max open files            1024                 1048576              files     \n";
        assert_eq!(parse(limits), Some(1024));
        assert_eq!(parse(&limits.replace("1024  ", "unlimited")), None);
        assert_eq!(parse(""), None);
    }
}
