//! Answers that last: they end with the login that asked for them, and with the controller.
//!
//! Ends that this process makes (logout, an ended login, a changed password) are announced and end the answer at once;
//! so does the login's own end in time. Ends that another process makes in the database (`fleetward-controller user
//! reset-password`) are found within ten seconds.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::http::StatusCode;
use fleetward_app::people::access::Caller;
use fleetward_app::people::ending::LoginEnd;
use fleetward_domain::people::permission::Permission;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::Site;
use super::caller::Credential;
use super::error::ApiError;

/// How often a login is looked at again, whatever is announced.
const RECHECK: Duration = Duration::from_secs(10);

/// How long an answer's client may take nothing while something waits for it.
const STALLED: Duration = Duration::from_secs(5 * 60);

/// What becomes of an answer whose client takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It waits with its login: little is kept for it, or what makes it looks after that itself.
    Waits,
    /// It ends after about five minutes, and with it what is kept for it: its client can go on where it stopped.
    Ends,
}

/// The login and the permission that an answer lasts for.
#[derive(Debug)]
pub(super) struct Lasting {
    pub(super) caller: Caller,
    pub(super) credential: Credential,
    pub(super) permission: Permission,
}

/// The login or the controller ended before an answer did.
#[derive(Debug, thiserror::Error)]
#[error("the login or the controller ended")]
pub(super) struct Cut;

impl From<Cut> for io::Error {
    fn from(cut: Cut) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, cut)
    }
}

impl Lasting {
    /// Returns when the controller stops, or the login or its permission is no longer good. Listens from the call on.
    fn end(self, site: Site) -> impl Future<Output = ()> + Send + 'static {
        let mut endings = site.app.endings().watch(self.caller.session, self.caller.user);
        async move {
            // It may have ended between the request's own look and the call.
            let mut recheck = Some(Duration::ZERO);
            while let Some(wait) = recheck {
                tokio::select! {
                    biased;
                    () = site.stopping.cancelled() => return,
                    heard = endings.heard() => match heard {
                        LoginEnd::Ended => return,
                        LoginEnd::Perhaps => {}
                    },
                    () = tokio::time::sleep(wait) => {}
                }
                recheck = self.recheck(&site).await;
            }
        }
    }

    /// `items`, until they or the login end. What the login's end cuts off is an error, so that no client takes a part
    /// for the whole.
    ///
    /// The items are made in a task of its own, one ahead of the client, and the login is looked at there. An answer's
    /// body is polled only while its client takes something: a query that waited there for a client that stopped reading
    /// would keep one of the store's few connections from everybody.
    pub(super) fn cut<T: Send + 'static>(
        self,
        site: Site,
        items: impl Stream<Item = T> + Send + 'static,
        unread: Unread,
    ) -> impl Stream<Item = Result<T, Cut>> + Send + 'static {
        let (ahead, taken) = mpsc::channel(1);
        let end = self.end(site);
        let making = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = end => {}
                () = forward(items, ahead, unread) => {}
            }
        });
        // The task goes with the answer: it is part of what is dropped when the client has gone.
        let start = Some((taken, AbortOnDropHandle::new(making)));
        futures_util::stream::unfold(start, |state| async move {
            let (mut taken, making) = state?;
            match taken.recv().await {
                Some(Some(item)) => Some((Ok(item), Some((taken, making)))),
                Some(None) => None,
                None => Some((Err(Cut), None)),
            }
        })
    }

    /// When to look again; `None` if the login or its permission is no longer good. While that cannot be found out they
    /// count as good: an answer need not end because the database is busy.
    async fn recheck(&self, site: &Site) -> Option<Duration> {
        let caller = match self.credential.authenticate(site, self.caller.remote).await {
            Ok(caller) => caller,
            Err(error) if error.status() == StatusCode::UNAUTHORIZED => return None,
            Err(ApiError { .. }) => return Some(RECHECK),
        };
        let left = caller.ends_at.map_or(RECHECK, |end| end.since(site.app.now()));
        caller.granted(self.permission).ok()?;
        Some(left.clamp(Duration::from_millis(1), RECHECK))
    }
}

/// Sends the items, and `None` after the last one; nothing more once nobody takes them.
async fn forward<T>(items: impl Stream<Item = T>, ahead: mpsc::Sender<Option<T>>, unread: Unread) {
    let mut items = pin!(items);
    loop {
        let item = items.next().await;
        let last = item.is_none();
        let sent = match unread {
            Unread::Waits => ahead.send(item).await.is_ok(),
            Unread::Ends => ahead.send_timeout(item, STALLED).await.is_ok(),
        };
        if !sent || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::repeat;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_on_is_given_up_and_a_slow_reader_is_not() {
        let (ahead, mut taken) = mpsc::channel(1);
        let began = Instant::now();
        let reads = async {
            for _ in 0..100 {
                tokio::time::sleep(STALLED - Duration::from_secs(1)).await;
                taken.recv().await.unwrap();
            }
            began.elapsed()
        };
        let ((), read) = tokio::join!(forward(repeat(7), ahead, Unread::Ends), reads);
        assert_eq!(began.elapsed(), read + STALLED);
        let (ahead, _taken) = mpsc::channel(1);
        let waits = tokio::time::timeout(STALLED * 100, forward(repeat(7), ahead, Unread::Waits));
        assert!(waits.await.is_err());
    }
}
