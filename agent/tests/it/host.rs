//! A host in a temporary directory, and a controller's questions to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fleetward_agent::config::Paths;
use fleetward_agent::journal::Journal;
use fleetward_agent::platform::cgroup::Delegated;
use fleetward_agent::platform::{clock, users};
use fleetward_agent::run::{Host, Opened, Progress, Runs, Stage};
use fleetward_protocol::action::script::Script;
use fleetward_protocol::action::{ActionRequest, Contract as _};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::event::Event;
use fleetward_protocol::id::{BootId, JournalId, OperationId, RunId};
use fleetward_protocol::message::{Dispatch, Finished, OpenRun};
use fleetward_protocol::order::{Authority, Draft, Limits, Planned, Sealed, Step, Target};
use fleetward_protocol::output::{HEADER, Records, Stream};
use fleetward_protocol::run::{Outcome, Refusal};
use fleetward_protocol::text::{List, Text};
use serde_bytes::ByteBuf;
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

/// The state of a host; it outlives every agent that works on it.
pub(crate) struct Machine {
    pub(crate) directory: TempDir,
    pub(crate) client: ClientId,
    /// Where its message bus is.
    pub(crate) bus: Option<String>,
    /// Where its apt has its configuration.
    pub(crate) apt: Option<String>,
    /// Where its nginx has its configuration.
    pub(crate) nginx: Option<String>,
    /// The file that says that it wants to be rebooted, which is not there.
    pub(crate) reboot: PathBuf,
}

/// One life of an agent on a machine, without its link.
pub(crate) struct Life {
    pub(crate) runs: Runs,
    pub(crate) journal: JournalId,
    /// What it told its operator when it began.
    pub(crate) notices: Vec<String>,
    paths: Paths,
    client: ClientId,
}

/// A script and how it is run.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) operation: OperationId,
    /// The run that follows from the operation, on a [`Machine`].
    pub(crate) run: RunId,
    pub(crate) content: String,
    pub(crate) script: Script,
    /// Another action, in the script's place.
    pub(crate) typed: Option<ActionRequest>,
    /// Whether it is done, or what it would change is told.
    pub(crate) authority: fn(ActionRequest) -> Authority,
    pub(crate) limits: Limits,
    pub(crate) remaining: Duration,
}

pub(crate) fn run_id() -> RunId {
    RunId::from_uuid(Uuid::now_v7())
}

/// The client ID of every [`Machine`].
pub(crate) fn client() -> ClientId {
    ClientId::issued(Uuid::from_u128(0x17))
}

pub(crate) fn boot(number: u128) -> BootId {
    BootId::from_uuid(Uuid::from_u128(number))
}

/// A bash script with these lines.
pub(crate) fn script(body: &str) -> Request {
    let content = format!("#!/bin/bash\n{body}\n");
    let operation = OperationId::from_uuid(Uuid::now_v7());
    Request {
        operation,
        run: RunId::derived(operation, &client(), 0),
        script: Script {
            name: "test".parse().unwrap(),
            digest: Digest::of(content.as_bytes()),
            arguments: vec![],
            environment: BTreeMap::new(),
            directory: None,
            user: None,
            resources: vec![],
        },
        typed: None,
        authority: Authority::Run,
        content,
        // What a failed test leaves behind ends by itself.
        limits: Limits { timeout_ms: 30_000, grace_ms: 300, ..Limits::DEFAULT },
        remaining: Duration::from_secs(60),
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let reboot = directory.path().join("reboot-required");
        let machine = Self { directory, client: client(), bus: None, apt: None, nginx: None, reboot };
        std::fs::create_dir(machine.paths().state).unwrap();
        std::fs::create_dir(machine.paths().runs()).unwrap();
        machine.write_client_id(machine.client.as_str());
        // The package's allows everything.
        std::fs::write(machine.paths().config, "").unwrap();
        machine
    }

    pub(crate) fn paths(&self) -> Paths {
        let at = |name| self.directory.path().join(name);
        Paths { config: at("agent.toml"), state: at("state"), client_id: at("client_id") }
    }

    pub(crate) fn write_client_id(&self, text: &str) {
        std::fs::write(self.paths().client_id, format!("{text}\n")).unwrap();
    }

    /// Starts a life of the agent in the given boot. Needs a runtime.
    pub(crate) fn start(&self, boot: BootId) -> Life {
        self.start_with(boot, Delegated::default())
    }

    /// The same, with control groups to use.
    pub(crate) fn start_with(&self, boot: BootId, delegated: Delegated) -> Life {
        self.start_supervised_by(boot, delegated, env!("CARGO_BIN_EXE_fleetward-agent").into())
    }

    /// The same, with another program as supervisor.
    pub(crate) fn start_supervised_by(
        &self,
        boot: BootId,
        delegated: Delegated,
        supervisor: PathBuf,
    ) -> Life {
        let fresh = JournalId::from_uuid(Uuid::now_v7());
        let (journal, contents) = Journal::open(&self.paths().journal(), fresh, clock::now()).unwrap();
        let host = Host {
            paths: self.paths(),
            supervisor,
            client: self.client.clone(),
            boot,
            account: users::read_own_account(),
            delegated,
            bus: self.bus.clone(),
            apt: self.apt.clone(),
            nginx: self.nginx.clone(),
            reboot: Some(self.reboot.display().to_string()),
        };
        let (runs, notices) = Runs::recover(host, journal, &contents);
        Life { runs, journal: contents.id, notices, paths: self.paths(), client: self.client.clone() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Life {
    pub(crate) fn dispatch(&self, request: &Request) -> OpenRun {
        dispatch(&self.client, request)
    }

    /// Opens a run as a controller with this dispatch would.
    pub(crate) async fn begin(&self, request: &Request) -> watch::Receiver<Progress> {
        match self.runs.open(self.dispatch(request)).await {
            Opened::Held(progress) => progress,
            Opened::Unknown => panic!("the run is unknown"),
        }
    }

    /// Opens a run as a controller that knows it was accepted.
    pub(crate) async fn resume(&self, run: RunId) -> watch::Receiver<Progress> {
        match self.runs.open(OpenRun { run, offset: 0, started: false, cancel: None, dispatch: None }).await {
            Opened::Held(progress) => progress,
            Opened::Unknown => panic!("the run is unknown"),
        }
    }

    /// Runs a script to its end.
    pub(crate) async fn finish(&self, request: &Request) -> Finished {
        finished(self.begin(request).await).await
    }

    pub(crate) async fn refusal(&self, request: &Request) -> Refusal {
        match last(self.begin(request).await).await {
            Stage::Refused { refusal, .. } => refusal,
            stage => panic!("{stage:?}"),
        }
    }

    /// The payload of each stream, and the count of dropped bytes.
    pub(crate) fn output(&self, run: RunId, end: &Finished) -> Output {
        let log = self.runs.read_output(run, 0, end.log_length.try_into().unwrap(), Vec::new()).unwrap();
        let mut output = Output::default();
        let mut records = Records::new(&log);
        for record in records.by_ref() {
            let record = record.unwrap();
            match record.stream {
                Stream::Stdout => output.stdout.extend_from_slice(record.payload),
                Stream::Stderr => output.stderr.extend_from_slice(record.payload),
                Stream::Dropped => output.dropped += record.dropped().unwrap(),
                Stream::Event => output.events.push(Event::decode(record.payload).unwrap()),
                Stream::Report => output.report = Some(serde_json::from_slice(record.payload).unwrap()),
            }
        }
        assert_eq!(records.consumed(), log.len());
        output
    }

    /// Runs a script that must succeed; returns what it wrote to its standard output.
    pub(crate) async fn stdout(&self, request: &Request) -> String {
        let end = self.finish(request).await;
        let output = self.output(request.run, &end);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(end.outcome, Outcome::Exited(0), "{stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn directory(&self, run: RunId) -> PathBuf {
        self.paths.runs().join(run.to_string())
    }
}

/// What a controller sends to start the run: the order of a plan for this host alone.
pub(crate) fn dispatch(client: &ClientId, request: &Request) -> OpenRun {
    asking(client, request.authority, request)
}

/// The same, with another authority.
pub(crate) fn asking(
    client: &ClientId,
    authority: fn(ActionRequest) -> Authority,
    request: &Request,
) -> OpenRun {
    // As a controller would that checks nothing.
    let action = request.typed.clone().unwrap_or_else(|| ActionRequest {
        kind: Script::KIND.to_owned(),
        params: serde_json::to_string(&request.script).unwrap(),
    });
    let contents: Vec<&str> =
        request.typed.is_none().then_some(request.content.as_str()).into_iter().collect();
    let step = Step {
        authority: authority(action),
        limits: request.limits.to_list(),
        contents: List::of(contents.iter().map(|_| request.script.digest)),
    };
    let now = clock::now();
    let draft = Draft {
        operation: request.operation,
        issuer: Text::of("test"),
        not_before: now,
        deadline: now + request.remaining,
        policy: Digest::of(b""),
    };
    let dispatch = Dispatch {
        order: order(draft, client, &step),
        contents: List::of(contents.iter().map(|content| ByteBuf::from(content.as_bytes()))),
        remaining_ms: u64::try_from(request.remaining.as_millis()).unwrap(),
    };
    let run = RunId::derived(request.operation, client, 0);
    OpenRun { run, offset: 0, started: false, cancel: None, dispatch: Some(dispatch) }
}

/// The order of one step on one host.
pub(crate) fn order(draft: Draft, client: &ClientId, step: &Step) -> Vec<u8> {
    let step = step.encode().unwrap();
    let target = Target { client: client.clone(), steps: List::of([Digest::of(&step)]) };
    let planned = Planned::new(draft, std::slice::from_ref(&target)).unwrap();
    let proof = planned.proof(0);
    let sealed = Sealed { plan: planned.plan, signatures: List::default(), target, proof, position: 0, step };
    sealed.encode().unwrap()
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) dropped: u64,
    /// What a typed action told of its steps.
    pub(crate) events: Vec<Event>,
    /// And what it reported.
    pub(crate) report: Option<serde_json::Value>,
}

/// Waits for the run's last stage.
pub(crate) async fn last(mut progress: watch::Receiver<Progress>) -> Stage {
    let wait = progress.wait_for(|progress| progress.stage.is_final());
    let stage = tokio::time::timeout(Duration::from_secs(60), wait).await;
    stage.expect("the run ends within a minute").unwrap().stage.clone()
}

pub(crate) async fn finished(progress: watch::Receiver<Progress>) -> Finished {
    match last(progress).await {
        Stage::Finished { end, .. } => end,
        stage => panic!("{stage:?}"),
    }
}

/// Waits until the run's output log has at least this many bytes.
pub(crate) async fn written(progress: &mut watch::Receiver<Progress>, bytes: u64) {
    let wait = progress.wait_for(|progress| progress.output >= bytes);
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    drop(waited.expect("output comes within a minute").unwrap());
}

/// Says that this machine lacks what a test needs. With `FLEETWARD_TEST_ALL=1`, as in `cargo xtask test`, that is a
/// failure: nothing passes there by not being looked at.
pub(crate) fn skipped(what: &str, reason: &str) {
    let all = std::env::var("FLEETWARD_TEST_ALL").is_ok_and(|all| all == "1");
    assert!(!all, "{what} cannot be tested here: {reason}");
    eprintln!("SKIPPED: {what} because {reason}");
}

/// Whether a process with this id lives: not when it is a zombie, or dead and about to be gone (Z and X, proc_pid_stat(5)).
pub(crate) fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with(['Z', 'X']))
}

/// Blocks until the process is gone.
pub(crate) fn exited(pid: i32) {
    // SAFETY: pidfd_open(2) takes integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if let Ok(fd @ 0..) = i32::try_from(fd) {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // Again when a signal interrupts it: the process that ends is a child, and its parent hears of it by one.
        // SAFETY: one valid pollfd.
        while unsafe { libc::poll(&raw mut poll, 1, 20_000) } < 0 {
            assert_eq!(nix::errno::Errno::last(), nix::errno::Errno::EINTR);
        }
        // SAFETY: ours.
        unsafe { libc::close(fd) };
    }
}

/// Starts a script that writes the ids of processes, one a line; returns when it wrote `count` of them.
pub(crate) async fn numbers(
    life: &Life,
    request: &Request,
    count: usize,
) -> (watch::Receiver<Progress>, Vec<i32>) {
    let mut progress = life.begin(request).await;
    let mut wanted = HEADER as u64 + 2;
    loop {
        written(&mut progress, wanted).await;
        let length = progress.borrow().output;
        let log = life.runs.read_output(request.run, 0, length.try_into().unwrap(), Vec::new()).unwrap();
        let text: Vec<u8> = Records::new(&log).flat_map(|record| record.unwrap().payload.to_vec()).collect();
        let pids: Vec<i32> =
            String::from_utf8(text).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        if pids.len() >= count {
            return (progress, pids);
        }
        wanted = length + 1;
    }
}
