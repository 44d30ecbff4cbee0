//! Answers that last: they end with the login that asked for them, and with the controller.
//!
//! Ends that this process makes (logout, an ended login, a changed password) are announced and end the answer at once;
//! so does the login's own end in time. Ends that another process makes in the database (`fleetward-controller user
//! reset-password`) are found within ten seconds.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use fleetward_domain::permission::Permission;
use futures_util::{Stream, StreamExt as _};

use super::Site;
use super::caller::Credential;
use super::error::ApiError;
use crate::app::access::Caller;
use crate::app::ending::Heard;

/// How often a login is looked at again, whatever is announced.
const RECHECK: Duration = Duration::from_secs(10);

/// The login and the permission that an answer lasts for.
#[derive(Debug)]
pub(super) struct Lasting {
    pub(super) caller: Caller,
    pub(super) credential: Credential,
    pub(super) permission: Permission,
}

impl Lasting {
    /// Returns when the controller stops, or the login or its permission is no longer good. Listens from the call on.
    pub(super) fn end(self, site: Site) -> impl Future<Output = ()> + Send + 'static {
        let mut endings = site.app.endings().watch(self.caller.session, self.caller.user);
        async move {
            // It may have ended between the request's own look and the call.
            let mut recheck = Some(Duration::ZERO);
            while let Some(wait) = recheck {
                tokio::select! {
                    biased;
                    () = site.stopping.cancelled() => return,
                    heard = endings.heard() => match heard {
                        Heard::Ended => return,
                        Heard::Perhaps => {}
                    },
                    () = tokio::time::sleep(wait) => {}
                }
                recheck = self.recheck(&site).await;
            }
        }
    }

    /// `chunks`, until they or the login end. What the login's end cuts off is an error, so that no client takes a part
    /// for the whole.
    pub(super) fn cut(
        self,
        site: Site,
        chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let start = Some((Box::pin(chunks), Box::pin(self.end(site))));
        futures_util::stream::unfold(start, |state| async move {
            let (mut chunks, mut end) = state?;
            tokio::select! {
                biased;
                () = &mut end => {
                    let why = "the login or the controller ended";
                    Some((Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)), None))
                }
                chunk = chunks.next() => Some((chunk?, Some((chunks, end)))),
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
        caller.permit(self.permission).ok()?;
        Some(left.clamp(Duration::from_millis(1), RECHECK))
    }
}
