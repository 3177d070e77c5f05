//! A transfer through a client's pipes.

use std::io::{self, Read, Write};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use turbotunnel_sim::Way;
use turbotunnel_sim::pattern::Pattern;

use crate::stage::Running;

/// Bytes on their way through a client's pipes.
pub(crate) struct Transfer {
    bytes: u64,
    reading: JoinHandle<u64>,
}

impl Transfer {
    /// Output is taken slowly for so long as `slow`.
    pub(crate) fn begin(client: &mut Running, bytes: u64, slow: Duration) -> io::Result<Self> {
        let mut stdin = client.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut stdout = client.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let pattern = Pattern::new(1, 3, Way::Up);
        thread::spawn(move || {
            let mut piece = vec![0; 64 << 10];
            for n in 0..bytes >> 16 {
                pattern.fill(n << 16, &mut piece);
                if stdin.write_all(&piece).is_err() {
                    return;
                }
            }
        });
        let reading = thread::spawn(move || {
            let (mut good, mut piece, began) = (0, vec![0; 64 << 10], Instant::now());
            while let Ok(n @ 1..) = stdout.read(&mut piece) {
                if pattern.first_wrong(good, &piece[..n]).is_some() {
                    return 0;
                }
                good += n as u64;
                if began.elapsed() < slow {
                    thread::sleep(Duration::from_millis(60));
                }
            }
            good
        });
        Ok(Self { bytes, reading })
    }

    /// Percent that came back, if the client then says that all is well.
    pub(crate) fn end(self, client: &mut Running) -> f64 {
        if client.end(Duration::from_secs(30)) != Some(0) {
            client.kill();
            return 0.0;
        }
        self.reading.join().map_or(0.0, |good| good as f64 / self.bytes as f64 * 100.0)
    }
}
