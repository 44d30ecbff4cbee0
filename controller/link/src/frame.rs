//! Frames over QUIC streams: read whole or not at all, never larger than their cap.

use bytes::Bytes;
use fleetward_protocol::message::RunUp;
use fleetward_protocol::wire::{self, DecodeError, EncodeError};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::buffer::Buffers;

/// Why a frame did not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// The stream was reset, or the connection is gone.
    #[error("the stream broke")]
    Read(#[from] ReadError),
    /// The stream ended inside a frame.
    #[error("the stream ended in the middle of a message")]
    Truncated,
    /// The bytes are not what they should be.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Why a frame was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The stream was stopped, or the connection is gone.
    #[error("the stream broke")]
    Write(#[from] WriteError),
    /// The message does not fit into a frame.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Bytes taken from the transport at a time.
const CHUNK: usize = 64 << 10;

/// Reads frames of one stream. [`next`](Self::next) can be dropped at any await and called again: what was read
/// so far is kept.
pub(super) struct Frames {
    stream: RecvStream,
    cap: usize,
    prefix: [u8; 4],
    prefix_filled: usize,
    length: Option<usize>,
    body: Vec<u8>,
    buffers: Buffers,
}

impl Frames {
    /// Frames of a stream whose messages are small.
    pub(super) fn new(stream: RecvStream, cap: usize) -> Self {
        Self::with_buffers(stream, cap, Buffers::none())
    }

    /// Frames of a stream whose large bodies are put into these buffers.
    pub(super) const fn with_buffers(stream: RecvStream, cap: usize, buffers: Buffers) -> Self {
        Self { stream, cap, prefix: [0; 4], prefix_filled: 0, length: None, body: Vec::new(), buffers }
    }

    /// The next message; `None` at the stream's end.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ReceiveError> {
        let Some(body) = self.next_body().await? else { return Ok(None) };
        Ok(Some(wire::decode(&body, self.cap)?))
    }

    /// The next message of a run's stream, its output as it was read; `None` at the stream's end.
    pub(super) async fn next_up(&mut self) -> Result<Option<RunUp>, ReceiveError> {
        let Some(body) = self.next_body().await? else { return Ok(None) };
        Ok(Some(RunUp::decode(body, self.cap)?))
    }

    async fn next_body(&mut self) -> Result<Option<Bytes>, ReceiveError> {
        let length = match self.length {
            Some(length) => length,
            None => match self.read_length().await? {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        while self.body.len() < length {
            let wanted = (length - self.body.len()).min(CHUNK);
            let chunk = self.stream.read_chunk(wanted, true).await?.ok_or(ReceiveError::Truncated)?;
            if self.body.capacity() == 0 && length > CHUNK {
                self.body = self.buffers.take();
            }
            self.body.extend_from_slice(&chunk.bytes);
        }
        self.length = None;
        self.prefix_filled = 0;
        let body = std::mem::take(&mut self.body);
        Ok(Some(if length > CHUNK { self.buffers.lend(body) } else { body.into() }))
    }

    async fn read_length(&mut self) -> Result<Option<usize>, ReceiveError> {
        while let Some(rest) = self.prefix.get_mut(self.prefix_filled..).filter(|rest| !rest.is_empty()) {
            match self.stream.read(rest).await? {
                Some(read) => self.prefix_filled += read,
                None if self.prefix_filled == 0 => return Ok(None),
                None => return Err(ReceiveError::Truncated),
            }
        }
        let length = wire::frame_length(self.prefix, self.cap)?;
        // Room is made as bytes arrive: an announced length costs a peer nothing, so it buys nothing either.
        self.length = Some(length);
        Ok(Some(length))
    }

    /// Gives the stream up, telling the peer why.
    pub(super) fn stop(mut self, code: u32) {
        // Fails only when the stream is over, which is as good.
        let _ = self.stream.stop(code.into());
    }
}

/// Sends one message.
pub(super) async fn send<T: Serialize>(
    stream: &mut SendStream,
    message: &T,
    cap: usize,
) -> Result<(), SendError> {
    let frame = wire::frame(message, cap)?;
    stream.write_all(&frame).await?;
    Ok(())
}
