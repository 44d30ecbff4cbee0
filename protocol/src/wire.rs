//! The one codec: length-delimited frames whose bodies are in the bincode format.
//!
//! A frame is a little-endian `u32` length followed by that many bytes. The length is compared with the
//! reader's cap before anything is allocated; a body must be consumed to its last byte. Bodies are written by
//! `wincode` through serde, byte-compatible with bincode 1's default configuration
//! (`docs/decisions/0001-wire-codec.md`). Messages are append-only within an ALPN version: variants and
//! messages are added at the end, never changed, and golden bytes in `tests/wire.rs` keep it so.

use serde::{Serialize, de::DeserializeOwned};
use serde_wincode::SerdeCompat;
use wincode::config::{Configuration, Serialize as _};

/// The application protocol of an enrolled agent's connection (RFC 7301).
pub const ALPN: &[u8] = b"fleetward/1";
/// The application protocol of an enrolment, which can do nothing else.
pub const ALPN_ENROL: &[u8] = b"fleetward-enrol/1";
/// The UDP port a controller listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7443;

/// The largest frame on the control stream.
pub const MAX_CONTROL_FRAME: usize = 256 << 10;
/// The largest frame on a run's stream: an order and its contents, or one piece of output.
pub const MAX_RUN_FRAME: usize = crate::order::MAX_ORDER + crate::order::MAX_CONTENTS_TOTAL + 4096;
/// The largest frame on a query's stream, both ways: an order without contents, or some items.
pub const MAX_QUERY_FRAME: usize = 128 << 10;
/// The largest frame of an enrolment.
pub const MAX_ENROL_FRAME: usize = 64 << 10;
/// The most output bytes in one frame.
pub const MAX_OUTPUT_PIECE: usize = 256 << 10;

/// Application error codes with which either end closes a connection or resets a stream (RFC 9000 §20.2).
pub mod close {
    /// Nothing is wrong: the peer is done.
    pub const DONE: u32 = 0;
    /// The peer broke the protocol.
    pub const PROTOCOL: u32 = 1;
    /// The kind of stream, or the message, is not known to this build.
    pub const UNSUPPORTED: u32 = 2;
    /// The certificate is revoked, or its host is retired.
    pub const REVOKED: u32 = 3;
    /// A newer connection with the same identity took over.
    pub const SUPERSEDED: u32 = 4;
    /// The peer is shutting down; connect again.
    pub const SHUTDOWN: u32 = 5;
    /// Nothing was heard for too long.
    pub const SILENT: u32 = 6;
    /// No client certificate was presented.
    pub const UNAUTHENTICATED: u32 = 7;
    /// The peer sent or connected far too often; it may connect again later.
    pub const TOO_MANY: u32 = 8;
}

/// Why a value could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The body would exceed the frame's cap.
    #[error("a message of {size} bytes exceeds the limit of {cap}")]
    TooLong {
        /// What it would take.
        size: usize,
        /// What is allowed.
        cap: usize,
    },
    /// The codec refused the value.
    #[error("encode a message")]
    Codec(#[source] wincode::WriteError),
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The frame announces, or has, more bytes than its cap.
    #[error("a frame of {size} bytes exceeds the limit of {cap}")]
    TooLong {
        /// What was announced.
        size: usize,
        /// What is allowed.
        cap: usize,
    },
    /// Truncated, of an unknown variant, or with invalid text.
    #[error("malformed message")]
    Malformed(#[source] wincode::ReadError),
    /// A whole message, followed by bytes that belong to none.
    #[error("{0} surplus bytes after the message")]
    Surplus(usize),
}

// No preallocation above the largest frame: a length prefix inside a body cannot reserve more than the body.
type Bincode = Configuration<true, { MAX_RUN_FRAME }>;
const BINCODE: Bincode = Configuration::default().with_preallocation_size_limit::<{ MAX_RUN_FRAME }>();

/// The body of `value`.
///
/// # Errors
/// If it would exceed `cap` bytes, or the codec refuses the value.
pub fn encode<T: Serialize>(value: &T, cap: usize) -> Result<Vec<u8>, EncodeError> {
    let body = <SerdeCompat<T>>::serialize(value, BINCODE).map_err(EncodeError::Codec)?;
    if body.len() > cap {
        return Err(EncodeError::TooLong { size: body.len(), cap });
    }
    Ok(body)
}

/// The value whose body is exactly `bytes`.
///
/// # Errors
/// If there are more than `cap` bytes, or they are not exactly one value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], cap: usize) -> Result<T, DecodeError> {
    if bytes.len() > cap {
        return Err(DecodeError::TooLong { size: bytes.len(), cap });
    }
    let mut rest = bytes;
    let value =
        <SerdeCompat<T> as wincode::SchemaRead<Bincode>>::get(&mut rest).map_err(DecodeError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Surplus(rest.len())) }
}

/// The whole frame of `value`: length, then body.
///
/// # Errors
/// As [`encode`].
pub fn frame<T: Serialize>(value: &T, cap: usize) -> Result<Vec<u8>, EncodeError> {
    let body = encode(value, cap)?;
    let length = u32::try_from(body.len()).map_err(|_| EncodeError::TooLong { size: body.len(), cap })?;
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The length that a frame's first four bytes announce.
///
/// # Errors
/// If it exceeds `cap`; nothing has been allocated by then.
pub fn frame_length(prefix: [u8; 4], cap: usize) -> Result<usize, DecodeError> {
    let size = u32::from_le_bytes(prefix) as usize;
    if size > cap { Err(DecodeError::TooLong { size, cap }) } else { Ok(size) }
}
