//! One question and one answer over the enrolment protocol.

use fleetward_protocol::digest::Digest;
use fleetward_protocol::enrol::{EnrolReply, EnrolRequest};
use fleetward_protocol::wire::{MAX_ENROL_FRAME, close};
use rustls_pki_types::CertificateDer;

use super::dial::{self, DialError};
use super::frame::{FrameError, FrameReader, FrameWriter};
use super::tls::{self, TlsError};
use crate::config::Address;

/// The enrolment got no answer.
#[derive(Debug, thiserror::Error)]
pub enum EnrolLinkError {
    /// The controller was not reached, or did not prove the token's root.
    #[error("{}", super::chain(.0))]
    Dial(DialError),
    /// TLS could not be prepared.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The exchange broke off.
    #[error("{}", super::chain(.0))]
    Frame(FrameError),
    /// The connection was closed.
    #[error("the connection was closed: {0}")]
    Closed(String),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
}

/// Sends the request to the controller that proves `root`; returns its answer and the root certificate.
///
/// # Errors
/// If the controller cannot be reached, is another one, or does not answer.
pub async fn exchange_enrolment(
    address: &Address,
    root: Digest,
    request: &EnrolRequest,
) -> Result<(EnrolReply, CertificateDer<'static>), EnrolLinkError> {
    let dialled = dial::connect(address, tls::enrolment(root)?).await.map_err(EnrolLinkError::Dial)?;
    let connection = &dialled.connection;
    let presented =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let root = presented.and_then(|presented| tls::find_root(presented.iter(), root));
    let root = root.ok_or_else(|| EnrolLinkError::Closed("the root certificate was not presented".into()))?;
    let closed = |error: quinn::ConnectionError| EnrolLinkError::Closed(error.to_string());
    let (mut send, mut receive) = connection.open_bi().await.map_err(closed)?;
    let mut writer = FrameWriter::new(MAX_ENROL_FRAME);
    writer.push(request).map_err(EnrolLinkError::Frame)?;
    while !writer.is_empty() {
        writer.write(&mut send).await.map_err(EnrolLinkError::Frame)?;
    }
    let mut reader = FrameReader::new(MAX_ENROL_FRAME);
    let reply = reader.next(&mut receive).await.map_err(EnrolLinkError::Frame)?;
    let reply = reply.ok_or_else(|| EnrolLinkError::Closed("the controller gave no answer".into()))?;
    connection.close(close::DONE.into(), b"enrolled");
    dialled.endpoint.wait_idle().await;
    Ok((reply, root))
}
