//! Frames on QUIC streams, in both directions, without losing anything when a future is dropped.

use std::collections::VecDeque;

use bytes::Bytes;
use fleetward_protocol::wire::{self, DecodeError, EncodeError};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is asked of the stream at once.
const CHUNK: usize = 64 << 10;

/// A stream cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer sent something else than a message.
    #[error("read a message")]
    Decode(#[source] DecodeError),
    /// The stream ended within a message.
    #[error("the stream ended within a message")]
    Truncated,
    /// The message is too large to be sent.
    #[error("write a message")]
    Encode(#[source] EncodeError),
    /// The stream or its connection is gone.
    #[error("read from the controller")]
    Read(#[source] ReadError),
    /// The stream or its connection is gone.
    #[error("write to the controller")]
    Write(#[source] WriteError),
}

impl FrameError {
    /// Whether the peer broke the protocol, rather than the connection.
    pub(super) const fn is_malformed(&self) -> bool {
        matches!(self, Self::Decode(_) | Self::Truncated | Self::Encode(_))
    }
}

/// Takes messages off a stream.
#[derive(Debug)]
pub(super) struct FrameReader {
    cap: usize,
    buffer: Vec<u8>,
}

impl FrameReader {
    pub(super) const fn new(cap: usize) -> Self {
        Self { cap, buffer: Vec::new() }
    }

    /// From now on messages may have so many bytes.
    pub(super) const fn limit(&mut self, cap: usize) {
        self.cap = cap;
    }

    /// The next message; `None` at the stream's end. Cancel-safe.
    pub(super) async fn next<T: DeserializeOwned>(
        &mut self,
        stream: &mut RecvStream,
    ) -> Result<Option<T>, FrameError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match stream.read_chunk(CHUNK, true).await.map_err(FrameError::Read)? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Truncated),
            }
        }
    }

    fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk() else { return Ok(None) };
        let length = wire::frame_length(*prefix, self.cap).map_err(FrameError::Decode)?;
        let Some(body) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let message = wire::decode(body, self.cap).map_err(FrameError::Decode)?;
        self.buffer.drain(..4 + length);
        if self.buffer.is_empty() {
            // Most of an agent's life nothing comes: a large script must not stay allocated.
            self.buffer = Vec::new();
        }
        Ok(Some(message))
    }
}

/// Puts messages on a stream.
#[derive(Debug)]
pub(super) struct FrameWriter {
    cap: usize,
    pending: VecDeque<Bytes>,
}

impl FrameWriter {
    pub(super) const fn new(cap: usize) -> Self {
        Self { cap, pending: VecDeque::new() }
    }

    /// From now on messages may have so many bytes.
    pub(super) const fn limit(&mut self, cap: usize) {
        self.cap = cap;
    }

    /// Whether everything was handed to the stream.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Queues a message.
    pub(super) fn push<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        let frame = wire::frame(message, self.cap).map_err(FrameError::Encode)?;
        self.push_frame(frame);
        Ok(())
    }

    /// Queues a message that is a frame already, within the cap.
    pub(super) fn push_frame(&mut self, frame: Vec<u8>) {
        self.pending.push_back(frame.into());
    }

    /// Hands some of what is queued to the stream. Cancel-safe.
    pub(super) async fn write(&mut self, stream: &mut SendStream) -> Result<(), FrameError> {
        // Given away rather than copied: a chunk that is taken in part is advanced.
        let written = stream.write_chunks(self.pending.make_contiguous()).await.map_err(FrameError::Write)?;
        self.pending.drain(..written.chunks);
        if self.pending.is_empty() {
            // Most of an agent's life nothing is sent.
            self.pending = VecDeque::new();
        }
        Ok(())
    }
}
