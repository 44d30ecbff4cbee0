//! What comes of a query, and whether somebody takes it.
//!
//! A reader that stalls, such as a browser's tab that sleeps, keeps places of hosts from everybody. So it is noticed, and
//! the query ends. Only what waits is unread: whoever listens to hosts that tell nothing has not stalled.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fleetward_protocol::name::HostName;
use fleetward_protocol::query::{Fields, Key};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::LONGEST;

/// How long whoever listens may take nothing while something waits.
const STALLED: Duration = Duration::from_secs(5 * 60);
/// How often it is looked at in that time.
const LOOKS: u32 = 10;

/// What comes of a query. Dropping it ends it, on every host.
#[derive(Debug)]
pub struct Answers {
    told: mpsc::Receiver<Answer>,
    reading: Arc<Reading>,
    /// The task that asks; it ends with this.
    _asking: JoinSet<()>,
}

/// Something that is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// What a host has.
    Items {
        /// The host.
        host: HostName,
        /// By key; an item takes the place of an earlier one of the same key.
        items: Vec<(Key, Fields)>,
    },
    /// What a host has no more.
    Gone {
        /// The host.
        host: HostName,
        /// The keys.
        keys: Vec<Key>,
    },
    /// How far a host has come.
    Host {
        /// The host.
        host: HostName,
        /// How far.
        state: State,
        /// Why no further, and what to do next.
        detail: Option<String>,
    },
    /// Nothing follows.
    End {
        /// How many hosts were asked, or should have been.
        hosts: u32,
        /// How many were left out because they are not enrolled.
        left_out: u32,
        /// How many of them told all there was, and did not break off later.
        answered: u32,
        /// Why it ended before all hosts did.
        cut: Option<Cut>,
    },
}

/// Why a query ended before its hosts did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It lasted as long as one may.
    Limit,
    /// Nobody took what was told.
    Unread,
}

impl Cut {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Unread => "unread",
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit => {
                write!(
                    f,
                    "a query lasts for {} hours at the most; ask again to go on",
                    LONGEST.as_secs() / 3600
                )
            }
            Self::Unread => write!(
                f,
                "nobody took what was told for about {} minutes, so the hosts were let go; ask again, and read on",
                STALLED.as_secs() / 60
            ),
        }
    }
}

/// How far a host has come with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All there is now was told; what follows are changes.
    Complete,
    /// The answer is whole.
    Ended,
    /// The host is not connected.
    Offline,
    /// The host will not answer, or may not be asked.
    Refused,
    /// The answer broke off.
    Failed,
}

impl Answers {
    pub(super) fn new(told: mpsc::Receiver<Answer>, reading: Arc<Reading>, asking: JoinSet<()>) -> Self {
        Self { told, reading, _asking: asking }
    }

    /// What is told next; `None` after the end.
    pub async fn next(&mut self) -> Option<Answer> {
        let told = self.told.recv().await;
        self.reading.took();
        told
    }

    /// Whoever listens took a part of what was told last, and has not taken so many other parts of it yet. Without this, it
    /// counts as taken when the next is asked for.
    pub fn took_part(&self, left: usize) {
        self.reading.held.store(left, Ordering::Relaxed);
        self.reading.took();
    }
}

/// Whether whoever listens takes what is told.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// How often something was taken.
    taken: AtomicU64,
    /// What was taken of the channel and waits for the reader.
    held: AtomicUsize,
}

impl Reading {
    fn took(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns when something has waited for about [`STALLED`] and nothing was taken.
    pub(super) async fn stalls(&self, tell: &mpsc::Sender<Answer>) {
        let (mut before, mut unchanged) = (self.taken.load(Ordering::Relaxed), 0);
        while unchanged < LOOKS {
            sleep(STALLED / LOOKS).await;
            let taken = self.taken.load(Ordering::Relaxed);
            let waits = self.held.load(Ordering::Relaxed) > 0 || tell.capacity() < tell.max_capacity();
            unchanged = if waits && taken == before { unchanged + 1 } else { 0 };
            before = taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn end() -> Answer {
        Answer::End { hosts: 0, left_out: 0, answered: 0, cut: None }
    }

    /// When a query whose reader does this has stalled, after its start.
    async fn stalled(reads: impl AsyncFnOnce(&mut Answers)) -> Duration {
        let (tell, told) = mpsc::channel(4);
        let reading = Arc::new(Reading::default());
        let mut answers = Answers::new(told, Arc::clone(&reading), JoinSet::new());
        let began = Instant::now();
        let telling = async {
            for _ in 0..200 {
                tell.send(end()).await.unwrap();
            }
        };
        tokio::select! {
            () = reading.stalls(&tell) => {}
            ((), ()) = async { tokio::join!(telling, reads(&mut answers)) } => {
                reading.stalls(&tell).await;
            }
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_has_stalled_after_five_minutes() {
        let found = stalled(async |_| std::future::pending().await).await;
        assert_eq!(found, STALLED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_and_quiet_hosts_are_no_stall() {
        // One in four minutes, for hours; then nothing is left, and then only a part of the last one.
        let slow = async |answers: &mut Answers| {
            for _ in 0..200 {
                sleep(Duration::from_secs(240)).await;
                answers.next().await.unwrap();
            }
            sleep(STALLED * 100).await;
            answers.took_part(1);
            std::future::pending().await
        };
        let found = stalled(slow).await;
        let expected = Duration::from_secs(240) * 200 + STALLED * 101;
        assert!(found >= expected && found <= expected + STALLED / LOOKS, "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_goes_on_with_parts_has_not_stalled() {
        let parts = async |answers: &mut Answers| {
            answers.next().await.unwrap();
            for left in (0..100).rev() {
                sleep(Duration::from_secs(240)).await;
                answers.took_part(left + 1);
            }
            std::future::pending().await
        };
        let found = stalled(parts).await;
        let expected = Duration::from_secs(240) * 100 + STALLED;
        assert!(found >= expected && found <= expected + STALLED / LOOKS, "{found:?}");
    }
}
