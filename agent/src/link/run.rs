//! One run's stream: what the journal and the spool hold goes up, acknowledgements and commands come down.

use fleetward_protocol::message::{RunDown, RunUp, StreamKind};
use fleetward_protocol::run::{LostCause, Outcome};
use fleetward_protocol::session::{RunSource, SourceEvent, SourceTransmit};
use fleetward_protocol::wire::{MAX_RUN_FRAME, close};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::watch;

use super::frame::{FrameError, FrameReader, FrameWriter};
use crate::run::{Opened, Progress, Runs, Stage};

/// Serves a stream that the controller opened, to its end. What a peer breaks on it closes the connection.
pub(super) async fn serve(connection: Connection, send: SendStream, receive: RecvStream, runs: Runs) {
    let mut stream = RunStream {
        send,
        receive,
        reader: FrameReader::new(MAX_RUN_FRAME),
        writer: FrameWriter::new(MAX_RUN_FRAME),
        runs,
    };
    if let Err(error) = stream.speak().await
        && error.is_malformed()
    {
        tracing::warn!(error = super::chain(&error), "protocol_broken");
        connection.close(close::PROTOCOL.into(), b"malformed message on a run's stream");
    }
}

struct RunStream {
    send: SendStream,
    receive: RecvStream,
    reader: FrameReader,
    writer: FrameWriter,
    runs: Runs,
}

impl RunStream {
    async fn speak(&mut self) -> Result<(), FrameError> {
        match self.reader.next::<StreamKind>(&mut self.receive).await {
            Ok(Some(StreamKind::Run)) => {}
            Ok(Some(StreamKind::ClientId)) => return self.answer_client_id().await,
            Ok(None) => return Ok(()),
            // Perhaps a kind of a later version: this stream is refused, the connection goes on.
            Err(error) if error.is_malformed() => {
                self.reset(close::UNSUPPORTED);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let open = match self.reader.next(&mut self.receive).await? {
            Some(RunDown::Open(open)) => open,
            Some(_) => return self.broken("the stream does not begin with an open"),
            None => return Ok(()),
        };
        let (run, offset) = (open.run, open.offset);
        let mut source = RunSource::new(offset);
        let Opened::Held(mut progress) = self.runs.open(open).await else {
            source.handle_unknown();
            return self.finish(run, &mut source).await;
        };
        let mut told = Told::default();
        told.tell(&mut source, &mut progress, offset);
        loop {
            self.fill(run, &mut source)?;
            tokio::select! {
                biased;
                message = self.reader.next::<RunDown>(&mut self.receive) => match message? {
                    Some(message) => match source.handle_message(&message) {
                        Ok(SourceEvent::Acknowledged(_)) => {}
                        Ok(SourceEvent::Cancel(cause)) => self.runs.cancel(run, cause),
                        Ok(SourceEvent::Forget) => {
                            let runs = self.runs.clone();
                            // Keeping a run for a while must not keep its stream.
                            tokio::spawn(async move { runs.forget(run).await });
                            drop(self.send.finish());
                            return Ok(());
                        }
                        Err(error) => return self.broken(&error.to_string()),
                    },
                    None => return self.finish(run, &mut source).await,
                },
                written = self.writer.write(&mut self.send), if !self.writer.is_empty() => written?,
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
        while self.writer.is_empty() {
            match source.poll_transmit() {
                None => break,
                Some(SourceTransmit::Message(message)) => self.writer.push(&message)?,
                Some(SourceTransmit::Output { offset, length }) => {
                    let head =
                        RunUp::output_frame(offset, length, MAX_RUN_FRAME).map_err(FrameError::Encode)?;
                    match self.runs.read_output(run, offset, length, head) {
                        Ok(frame) => self.writer.push_frame(frame),
                        Err(error) => {
                            // Without its output there is no result: the stream ends, and the next one tries again.
                            tracing::error!(run_id = %run, %error, "spool_unreadable");
                            self.reset(close::DONE);
                            return Err(FrameError::Write(quinn::WriteError::ClosedStream));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn answer_client_id(&mut self) -> Result<(), FrameError> {
        self.writer.push(&self.runs.read_client_id_report())?;
        while !self.writer.is_empty() {
            self.writer.write(&mut self.send).await?;
        }
        drop(self.send.finish());
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
            if self.writer.is_empty() {
                drop(self.send.finish());
                return Ok(());
            }
            self.writer.write(&mut self.send).await?;
        }
    }

    fn broken(&mut self, what: &str) -> Result<(), FrameError> {
        tracing::warn!(error = what, "run_stream_reset");
        self.reset(close::PROTOCOL);
        Ok(())
    }

    fn reset(&mut self, code: u32) {
        drop(self.send.reset(code.into()));
        drop(self.receive.stop(code.into()));
    }
}

/// What this stream's source knows already.
#[derive(Default)]
struct Told {
    accepted: bool,
    started: bool,
    everything: bool,
}

impl Told {
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
