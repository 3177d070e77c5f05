//! The memory of all sessions of a server together.
//!
//! Each session's driver keeps an [`Account`]: what the session has allocated, as of its last turn. From nine tenths of the limit on memory is *scarce*: no
//! new sessions, and none gets more than a session may hold at first. At the limit those that have stood still for longest go, until it is scarce
//! no more; which they are is the listener's business. A client with a key has a budget within that: from nine tenths of it on memory is scarce for his sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a session costs that holds nothing: its engines, its task, its places in tables. Measured: 4 to 8 KiB.
const SESSION: usize = 8 << 10;

/// A session that holds less is no burden: nothing is gained by its end, and scarcity does not hold it back.
pub(crate) const MUCH: usize = 64 << 10;

/// See the [module](self).
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Where memory begins to be scarce.
    pub(crate) fn scarce_from(&self) -> usize {
        self.limit - self.limit / 10
    }

    pub(crate) fn is_scarce(&self) -> bool {
        self.used() >= self.scarce_from()
    }

    fn is_used_up(&self) -> bool {
        self.used() >= self.limit
    }
}

/// What one session has allocated.
pub(crate) struct Account {
    budget: Arc<Budget>,
    of_client: Option<Arc<Budget>>,
    on_used_up: Box<dyn Fn() + Send>,
    charged: usize,
    /// As it was told last.
    scarce: bool,
}

impl Account {
    pub(crate) fn new(
        budget: Arc<Budget>,
        of_client: Option<Arc<Budget>>,
        on_used_up: impl Fn() + Send + 'static,
    ) -> Self {
        let mut account = Self { budget, of_client, on_used_up: Box::new(on_used_up), charged: 0, scarce: false };
        account.change_to(SESSION);
        account
    }

    fn change_to(&mut self, bytes: usize) {
        for budget in std::iter::once(&self.budget).chain(&self.of_client) {
            if bytes > self.charged {
                budget.used.fetch_add(bytes - self.charged, Ordering::Relaxed);
            } else {
                budget.used.fetch_sub(self.charged - bytes, Ordering::Relaxed);
            }
        }
        self.charged = bytes;
    }

    /// It has so much now. Tells whether memory is scarce, if that is news.
    pub(crate) fn charge(&mut self, bytes: usize) -> Option<bool> {
        self.change_to(bytes.saturating_add(SESSION));
        let scarce = self.budget.is_scarce() || self.of_client.as_ref().is_some_and(|budget| budget.is_scarce());
        (scarce != std::mem::replace(&mut self.scarce, scarce)).then_some(scarce)
    }

    pub(crate) fn is_scarce(&self) -> bool {
        self.scarce
    }

    /// To be called without a lock of the session: it may have to go itself.
    pub(crate) fn tell_if_used_up(&self) {
        if self.budget.is_used_up() {
            (self.on_used_up)();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.change_to(0);
    }
}

/// Half of the memory that this process may use, 2 GiB at most; 1 GiB if the system does not tell.
pub(crate) fn default_limit() -> usize {
    let read = |path| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").as_deref().and_then(machine_memory);
    let group = read("/sys/fs/cgroup/memory.max").and_then(|max| max.trim().parse().ok());
    machine.into_iter().chain(group).min().map_or(1 << 30, |bytes: usize| (bytes / 2).min(2 << 30))
}

fn machine_memory(meminfo: &str) -> Option<usize> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged_is_given_back() {
        let budget = Budget::new(100 * SESSION);
        let told = Arc::new(AtomicUsize::new(0));
        let tell = || {
            let told = told.clone();
            move || {
                told.fetch_add(1, Ordering::Relaxed);
            }
        };
        let mut accounts: Vec<_> = (0..10).map(|_| Account::new(budget.clone(), None, tell())).collect();
        assert_eq!(budget.used(), 10 * SESSION);
        assert_eq!(accounts[0].charge(79 * SESSION), None);
        assert_eq!(accounts[1].charge(SESSION), Some(true));
        assert_eq!(accounts[1].charge(SESSION), None, "no news");
        accounts[1].tell_if_used_up();
        assert_eq!(told.load(Ordering::Relaxed), 0);
        assert_eq!(accounts[0].charge(89 * SESSION), Some(true));
        accounts[1].tell_if_used_up();
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert_eq!(accounts[0].charge(0), Some(false));
        assert_eq!(budget.used(), 11 * SESSION);
        drop(accounts);
        assert_eq!(budget.used(), 0);
    }

    /// One client's session holds much: it is scarce for his, and plenty for another's.
    #[test]
    fn a_client_has_a_budget_within_the_budget() {
        let (all, one, other) = (Budget::new(1000 * SESSION), Budget::new(100 * SESSION), Budget::new(100 * SESSION));
        let mut accounts = [&one, &one, &other].map(|of| Account::new(all.clone(), Some(of.clone()), || {}));
        assert_eq!(accounts[0].charge(89 * SESSION), Some(true));
        assert_eq!((accounts[1].charge(SESSION), accounts[2].charge(SESSION)), (Some(true), None));
        assert_eq!(accounts[0].charge(0), Some(false));
        assert_eq!((all.used(), one.used(), other.used()), (5 * SESSION, 3 * SESSION, 2 * SESSION));
        drop(accounts);
        assert_eq!((all.used(), one.used(), other.used()), (0, 0, 0));
    }

    #[test]
    fn the_systems_memory_is_read() {
        assert_eq!(machine_memory("MemTotal:       24676668 kB\nMemFree: 1 kB\n"), Some(24_676_668 * 1024));
        assert_eq!(machine_memory(""), None);
        assert!(default_limit() > 1 << 20);
    }
}
