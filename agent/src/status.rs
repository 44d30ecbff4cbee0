//! What a running agent says about itself: to the service manager, and to `fleetward-agent status`.

use std::ffi::OsString;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::{self, Paths};
use crate::identity::{self, Identity};
use crate::link::takeover::{self, Takeovers};
use crate::link::{LinkState, chain, stopped};
use crate::platform::{clock, files, notify};
use crate::run::drain;

/// The running agent's own words, in its status file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The agent's process.
    pub pid: u32,
    /// The controller it is connected to, if it is.
    pub controller: Option<String>,
    /// Since when, in milliseconds since the epoch.
    pub since_ms: Option<i64>,
    /// Whether the host waits for approval.
    pub quarantined: bool,
    /// The controller's clock minus the host's at the last welcome, in milliseconds.
    pub skew_ms: Option<i64>,
    /// Why it is not connected, as far as it knows.
    pub last_error: Option<String>,
    /// How often another connection with this identity took over.
    #[serde(default)]
    pub takeovers: Takeovers,
}

/// Keeps the status file and the service manager informed until `stopping` turns true.
pub(crate) async fn report(
    paths: Paths,
    socket: Option<OsString>,
    mut state: watch::Receiver<LinkState>,
    mut takeovers: watch::Receiver<Takeovers>,
    mut stopping: watch::Receiver<bool>,
) {
    let socket = socket.as_deref();
    notify::notify(socket, "READY=1");
    let mut report = Report { pid: std::process::id(), ..Report::default() };
    loop {
        let status = describe(&mut report, &state.borrow_and_update());
        report.takeovers = *takeovers.borrow_and_update();
        notify::notify(socket, &format!("STATUS={status}"));
        let written =
            serde_json::to_vec(&report).map(|json| files::ensure_file(&paths.status(), 0o644, &json));
        if let Ok(Err(error)) = written {
            tracing::warn!(error = &error as &dyn std::error::Error, "status_not_written");
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { break },
            changed = takeovers.changed() => if changed.is_err() { break },
            () = stopped(&mut stopping) => break,
        }
    }
    notify::notify(socket, "STOPPING=1");
    drop(files::ensure_absent(&paths.status()));
}

fn describe(report: &mut Report, state: &LinkState) -> String {
    match state {
        LinkState::Connected { controller, since, quarantined, skew_ms } => {
            report.controller = Some(controller.clone());
            report.since_ms = Some(since.as_millis());
            report.quarantined = *quarantined;
            report.skew_ms = Some(*skew_ms);
            report.last_error = None;
            let waiting = if *quarantined { ", waiting for approval" } else { "" };
            format!("connected to {controller}{waiting}")
        }
        LinkState::Connecting { last_error } => {
            report.controller = None;
            report.since_ms = None;
            report.last_error.clone_from(last_error);
            last_error
                .as_ref()
                .map_or_else(|| "connecting".to_owned(), |error| format!("connecting: {error}"))
        }
    }
}

/// What the agent that uses these files said last, if one does.
#[must_use]
pub fn read_report(paths: &Paths) -> Option<Report> {
    let json = files::read_file(&paths.status(), 64 << 10).ok()?;
    // The lock, not the file, says whether it lives: a crash leaves the file.
    let alive = matches!(files::lock_exclusively(&paths.state.join("lock")), Ok(None));
    alive.then(|| serde_json::from_slice(&json).ok()).flatten()
}

/// Writes what is known about the host for a person; returns whether an agent runs and is connected.
///
/// # Errors
/// If `out` cannot be written to.
pub fn show(paths: &Paths, out: &mut impl Write) -> io::Result<bool> {
    match identity::read_client_id(&paths.client_id) {
        Ok(Some(client)) => writeln!(out, "client ID    {client}")?,
        Ok(None) => writeln!(out, "client ID    none ({} is missing)", paths.client_id.display())?,
        Err(error) => writeln!(out, "client ID    {error}")?,
    }
    match Identity::load(paths) {
        Ok(identity) => {
            let left = identity.validity.until.since(clock::now());
            let (days, hours) = (left.as_secs() / 86_400, left.as_secs() / 3600 % 24);
            writeln!(out, "certificate  for {}, valid for {days} d {hours} h", identity.client)?;
        }
        Err(error) => writeln!(out, "certificate  {error}")?,
    }
    match config::read_controllers(paths) {
        Ok(controllers) if controllers.is_empty() => {
            writeln!(out, "controllers  none is configured in {}", paths.config.display())?;
        }
        Ok(controllers) => {
            let names: Vec<_> = controllers.iter().map(ToString::to_string).collect();
            writeln!(out, "controllers  {}", names.join(", "))?;
        }
        Err(error) => writeln!(out, "controllers  {}", chain(&error))?,
    }
    let report = read_report(paths);
    match &report {
        None => writeln!(out, "agent        not running (start it with `systemctl start fleetward-agent`)")?,
        Some(Report { pid, controller: Some(controller), quarantined, .. }) => {
            let waiting = if *quarantined { ", waiting for approval" } else { "" };
            writeln!(out, "agent        running (pid {pid}), connected to {controller}{waiting}")?;
        }
        Some(Report { pid, last_error, .. }) => {
            let why = last_error.as_deref().unwrap_or("connecting");
            writeln!(out, "agent        running (pid {pid}), not connected: {why}")?;
        }
    }
    if let Some(warning) = report.as_ref().and_then(|report| report.takeovers.warning(clock::now())) {
        writeln!(out, "WARNING      {warning}")?;
        writeln!(out, "             -> {}", takeover::REMEDY)?;
    }
    let drains = drain::read_all(&paths.drains());
    if let Some(oldest) = drains.first() {
        let bytes: u64 = drains.iter().map(|drain| drain.bytes).fold(0, u64::saturating_add);
        let hours = clock::now().since(oldest.since).as_secs() / 3600;
        let runs = if drains.len() == 1 { "1 run" } else { &format!("{} runs", drains.len()) };
        writeln!(
            out,
            "left running {runs} whose processes still hold their output, the oldest for {hours} h; {bytes} bytes of \
             it were read to nowhere"
        )?;
    }
    Ok(report.is_some_and(|report| report.controller.is_some()))
}
