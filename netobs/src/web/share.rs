//! What strangers can make the agent compute, kept to a share of one CPU.
//!
//! Passwords and TLS handshakes cost milliseconds of CPU time before anything is known about the
//! client. Such work is done one piece at a time, in the order of arrival, on a thread of its own:
//! the thread that looks at the kernel and answers requests never does any of it. After each piece,
//! four times as long as its CPU time nothing is done.

use std::{sync::Arc, time::Duration};

use nix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::{JoinError, spawn_blocking},
    time::{Instant, sleep_until},
};

/// Rest after a piece of work, in multiples of its CPU time: a fifth of one CPU is left to it.
const REST: u32 = 4;

/// A fifth of one CPU, for one kind of work.
#[derive(Debug)]
pub(super) struct Share(Arc<Mutex<Rest>>);

/// Until when nothing is done.
#[derive(Debug)]
struct Rest {
    until: Instant,
}

impl Rest {
    fn follow(&mut self, now: Instant, cost: Duration) {
        self.until = now + cost.saturating_mul(REST);
    }
}

/// The right to do one piece of work.
#[derive(Debug)]
pub(super) struct Turn(OwnedMutexGuard<Rest>);

impl Share {
    pub(super) fn new() -> Self {
        let until = Instant::now();
        Self(Arc::new(Mutex::new(Rest { until })))
    }

    /// Waits until those who came before have had their turn.
    pub(super) async fn turn(&self) -> Turn {
        Turn(Arc::clone(&self.0).lock_owned().await)
    }
}

impl Turn {
    /// Waits for the rest after the last piece to be over, and does this one on a thread that may
    /// block. Once begun it is brought to its end, and counts, also when nobody waits for it any
    /// more.
    ///
    /// # Errors
    /// When `work` panics, or the runtime ends.
    pub(super) async fn spend<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let Self(mut rest) = self;
        sleep_until(rest.until).await;
        let worked = spawn_blocking(move || {
            let before = cpu_time();
            let outcome = work();
            rest.follow(Instant::now(), cpu_time().saturating_sub(before));
            outcome
        });
        worked.await
    }
}

/// CPU time of this thread: a thread that waits for a CPU owes nothing for it.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;
    use crate::web::tests::block_on;

    #[test]
    fn work_leaves_four_fifths_of_a_cpu() {
        let now = Instant::now();
        let mut rest = Rest { until: now };
        rest.follow(now, Duration::from_millis(70));
        assert_eq!(rest.until - now, Duration::from_millis(280));
        // Cheap work after dear work does not make the rest longer.
        rest.follow(now, Duration::ZERO);
        assert_eq!(rest.until, now);
    }

    #[test]
    fn one_at_a_time_elsewhere_and_in_order() {
        let inside = Arc::new(AtomicUsize::new(0));
        let here = thread::current().id();
        let order = block_on(async {
            let share = Arc::new(Share::new());
            let order = Arc::new(std::sync::Mutex::new(Vec::new()));
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..20 {
                let (share, inside) = (Arc::clone(&share), Arc::clone(&inside));
                let order = Arc::clone(&order);
                tasks.spawn(async move {
                    let work = move || {
                        assert_ne!(thread::current().id(), here);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        for _ in 0..100 {
                            thread::yield_now();
                        }
                        inside.fetch_sub(1, Ordering::SeqCst);
                        order.lock().unwrap().push(n);
                    };
                    share.turn().await.spend(work).await.unwrap();
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
            Arc::into_inner(order).unwrap().into_inner().unwrap()
        });
        assert_eq!(order, (0..20).collect::<Vec<_>>());
    }

    /// A client that leaves while its password is being checked does not shorten the rest.
    #[test]
    fn what_nobody_waits_for_still_counts() {
        block_on(async {
            let share = Share::new();
            let turn = share.turn().await;
            let (begun, has_begun) = std::sync::mpsc::channel();
            let (end, may_end) = std::sync::mpsc::channel();
            let spending = tokio::spawn(turn.spend(move || {
                begun.send(()).unwrap();
                may_end.recv().unwrap();
                let start = cpu_time();
                while cpu_time() - start < Duration::from_millis(2) {
                    std::hint::spin_loop();
                }
            }));
            tokio::task::yield_now().await;
            while has_begun.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            spending.abort();
            assert!(spending.await.unwrap_err().is_cancelled());
            assert!(share.0.try_lock().is_err(), "it still has the turn");
            let ended = Instant::now();
            end.send(()).unwrap();
            let next = share.turn().await;
            assert!(next.0.until >= ended + Duration::from_millis(8));
        });
    }
}
