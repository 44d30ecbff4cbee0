//! Parts that the controller is no controller without: the recorder, the dispatcher, the listeners, the background tasks.
//!
//! A part that ends by a panic is a defect, and so is one that ends while nothing told it to: a port whose socket fails, say. The
//! others would go on without it, healthy by their looks: runs would be accepted and never start. So the whole controller ends then,
//! and whoever supervises it starts it anew.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tracing::error;

/// Watches over parts. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Vital(CancellationToken);

impl Vital {
    /// Does `work` in a task of its own and waits for its end. If that is a panic, or comes while `may_end` says that it should
    /// not, it ends the wait of [`Self::failed`].
    pub fn watch(
        &self,
        part: &'static str,
        may_end: impl FnOnce() -> bool + Send + 'static,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Self(failed) = self.clone();
        async move {
            let remedy = match tokio::spawn(work).await {
                Err(error) if error.is_panic() => "it is started anew; report the panic above",
                Ok(()) if !may_end() => "it is started anew; report it with what was logged before",
                // As it should; or the runtime is shut down.
                Ok(()) | Err(_) => return,
            };
            error!(part, remedy, "controller.part_failed");
            failed.cancel();
        }
    }

    /// Returns when a part has failed: the controller must end.
    pub async fn failed(&self) {
        self.0.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_or_ends_untold_has_failed_and_one_that_was_told_has_not() {
        let vital = Vital::default();
        vital.watch("was told", || true, async {}).await;
        assert!(!vital.0.is_cancelled());
        vital.watch("ends", || false, async {}).await;
        vital.failed().await;
        let vital = Vital::default();
        vital.watch("panics", || true, async { panic!("a defect") }).await;
        vital.failed().await;
    }
}
