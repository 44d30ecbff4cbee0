//! The streams that the controller opens: what each carries is told by its first frame.

use std::sync::Arc;

use fleetward_protocol::message::StreamKind;
use fleetward_protocol::wire::{MAX_RUN_FRAME, close};
use quinn::{Connection, RecvStream, SendStream};

use super::frame::{FrameError, FrameReader, FrameWriter};
use super::{Link, query, run};

/// Both directions of a stream.
pub(super) struct Stream {
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
}

/// Serves a stream that the controller opened, to its end. What a peer breaks on it closes the connection.
pub(super) async fn serve(connection: Connection, send: SendStream, receive: RecvStream, link: Arc<Link>) {
    let reader = FrameReader::new(MAX_RUN_FRAME);
    let mut stream = Stream { send, receive, reader, writer: FrameWriter::new(MAX_RUN_FRAME) };
    if let Err(error) = stream.dispatch(&link).await
        && error.is_malformed()
    {
        tracing::warn!(error = super::chain(&error), "protocol_broken");
        connection.close(close::PROTOCOL.into(), b"malformed message on a stream");
    }
}

impl Stream {
    async fn dispatch(&mut self, link: &Link) -> Result<(), FrameError> {
        match self.reader.next::<StreamKind>(&mut self.receive).await {
            Ok(Some(StreamKind::Run)) => run::serve(self, &link.runs).await,
            Ok(Some(StreamKind::Query)) => query::serve(self, &link.queries).await,
            Ok(Some(StreamKind::ClientId)) => {
                self.writer.push(&link.runs.read_client_id_report())?;
                self.finish().await
            }
            Ok(None) => Ok(()),
            // Perhaps a kind of a later version: this stream is refused, the connection goes on.
            Err(error) if error.is_malformed() => {
                self.reset(close::UNSUPPORTED);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Sends what is queued, and ends our direction.
    pub(super) async fn finish(&mut self) -> Result<(), FrameError> {
        while !self.writer.is_empty() {
            self.writer.write(&mut self.send).await?;
        }
        drop(self.send.finish());
        Ok(())
    }

    /// Gives the stream up, for the controller says what it may not.
    pub(super) fn broken(&mut self, what: &str) -> Result<(), FrameError> {
        tracing::warn!(error = what, "stream_reset");
        self.reset(close::PROTOCOL);
        Ok(())
    }

    /// Gives the stream up.
    pub(super) fn reset(&mut self, code: u32) {
        drop(self.send.reset(code.into()));
        drop(self.receive.stop(code.into()));
    }
}
