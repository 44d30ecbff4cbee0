//! systemd over the system's message bus: what its units are, and jobs for them.
//!
//! For short-lived processes only: a connection brings a runtime of its own, which works while it is asked something.
//! `org.freedesktop.systemd1(5)` is the manual of everything that is called here.

pub mod carries;
pub mod content;
pub mod files;
pub mod install;
mod job;
mod log;
pub mod reboot;
mod sessions;
mod settle;
pub mod show;
mod started;
mod timers;
pub mod transient;
pub mod units;

pub use settle::Settled;

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::time::Duration;

use fleetward_protocol::action::unit::{UnitJob, UnitName, UnitState};
use fleetward_protocol::text::{Line, Text, Word};
use fleetward_protocol::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use zbus::{Connection, DynamicType, Message, OwnedObjectPath, OwnedVariant, Type};

use super::stop::{Stop, Why};
use job::Ends;

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const JOB: &str = "org.freedesktop.systemd1.Job";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long systemd may take to answer a question. Jobs are waited for without an end of our own: the run has one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts to connect again.
const RETRY: Duration = Duration::from_millis(200);
/// Errors that say that something is not there.
const ABSENT: [&str; 4] = [".UnknownObject", ".UnknownInterface", ".UnknownProperty", ".UnknownMethod"];
/// Ends of other jobs that may wait to be passed over.
const QUEUE: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// The types of units that have no result.
const WITHOUT_RESULT: [&str; 3] = ["target", "slice", "device"];

/// A connection to the system's service manager.
#[derive(Debug)]
pub struct Systemd {
    connection: Connection,
    runtime: Runtime,
}

/// What a job does to a unit, as systemctl(1) calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobType {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Stop it and start it again.
    Restart,
    /// Have it read its configuration again.
    Reload,
    /// Reload it if it can, restart it if not.
    ReloadOrRestart,
}

/// How waiting for a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// With this result: `done`, `failed`, `dependency`, `timeout`, `canceled`, …
    Ended(Word),
    /// It ended, and with which result was missed.
    Missed,
    /// This process was asked to stop. The job goes on.
    Left(Why, UnitJob),
    /// This process was asked to stop, and the job with it: systemd had not begun with it.
    TakenBack(Why),
}

/// systemd could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// There is no runtime to be had.
    #[error("start to wait for events: {0}")]
    Runtime(io::Error),
    /// There is no bus, or nobody on it.
    #[error("no connection to the message bus of the system: {0}")]
    Bus(zbus::Error),
    /// The connection ended, and there is no other to be had.
    #[error("the message bus of the system went away")]
    Ended,
    /// It does not answer.
    #[error("systemd did not answer in time")]
    Silent,
    /// It answered with an error.
    #[error("{text}")]
    Refused {
        /// The error's name, such as `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// What it said.
        text: Line,
    },
    /// It has made a unit stand in the place of another that must stay.
    #[error(
        "its file has it found as {name}, in the place of the unit that this host's agent cannot be without"
    )]
    Replaces {
        /// That unit's name.
        name: Word,
        /// Whether that was undone.
        undone: bool,
    },
    /// It answered what it should not.
    #[error("systemd answered what is not understood: {0}")]
    Strange(zbus::Error),
}

impl SystemdError {
    /// Whether it says that it knows of no such unit: there is no file of it, and it is not active.
    #[must_use]
    pub fn is_not_loaded(&self) -> bool {
        matches!(self, Self::Refused { name, .. } if name.ends_with(".NoSuchUnit"))
    }
}

/// Whether a service lasts, or does its work once (`Type=oneshot`, systemd.service(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// It runs until it is stopped: its state tells that it was started.
    Lasts,
    /// It does its work once and is active afterwards, until the host restarts.
    StaysActive,
    /// It does its work once and is inactive afterwards.
    Ends,
}

impl Systemd {
    /// Connects to the system's message bus.
    ///
    /// # Errors
    /// If there is none.
    pub fn connect() -> Result<Self, SystemdError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(SystemdError::Runtime)?;
        let connection = runtime.block_on(async {
            let connected = tokio::time::timeout(PATIENCE, Connection::system()).await;
            connected.map_err(|_| SystemdError::Silent)?.map_err(SystemdError::Bus)
        })?;
        Ok(Self { connection, runtime })
    }

    /// What a unit is now. A unit that there is not is one, too: its `load` says so.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_unit(&self, unit: &UnitName) -> Result<UnitState, SystemdError> {
        self.runtime.block_on(async {
            let path = self.load(unit).await?;
            let path = path.as_str();
            let needed = |name| async move {
                let text: Option<String> = property(&self.connection, path, UNIT, name).await?;
                Ok::<Word, SystemdError>(Text::of(text.unwrap_or_default()))
            };
            let (load, active) = (needed("LoadState").await?, needed("ActiveState").await?);
            let sub = needed("SubState").await?;
            read_rest(&self.connection, path, unit.as_str(), [load, active, sub]).await
        })
    }

    /// The unit's own name: it may have been asked for by another one of it.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_id(&self, unit: &UnitName) -> Result<String, SystemdError> {
        self.runtime.block_on(async {
            let path = self.load(unit).await?;
            let id = property::<String>(&self.connection, path.as_str(), UNIT, "Id").await?;
            Ok(id.unwrap_or_else(|| unit.to_string()))
        })
    }

    /// Whether the unit's file was changed since systemd read it.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_needs_reload(&self, unit: &UnitName) -> Result<bool, SystemdError> {
        self.runtime.block_on(async {
            let path = self.load(unit).await?;
            let needs = property::<bool>(&self.connection, path.as_str(), UNIT, "NeedDaemonReload").await?;
            Ok(needs.unwrap_or(false))
        })
    }

    /// Whether the unit is a service that lasts, or one that does its work once.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_lasting(&self, unit: &UnitName) -> Result<Lasting, SystemdError> {
        self.runtime.block_on(async {
            let (path, own) = (self.load(unit).await?, interface(unit.as_str()));
            let kind = property::<String>(&self.connection, path.as_str(), &own, "Type").await?;
            let stays = property::<bool>(&self.connection, path.as_str(), &own, "RemainAfterExit").await?;
            Ok(match kind.as_deref() {
                Some("oneshot") if stays.unwrap_or(false) => Lasting::StaysActive,
                Some("oneshot") => Lasting::Ends,
                _ => Lasting::Lasts,
            })
        })
    }

    /// Whether systemd is stopping everything, for the host restarts or goes down.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        let state = property::<String>(&self.connection, PATH, MANAGER, "SystemState");
        self.runtime.block_on(state).is_ok_and(|state| state.as_deref() == Some("stopping"))
    }

    /// Has systemd forget that the unit failed, and how often it was started.
    ///
    /// # Errors
    /// If it does not.
    pub fn reset_failed(&self, unit: &UnitName) -> Result<(), SystemdError> {
        let asked = (unit.as_str(),);
        self.runtime.block_on(call(&self.connection, PATH, MANAGER, "ResetFailedUnit", &asked)).map(drop)
    }

    /// Has systemd read all its files again.
    ///
    /// # Errors
    /// If it does not.
    pub fn reload(&self) -> Result<(), SystemdError> {
        self.runtime.block_on(call(&self.connection, PATH, MANAGER, "Reload", &())).map(drop)
    }

    async fn load(&self, unit: &UnitName) -> Result<OwnedObjectPath, SystemdError> {
        ask(&self.connection, PATH, MANAGER, "LoadUnit", &(unit.as_str(),)).await
    }

    /// Has systemd do this to the unit, in the place of what else it is about to do to it, and waits for the end of that.
    /// Should the message bus go away meanwhile (it is a unit, too), the connection is made anew.
    ///
    /// Asked to stop, it takes the job back if systemd has not begun with it and it is this process's alone; a job that was
    /// begun goes on, for taking it back would undo nothing.
    ///
    /// # Errors
    /// If systemd does not take the job, or cannot be heard any more.
    pub fn run_job(&mut self, unit: &UnitName, does: JobType, stop: &mut Stop) -> Result<Job, SystemdError> {
        let Self { connection, runtime } = self;
        runtime.block_on(async {
            let mut ends = Ends::hear(connection).await?;
            let path: OwnedObjectPath = ask(connection, PATH, MANAGER, "LoadUnit", &(unit.as_str(),)).await?;
            // Asked for twice, it is one job: the one that was there.
            let before = property::<(u32, OwnedObjectPath)>(connection, path.as_str(), UNIT, "Job").await?;
            let job: OwnedObjectPath =
                ask(connection, PATH, MANAGER, does.method(), &(unit.as_str(), "replace")).await?;
            let is_ours = before.is_none_or(|(_, before)| before != job);
            let asked = stop.as_fd().try_clone_to_owned().map_err(SystemdError::Runtime)?;
            // SAFETY: an `OwnedFd` is open and the same one for as long as it is there.
            let asked = unsafe { AsyncFd::register_with_interest(asked, Interest::READABLE) };
            let asked = asked.map_err(|error| SystemdError::Runtime(error.into()))?;
            loop {
                tokio::select! {
                    biased;
                    ended = ends.wait(connection, &job) => return Ok(ended?.map_or(Job::Missed, Job::Ended)),
                    ready = asked.readable() => {
                        drop(ready.map(|mut ready| ready.clear_ready()));
                        if let Some(why) = stop.requested() {
                            return leave(connection, &job, does, is_ours, why).await;
                        }
                    }
                }
            }
        })
    }
}

/// Leaves a job to systemd, or takes it back.
async fn leave(
    connection: &Connection,
    job: &OwnedObjectPath,
    asked: JobType,
    is_ours: bool,
    why: Why,
) -> Result<Job, SystemdError> {
    let (id, does, state) = tokio::try_join!(
        property::<u32>(connection, job.as_str(), JOB, "Id"),
        property::<String>(connection, job.as_str(), JOB, "JobType"),
        property::<String>(connection, job.as_str(), JOB, "State"),
    )?;
    let (Some(id), Some(does), Some(state)) = (id, does, state) else { return Ok(Job::Missed) };
    // A restart whose first half is done is a start that waits: the unit is down, and without the job it stays down.
    let has_begun = does == "start" && asked != JobType::Start;
    if is_ours
        && state == "waiting"
        && !has_begun
        && call(connection, PATH, MANAGER, "CancelJob", &(id,)).await.is_ok()
    {
        return Ok(Job::TakenBack(why));
    }
    Ok(Job::Left(why, UnitJob { id, does: Text::of(does), state: Text::of(state) }))
}

/// What there is to know of a unit beside its load, active and sub state.
async fn read_rest(
    connection: &Connection,
    path: &str,
    unit: &str,
    [load, active, sub]: [Word; 3],
) -> Result<UnitState, SystemdError> {
    let own = interface(unit);
    let kind = unit.rsplit('.').next().unwrap_or_default();
    // Asked only of what has an answer: a host may have thousands of units.
    let pid = async {
        match kind == "service" {
            true => property::<u32>(connection, path, &own, "MainPID").await,
            false => Ok(None),
        }
    };
    let result = async {
        match WITHOUT_RESULT.contains(&kind) {
            true => Ok(None),
            false => property::<String>(connection, path, &own, "Result").await,
        }
    };
    let (file, since, pid, result) = tokio::try_join!(
        property::<String>(connection, path, UNIT, "UnitFileState"),
        property::<u64>(connection, path, UNIT, "StateChangeTimestamp"),
        pid,
        result,
    )?;
    Ok(UnitState {
        load,
        active,
        sub,
        file: file.filter(|file| !file.is_empty()).map(Text::of),
        main_pid: pid.filter(|pid| *pid > 0),
        result: result.map(Text::of),
        since: since.filter(|at| *at > 0).map(microseconds),
    })
}

/// A connection to a bus that is about to come back.
async fn reconnect() -> Result<Connection, SystemdError> {
    let connected = tokio::time::timeout(PATIENCE, async {
        loop {
            match Connection::system().await {
                Ok(connection) => return connection,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    });
    connected.await.map_err(|_| SystemdError::Ended)
}

/// A property of an object; `None` if it has none of this name, or is gone.
async fn property<T>(
    connection: &Connection,
    path: &str,
    interface: &str,
    name: &str,
) -> Result<Option<T>, SystemdError>
where
    T: TryFrom<OwnedVariant>,
    T::Error: Into<zbus::Error>,
{
    match ask::<OwnedVariant>(connection, path, PROPERTIES, "Get", &(interface, name)).await {
        Ok(value) => {
            value.try_into().map(Some).map_err(|error: T::Error| SystemdError::Strange(error.into()))
        }
        Err(SystemdError::Refused { name, .. }) if ABSENT.iter().any(|absent| name.ends_with(absent)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn ask<T: DeserializeOwned + Type>(
    connection: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    arguments: &(impl Serialize + DynamicType),
) -> Result<T, SystemdError> {
    body(&call(connection, path, interface, method, arguments).await?)
}

async fn call(
    connection: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    arguments: &(impl Serialize + DynamicType),
) -> Result<Message, SystemdError> {
    patiently(connection.call_method(Some(SERVICE), path, Some(interface), method, arguments)).await
}

async fn patiently<T>(answer: impl Future<Output = zbus::Result<T>>) -> Result<T, SystemdError> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Err(_) => Err(SystemdError::Silent),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(refusal(error)),
    }
}

fn refusal(error: zbus::Error) -> SystemdError {
    match error {
        zbus::Error::MethodError(name, text, _) => {
            let text = Text::of(text.as_deref().unwrap_or(name.as_str()));
            SystemdError::Refused { name: name.to_string(), text }
        }
        zbus::Error::FDO(error) => {
            use zbus::DBusError as _;
            let text = Text::of(error.description().unwrap_or(error.name().as_str()));
            SystemdError::Refused { name: error.name().to_string(), text }
        }
        error => SystemdError::Bus(error),
    }
}

fn body<T: DeserializeOwned + Type>(message: &Message) -> Result<T, SystemdError> {
    message.body().deserialize().map_err(SystemdError::Strange)
}

impl JobType {
    const fn method(self) -> &'static str {
        match self {
            Self::Start => "StartUnit",
            Self::Stop => "StopUnit",
            Self::Restart => "RestartUnit",
            Self::Reload => "ReloadUnit",
            Self::ReloadOrRestart => "ReloadOrRestartUnit",
        }
    }
}

/// The interface of the unit's type: `org.freedesktop.systemd1.Service`.
fn interface(unit: &str) -> String {
    let kind = unit.rsplit('.').next().unwrap_or_default();
    let (first, rest) = kind.split_at(kind.len().min(1));
    format!("{SERVICE}.{}{rest}", first.to_ascii_uppercase())
}

fn microseconds(at: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(at / 1000).unwrap_or(i64::MAX))
}
