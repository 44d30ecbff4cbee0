//! Work that systemd does for us, once: a service of its own, which neither a stop of the run that asked for it nor an upgrade of
//! the agent can end half-way (systemd-run(1), org.freedesktop.systemd1(5), "Transient Units").

use std::os::fd::OwnedFd;

use zbus::{Connection, Fd, OwnedObjectPath, Variant};

use super::job::Ends;
use super::{MANAGER, PATH, PATIENCE, SystemdError, ask, call};

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
    ends: Ends,
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
        let ends = Ends::hear(&connection).await?;
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
        Ok(Self { connection, ends, unit: work.unit.to_owned(), job })
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
        let Self { connection, ends, job, .. } = self;
        Ok(match ends.wait(connection, job).await? {
            Some(result) if result.as_str() == "done" => Ended::Well,
            Some(_) => Ended::Badly,
            None => Ended::Somehow,
        })
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
