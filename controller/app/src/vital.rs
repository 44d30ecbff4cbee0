//! Parts that the controller is no controller without: the recorder, the dispatcher, the listeners, the background tasks.
//!
//! A part that ends by a panic is a defect. The others would go on without it, healthy by their looks: runs would be accepted and
//! never start. So the whole controller ends then, and whoever supervises it starts it anew.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tracing::error;

/// Watches over parts. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Vital(CancellationToken);

impl Vital {
    /// Does `work` in a task of its own and waits for its end. If that is a panic, it ends the wait of [`Self::failed`].
    pub fn watch(
        &self,
        part: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Self(failed) = self.clone();
        async move {
            // Only a runtime that is shut down ends it otherwise.
            let ended = tokio::spawn(work).await;
            if ended.is_err_and(|error| error.is_panic()) {
                error!(part, remedy = "it is started anew; report the panic above", "controller.part_failed");
                failed.cancel();
            }
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
    async fn a_part_that_panics_has_failed_and_one_that_ends_has_not() {
        let vital = Vital::default();
        vital.watch("ends", async {}).await;
        assert!(!vital.0.is_cancelled());
        vital.watch("panics", async { panic!("a defect") }).await;
        vital.failed().await;
    }
}
