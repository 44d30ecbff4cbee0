//! What runs wrote: as events while it comes, and as a file afterwards.

use std::io;

use axum::body::Bytes;
use fleetward_api::work::event::OutputEvent;
use fleetward_api::work::run::OutputStream;
use fleetward_app::App;
use fleetward_app::people::access::{Permit, ReadOutput};
use fleetward_app::work::run;
use fleetward_protocol::id::RunId;
use fleetward_protocol::name::HostName;
use fleetward_protocol::output::{Records, Stream as LogStream};
use fleetward_store::work::output::Piece;
use futures_util::Stream;

use crate::work::piece::Pieces;

/// How much of a log is read at a time.
const CHUNK: usize = 256 << 10;

/// The event that tells of a piece of a log.
pub(crate) fn output_event(host: &HostName, piece: &Piece) -> OutputEvent {
    let mut pieces = Pieces::default();
    for record in Records::new(&piece.bytes) {
        match record {
            Ok(record) => pieces.push(&record),
            Err(error) => {
                // Nothing like this passes the link; the rest of the piece cannot be read.
                tracing::error!(run = %piece.run, offset = piece.offset, %error, "output.damaged");
                break;
            }
        }
    }
    OutputEvent { run: piece.run, host: host.clone(), pieces: pieces.finish() }
}

/// A run's output so far, of one stream or of both in the order in which they were written, without the log's
/// headers. What cannot be read ends the stream with an error, so that no client takes a part for the whole.
pub(crate) fn download(
    app: App,
    permit: Permit<ReadOutput>,
    run: RunId,
    wanted: Option<OutputStream>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let start = Download { app, permit, run, wanted, offset: 0, rest: Vec::new() };
    futures_util::stream::try_unfold(start, |mut download| async move {
        Ok(download.next().await?.map(|bytes| (bytes, download)))
    })
}

struct Download {
    app: App,
    permit: Permit<ReadOutput>,
    run: RunId,
    wanted: Option<OutputStream>,
    offset: u64,
    rest: Vec<u8>,
}

impl Download {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let log = run::read_output(&self.app, &self.permit, self.run, self.offset, CHUNK).await;
            let log = log.map_err(io::Error::other)?;
            if log.is_empty() {
                return Ok(None);
            }
            self.offset += log.len() as u64;
            self.rest.extend_from_slice(&log);
            let mut records = Records::new(&self.rest);
            let mut payload = Vec::with_capacity(self.rest.len());
            for record in &mut records {
                let record = record.map_err(io::Error::other)?;
                if self.wants(record.stream) {
                    payload.extend_from_slice(record.payload);
                }
            }
            let consumed = records.consumed();
            self.rest.drain(..consumed);
            if !payload.is_empty() {
                return Ok(Some(Bytes::from(payload)));
            }
        }
    }

    fn wants(&self, stream: LogStream) -> bool {
        match stream {
            LogStream::Stdout => self.wanted != Some(OutputStream::Stderr),
            LogStream::Stderr => self.wanted != Some(OutputStream::Stdout),
            LogStream::Dropped | LogStream::Event | LogStream::Report => false,
        }
    }
}
