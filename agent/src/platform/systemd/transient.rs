//! Work that systemd does for us, once: a service of its own, which neither a stop of the run that asked for it nor an upgrade of
//! the agent can end half-way (systemd-run(1), org.freedesktop.systemd1(5), "Transient Units").

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::Poll;

use futures_core::Stream as _;
use zbus::message::Type as MessageType;
use zbus::{Connection, Fd, MatchRule, MessageStream, OwnedObjectPath, Variant};

use super::{
    JOB, LOOK, LOOK_OFTEN, MANAGER, PATH, PATIENCE, QUEUE, SERVICE, SystemdError, ask, body, call, patiently,
    property, reconnect,
};

/// How long such a service is given to end by itself when the host goes down, in microseconds.
const STOP: u64 = 15 * 60 * 1_000_000;

/// What is to be done.
#[derive(Debug)]
pub struct Work<'a> {
    /// The name of its unit.
    pub unit: &'a str,
    /// What it is, for people.
    pub description: &'a str,
    /// The program, by its absolute path, and its arguments.
    pub argv: &'a [String],
    /// Variables, beside those that systemd gives to every service.
    pub environment: &'a [(&'static str, String)],
}

/// A service that does its work.
#[derive(Debug)]
pub struct Service {
    connection: Connection,
    removed: Option<Pin<Box<MessageStream>>>,
    unit: String,
    job: OwnedObjectPath,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it should.
    Well,
    /// With an error.
    Badly,
    /// It did, and how was missed.
    Somehow,
}

impl Service {
    /// Has systemd start it; what it writes goes to `output`.
    ///
    /// # Errors
    /// If systemd cannot be asked, or will not: then nothing was started, unless it is silent.
    pub async fn start(work: &Work<'_>, output: OwnedFd) -> Result<Self, SystemdError> {
        let connected = tokio::time::timeout(PATIENCE, Connection::system()).await;
        let connection = connected.map_err(|_| SystemdError::Silent)?.map_err(SystemdError::Bus)?;
        let rule = MatchRule::builder()
            .msg_type(MessageType::Signal)
            .sender(SERVICE)
            .path(PATH)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()
            .map_err(SystemdError::Strange)?;
        let removed = patiently(MessageStream::for_match_rule(rule, &connection, Some(QUEUE))).await?;
        // Nobody is told of jobs who has not asked for it.
        call(&connection, PATH, MANAGER, "Subscribe", &()).await?;
        let wrong = output.try_clone().map_err(SystemdError::Runtime)?;
        let environment: Vec<String> =
            work.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let program = work.argv.first().cloned().unwrap_or_default();
        let properties: Vec<(&str, Variant<'_>)> = vec![
            ("Description", work.description.into()),
            // Its start is its work: the job ends when that does.
            ("Type", "oneshot".into()),
            ("ExecStart", vec![(program, work.argv.to_vec(), false)].into()),
            ("Environment", environment.into()),
            ("StandardOutputFileDescriptor", Variant::from(Fd::from(output))),
            ("StandardErrorFileDescriptor", Variant::from(Fd::from(wrong))),
            // Whoever stops it, or the host, has it come to the end of what cannot be left half-done: only the program itself
            // is asked, and as a person at a terminal would.
            ("KillMode", "mixed".into()),
            ("KillSignal", libc::SIGINT.into()),
            ("TimeoutStopUSec", STOP.into()),
            // A failed one is not kept for anybody to look at.
            ("CollectMode", "inactive-or-failed".into()),
        ];
        let others: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let job: OwnedObjectPath =
            ask(&connection, PATH, MANAGER, "StartTransientUnit", &(work.unit, "fail", properties, others))
                .await?;
        Ok(Self { connection, removed: Some(Box::pin(removed)), unit: work.unit.to_owned(), job })
    }

    /// The name of its unit.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Waits for its end. Cancel-safe. Should the message bus go away meanwhile, the connection is made anew.
    ///
    /// # Errors
    /// If systemd cannot be heard any more: the service goes on all the same.
    pub async fn ended(&mut self) -> Result<Ended, SystemdError> {
        loop {
            let Self { connection, removed, job, .. } = self;
            let look = if removed.is_some() { LOOK } else { LOOK_OFTEN };
            let next = poll_fn(|context| match removed {
                Some(removed) => removed.as_mut().poll_next(context),
                None => Poll::Pending,
            });
            tokio::select! {
                biased;
                message = next => match message {
                    Some(Ok(message)) => {
                        let (_, path, _, result): (u32, OwnedObjectPath, String, String) = body(&message)?;
                        if path == *job {
                            return Ok(if result == "done" { Ended::Well } else { Ended::Badly });
                        }
                    }
                    Some(Err(_)) | None => {
                        *removed = None;
                        *connection = reconnect().await?;
                    }
                },
                () = tokio::time::sleep(look) => {
                    let state: Option<String> = property(connection, job.as_str(), JOB, "State").await?;
                    if state.is_none() {
                        return Ok(Ended::Somehow);
                    }
                }
            }
        }
    }

    /// Asks its program to stop, as a person at a terminal would.
    ///
    /// # Errors
    /// If systemd does not.
    pub async fn interrupt(&self) -> Result<(), SystemdError> {
        call(&self.connection, PATH, MANAGER, "KillUnit", &(self.unit.as_str(), "main", libc::SIGINT))
            .await
            .map(drop)
    }
}
