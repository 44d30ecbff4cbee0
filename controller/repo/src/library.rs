//! libgit2's own settings, made before its first use.

use std::sync::Once;
use std::time::Duration;

use super::error::detail;
use super::memory;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the other end may say nothing. Tests see it pass.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 30 });
/// Bounds what the library takes of memory and of time. Has to come before whatever else is asked of it.
///
/// Without the limits of time a server that accepts and then says nothing would hold the thread for ever: the callbacks
/// that check the time run only when something arrives.
pub(super) fn ensure_ready() {
    // A static, because what it guards is static in the C library.
    static SET: Once = Once::new();
    SET.call_once(|| {
        let millis = |span: Duration| i32::try_from(span.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the options are unsynchronised C globals. Only this module uses the library, and each way into it
        // comes through here first; `Once` lets nobody pass before all are written, and nothing writes them again.
        let set = unsafe {
            memory::ensure_limited();
            git2::opts::set_server_connect_timeout_in_milliseconds(millis(CONNECT_TIMEOUT))
                .and_then(|()| git2::opts::set_server_timeout_in_milliseconds(millis(SILENCE_TIMEOUT)))
        };
        if let Err(error) = set {
            tracing::warn!(error = %detail(&error), "git_timeouts_not_set");
        }
    });
}
