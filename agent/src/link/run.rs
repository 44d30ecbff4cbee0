//! One run's stream: what the journal and the spool hold goes up, acknowledgements and commands come down.

use fleetward_protocol::message::{RunDown, RunUp};
use fleetward_protocol::run::{LostCause, Outcome};
use fleetward_protocol::session::{RunSource, SourceEvent, SourceTransmit};
use fleetward_protocol::wire::{MAX_RUN_FRAME, close};
use tokio::sync::watch;

use super::frame::FrameError;
use super::stream::Stream;
use crate::run::{Opened, Progress, Runs, Stage};

/// Serves a run's stream after its first frame, to its end.
pub(super) async fn serve(stream: &mut Stream, runs: &Runs) -> Result<(), FrameError> {
    RunStream { stream, runs }.speak().await
}

struct RunStream<'a> {
    stream: &'a mut Stream,
    runs: &'a Runs,
}

impl RunStream<'_> {
    async fn speak(&mut self) -> Result<(), FrameError> {
        let open = match self.stream.reader.next(&mut self.stream.receive).await? {
            Some(RunDown::Open(open)) => open,
            Some(_) => return self.stream.broken("the stream does not begin with an open"),
            None => return Ok(()),
        };
        let (run, offset) = (open.run, open.offset);
        let mut source = RunSource::new(offset);
        let Opened::Held(mut progress) = self.runs.open(open).await else {
            source.handle_unknown();
            return self.finish(run, &mut source).await;
        };
        let mut told = SourceProgress::default();
        told.tell(&mut source, &mut progress, offset);
        loop {
            self.fill(run, &mut source)?;
            tokio::select! {
                biased;
                message = self.stream.reader.next::<RunDown>(&mut self.stream.receive) => match message? {
                    Some(message) => match source.handle_message(&message) {
                        Ok(SourceEvent::Acknowledged(_)) => {}
                        Ok(SourceEvent::Cancel(cause)) => self.runs.cancel(run, cause),
                        Ok(SourceEvent::Forget) => {
                            let runs = self.runs.clone();
                            // Keeping a run for a while must not keep its stream.
                            tokio::spawn(async move { runs.forget(run).await });
                            drop(self.stream.send.finish());
                            return Ok(());
                        }
                        Err(error) => return self.stream.broken(&error.to_string()),
                    },
                    None => return self.finish(run, &mut source).await,
                },
                written = self.stream.writer.write(&mut self.stream.send), if !self.stream.writer.is_empty() => written?,
                changed = progress.changed(), if !told.everything => match changed {
                    Ok(()) => told.tell(&mut source, &mut progress, offset),
                    // The run was dropped under us: another stream has forgotten it.
                    Err(_) => return Ok(()),
                },
            }
        }
    }

    /// Queues what is to be sent next, unless something still is.
    fn fill(&mut self, run: fleetward_protocol::id::RunId, source: &mut RunSource) -> Result<(), FrameError> {
        while self.stream.writer.is_empty() {
            match source.poll_transmit() {
                None => break,
                Some(SourceTransmit::Message(message)) => self.stream.writer.push(&message)?,
                Some(SourceTransmit::Output { offset, length }) => {
                    let head =
                        RunUp::output_frame(offset, length, MAX_RUN_FRAME).map_err(FrameError::Encode)?;
                    match self.runs.read_output(run, offset, length, head) {
                        Ok(frame) => self.stream.writer.push_frame(frame),
                        Err(error) => {
                            // Without its output there is no result: the stream ends, and the next one tries again.
                            tracing::error!(run_id = %run, %error, "spool_unreadable");
                            self.stream.reset(close::DONE);
                            return Err(FrameError::Write(quinn::WriteError::ClosedStream));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends what is left and ends our direction.
    async fn finish(
        &mut self,
        run: fleetward_protocol::id::RunId,
        source: &mut RunSource,
    ) -> Result<(), FrameError> {
        loop {
            self.fill(run, source)?;
            if self.stream.writer.is_empty() {
                drop(self.stream.send.finish());
                return Ok(());
            }
            self.stream.writer.write(&mut self.stream.send).await?;
        }
    }
}

/// What this stream's source knows already.
#[derive(Default)]
struct SourceProgress {
    accepted: bool,
    started: bool,
    everything: bool,
}

impl SourceProgress {
    fn tell(&mut self, source: &mut RunSource, progress: &mut watch::Receiver<Progress>, offset: u64) {
        let progress = progress.borrow_and_update();
        match &progress.stage {
            Stage::Accepting => {}
            Stage::Waiting => self.accepted(source),
            Stage::Running { at } => {
                self.accepted(source);
                self.started(source, *at);
                source.handle_spooled(progress.output);
            }
            Stage::Finished { started, end } => {
                self.accepted(source);
                self.started(source, *started);
                let mut end = end.clone();
                if matches!(end.outcome, Outcome::Lost(LostCause::Reboot | LostCause::SpoolUnreadable)) {
                    // What the controller has counts, even if a power cut took it from this host.
                    end.log_length = end.log_length.max(offset);
                }
                source.handle_finished(end);
                self.everything = true;
            }
            Stage::Refused { refusal, accepted } => {
                if *accepted {
                    self.accepted(source);
                }
                source.handle_refused(refusal.clone());
                self.everything = true;
            }
        }
    }

    fn accepted(&mut self, source: &mut RunSource) {
        if !std::mem::replace(&mut self.accepted, true) {
            source.handle_accepted();
        }
    }

    fn started(&mut self, source: &mut RunSource, at: fleetward_protocol::time::Timestamp) {
        if !std::mem::replace(&mut self.started, true) {
            source.handle_started(at);
        }
    }
}
