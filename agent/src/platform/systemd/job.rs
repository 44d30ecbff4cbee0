//! Waits for the ends of jobs.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use fleetward_protocol::text::{Text, Word};
use futures_core::Stream as _;
use tokio::time::Instant;
use zbus::message::Type as MessageType;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath};

use super::{JOB, MANAGER, PATH, QUEUE, SERVICE, SystemdError, body, call, patiently, property, reconnect};

/// Between two looks at whether a job still exists: a bus that was restarted tells nobody of its end.
const LOOK: Duration = Duration::from_secs(5);
/// The same when there is nobody who would tell.
const LOOK_OFTEN: Duration = Duration::from_millis(500);

/// Hears of the ends of jobs.
#[derive(Debug)]
pub(super) struct Ends {
    /// Who tells; nobody since the bus went away.
    told: Option<Pin<Box<MessageStream>>>,
    /// Whether the connection is to be made anew.
    is_lost: bool,
    /// When to look next.
    look: Instant,
}

impl Ends {
    /// From now on each end is heard.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub(super) async fn hear(connection: &Connection) -> Result<Self, SystemdError> {
        let rule = MatchRule::builder()
            .msg_type(MessageType::Signal)
            .sender(SERVICE)
            .path(PATH)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()
            .map_err(SystemdError::Strange)?;
        let told = patiently(MessageStream::for_match_rule(rule, connection, Some(QUEUE))).await?;
        // Nobody is told of jobs who has not asked for it.
        call(connection, PATH, MANAGER, "Subscribe", &()).await?;
        Ok(Self { told: Some(Box::pin(told)), is_lost: false, look: Instant::now() + LOOK })
    }

    /// Waits for the end of this job: its result, or `None` if that was missed. Cancel-safe: whoever waits again goes on with it.
    /// Should the message bus go away meanwhile (it is a unit, too), the connection is made anew.
    ///
    /// # Errors
    /// If systemd cannot be heard any more: the job goes on all the same.
    pub(super) async fn wait(
        &mut self,
        connection: &mut Connection,
        job: &OwnedObjectPath,
    ) -> Result<Option<Word>, SystemdError> {
        loop {
            if self.is_lost {
                *connection = reconnect().await?;
                (self.is_lost, self.look) = (false, Instant::now() + LOOK_OFTEN);
            }
            let Self { told, is_lost, look } = self;
            let next = poll_fn(|context| match told {
                Some(told) => told.as_mut().poll_next(context),
                None => Poll::Pending,
            });
            tokio::select! {
                biased;
                message = next => match message {
                    Some(Ok(message)) => {
                        let (_, path, _, result): (u32, OwnedObjectPath, String, String) = body(&message)?;
                        if path == *job {
                            return Ok(Some(Text::of(result)));
                        }
                    }
                    // Whether the job still exists can be asked again on the next one.
                    Some(Err(_)) | None => (*told, *is_lost) = (None, true),
                },
                () = tokio::time::sleep_until(*look) => {
                    let state: Option<String> = property(connection, job.as_str(), JOB, "State").await?;
                    if state.is_none() {
                        return Ok(None);
                    }
                    *look = Instant::now() + if told.is_some() { LOOK } else { LOOK_OFTEN };
                }
            }
        }
    }
}
