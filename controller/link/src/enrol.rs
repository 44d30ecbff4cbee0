//! An enrolment: one request, one reply, nothing else.

use std::time::Duration;

use fleetward_app::fleet::enrolment;
use fleetward_protocol::enrol::{EnrolRefusal, EnrolReply, EnrolRequest};
use fleetward_protocol::wire::{MAX_ENROL_FRAME, close};
use quinn::{Connection, SendStream};
use tokio::time::timeout;
use tracing::debug;

use super::frame::{self, Frames};
use super::port::Port;
use super::reason::chain;

/// How long a whole enrolment may take.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) async fn serve(port: &Port, connection: Connection) {
    let remote = connection.remote_address();
    match timeout(PATIENCE, exchange(port, &connection)).await {
        Ok(Ok(())) => connection.close(close::DONE.into(), b""),
        Ok(Err(reason)) => {
            connection.close(close::PROTOCOL.into(), b"not an enrolment");
            port.refused(remote, &format!("enrolment: {reason}")).await;
        }
        Err(_) => {
            connection.close(close::SILENT.into(), b"");
            debug!(%remote, "link.enrolment_timed_out");
        }
    }
}

async fn exchange(port: &Port, connection: &Connection) -> Result<(), String> {
    let (mut send, receive) = connection.accept_bi().await.map_err(|error| error.to_string())?;
    let mut frames = Frames::new(receive, MAX_ENROL_FRAME);
    let reply = if port.admits_enrolment(connection.remote_address()) {
        let request: EnrolRequest = frames
            .next()
            .await
            .map_err(|error| chain(&error))?
            .ok_or_else(|| "the stream ended before the request".to_owned())?;
        if port.admits_token(&request.secret) {
            enrolment::enrol(&port.app, &request, connection.remote_address()).await
        } else {
            limited(port, connection).await
        }
    } else {
        limited(port, connection).await
    };
    deliver(&mut send, &reply).await;
    Ok(())
}

async fn limited(port: &Port, connection: &Connection) -> EnrolReply {
    port.refused(connection.remote_address(), "enrolment: too many attempts").await;
    EnrolReply::Refused(EnrolRefusal::RateLimited)
}

/// Sends the reply and waits until the agent has it, or is gone.
async fn deliver(send: &mut SendStream, reply: &EnrolReply) {
    let sent = frame::send(send, reply, MAX_ENROL_FRAME).await.is_ok() && send.finish().is_ok();
    if sent {
        let _ = send.stopped().await;
    }
}
