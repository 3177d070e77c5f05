//! What a service manager is told (systemd with `Type=notify`, or whoever else has given `NOTIFY_SOCKET`): ready, and on its way to the end.
//!
//! Without such a manager nothing is said. One that does not listen is no reason to fail: it says so itself if it waits for us.

/// Ports are taken: what is started after this finds them. `status` is one line for `systemctl status`.
pub(crate) fn ready(status: &str) {
    tell::ready(status);
}

/// The end has begun; it may take as long as `--drain`.
pub(crate) fn stopping() {
    tell::stopping();
}

#[cfg(unix)]
mod tell {
    use sd_notify::NotifyState::{Ready, Status, Stopping};

    pub(super) fn ready(status: &str) {
        let _ = sd_notify::notify(&[Ready, Status(status)]);
    }

    pub(super) fn stopping() {
        let _ = sd_notify::notify(&[Stopping, Status("ending")]);
    }
}

#[cfg(not(unix))]
mod tell {
    pub(super) fn ready(_status: &str) {}

    pub(super) fn stopping() {}
}
