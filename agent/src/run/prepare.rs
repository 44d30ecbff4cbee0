//! Between an order and its supervisor: may it run here, and with what.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use fleetward_protocol::order::Limits;
use fleetward_protocol::run::Refusal;
use fleetward_protocol::time::Timestamp;

use super::Shared;
use super::given::Given;
use super::outcome::RESULT;
use super::spec::{CONTROL, Drains, SCRIPT, SPEC, Spec, User};
use super::work::Work;
use crate::action::{self, Argument, Here, ProcessPlan};
use crate::config::{Paths, Settings};
use crate::gate::{self, not_allowed};
use crate::platform::cgroup::{Group, Wanted};
use crate::platform::{acl, files, users};

/// A run that may start.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) plan: ProcessPlan,
    groups: Vec<Group>,
    settings: Settings,
    /// How long it may take, in milliseconds; zero for as long as it does.
    pub(super) timeout_ms: u64,
    /// Whether it goes on with what a restart of the host cut off.
    resumed: bool,
}

impl Ready {
    /// The same, to go on behind a restart of the host, with what is left of its time.
    pub(super) fn resume(mut self, timeout_ms: u64) -> Self {
        self.plan.resume();
        Self { timeout_ms, resumed: true, ..self }
    }

    /// How many runs the owner allows at once.
    pub(super) const fn capacity(&self) -> usize {
        self.settings.runs.concurrent
    }

    /// What the process is given, for its supervisor's ears alone.
    pub(super) fn given(&self) -> Given {
        let environment = self.plan.environment.iter().map(|(key, value)| (key.clone(), value.clone()));
        let (input, again) = (self.plan.input.clone(), self.plan.resumable);
        Given { environment: environment.collect(), input, again }
    }
}

/// Whether the run may start now, by everything that can change between two runs. What is kept of others makes room for it.
pub(super) async fn check(shared: &Shared, work: &Work, now: Timestamp) -> Result<Ready, Refusal> {
    let ready = check_policy(shared, work, now)?;
    let min_free = ready.settings.runs.min_free();
    shared.ensure_room(min_free).await;
    if files::read_free_space(&shared.host.paths.state).is_ok_and(|free| free < min_free) {
        return Err(Refusal::DiskFull);
    }
    Ok(ready)
}

/// Whether the owner and the host allow it.
fn check_policy(shared: &Shared, work: &Work, now: Timestamp) -> Result<Ready, Refusal> {
    let Work { order, action, contents } = work;
    let (paths, client) = (&shared.host.paths, &shared.host.client);
    let settings = gate::check(paths, client, shared.settings(), order, &action.kind, now)?;
    let (own, places) = (&shared.host.account, shared.host.places());
    let here = Here { own, places, allowed: settings.policy.allowed(&action.kind), boot: shared.host.boot };
    let plan = action::plan(order, action, contents, &here)?;
    let user = plan.account.as_ref().unwrap_or(&shared.host.account).name.as_str();
    gate::check_user(paths, &settings, user)?;
    gate::check_objects(paths, &settings, &action.kind, &plan.objects)?;
    if let Some(allowed) = &settings.policy.environment
        && let Some(variable) = plan.requested.iter().find(|variable| !allowed.contains(*variable))
    {
        return Err(gate::not_named(paths, "policy.environment", allowed, variable));
    }
    let Limits { memory, cpu_milli, tasks, .. } = order.limits;
    // A limit that is not enforced is worse than none: it would be believed.
    let groups = shared.host.delegated.groups(&order.run.to_string(), Wanted { memory, cpu_milli, tasks });
    let groups = groups.map_err(|error| not_allowed(&error.to_string()))?;
    let timeout_ms = capped(order.limits.timeout_ms, settings.runs.max_timeout_s.saturating_mul(1000));
    Ok(Ready { plan, groups, settings, timeout_ms, resumed: false })
}

const fn capped(asked: u64, cap: u64) -> u64 {
    match (asked, cap) {
        (asked, 0) => asked,
        (0, cap) => cap,
        (asked, cap) if asked < cap => asked,
        (_, cap) => cap,
    }
}

/// Makes the run's directory with everything its supervisor needs.
///
/// # Errors
/// If it exists: then the run was prepared before, and must not be again.
pub(super) fn prepare(shared: &Shared, work: &Work, ready: &Ready) -> io::Result<()> {
    let directory = shared.directory(work.order.run);
    // Others may pass through on the way to the script they run as, and see nothing on the way.
    files::create_directory(&directory, 0o711)?;
    let spec = spec(work, ready, &directory, &shared.host.paths);
    if let (Some(_), Some(content)) = (&spec.script, work.contents.first()) {
        write_script(&directory, content, spec.user.as_ref())?;
    }
    write(&directory.join(SPEC), 0o600, &spec.encode()?)?;
    Ok(())
}

/// Makes a run's directory ready for a supervisor that goes on behind a restart of the host.
///
/// # Errors
/// If it cannot be written to.
pub(super) fn prepare_again(shared: &Shared, work: &Work, ready: &Ready) -> io::Result<()> {
    let directory = shared.directory(work.order.run);
    // The socket of a supervisor that is gone; and a result that was torn when the host went away.
    for left in [CONTROL, RESULT] {
        files::ensure_absent(&directory.join(left)).map_err(io::Error::other)?;
    }
    let spec = spec(work, ready, &directory, &shared.host.paths).encode()?;
    files::ensure_file(&directory.join(SPEC), 0o600, &spec).map_err(io::Error::other)
}

fn spec(work: &Work, ready: &Ready, directory: &Path, paths: &Paths) -> Spec {
    let Ready { plan, groups, settings, timeout_ms, resumed } = ready;
    let (order, limits) = (&work.order, work.order.limits);
    let script = directory.join(SCRIPT).display().to_string();
    let arguments = plan.arguments.iter().map(|argument| match argument {
        Argument::Text(text) => text.clone(),
        Argument::Script => script.clone(),
        Argument::Directory => directory.display().to_string(),
    });
    Spec {
        run: order.run,
        operation: order.operation,
        resources: plan.resources.clone(),
        program: plan.program.clone(),
        arguments: arguments.collect(),
        script: plan.arguments.contains(&Argument::Script).then(|| script.clone()),
        directory: plan.directory.display().to_string(),
        user: plan.account.as_ref().filter(|_| !plan.becomes).map(|account| User {
            name: account.name.clone(),
            uid: account.uid,
            gid: account.gid,
            groups: users::read_groups(account),
        }),
        timeout_ms: *timeout_ms,
        grace_ms: limits.grace_ms,
        output: capped(limits.output, settings.runs.max_output()),
        min_free: settings.runs.min_free(),
        groups: groups.clone(),
        resumed: *resumed,
        drains: (settings.runs.drains > 0).then(|| Drains {
            directory: paths.drains().display().to_string(),
            seconds: settings.runs.drain_s,
        }),
    }
}

/// The script's file. The user it runs as can read and execute it, and nobody but root can change it: what runs is what
/// the digest was checked of.
fn write_script(directory: &Path, content: &[u8], user: Option<&User>) -> io::Result<()> {
    let file = write(&directory.join(SCRIPT), 0o500, content)?;
    match user {
        Some(user) => acl::ensure_readable_by(&file, user.uid, user.gid),
        None => Ok(()),
    }
}

fn write(path: &Path, mode: u32, content: &[u8]) -> io::Result<fs::File> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    Ok(file)
}
