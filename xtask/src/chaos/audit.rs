//! The audit: every operation and every run that the controller knows, against the hosts' own records.

mod actions;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleetward_api::work::run::{Fate, Left, RunState};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Chaos;
use super::action::SCRIPT;
use super::diary::{Injected, Span};
use super::fault::{AGENT_STATE, CONTROLLER_STATE, CUTS_OFF, ENDS_AGENT, ENDS_HOST};
use super::plan::Kind;
use super::script::{RECORDS, Script};
use super::table::Account;
use super::verdict::{Around, Facts, Match, Refusal, Step, compare, judge, judge_order};
use super::work::Answer;
use crate::fleet::URL;
use crate::process;

/// What the controller says of an operation.
#[derive(Debug, Deserialize)]
struct Operation {
    number: String,
    reason: Option<String>,
}

/// What the controller says of a run.
#[derive(Debug, Deserialize)]
struct Run {
    id: String,
    host: String,
    step: u32,
    kind: String,
    subject: String,
    state: RunState,
    state_detail: Option<String>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    dispatched_at: Option<String>,
    started_at: Option<String>,
    ended_at: Option<String>,
    report: Option<Map<String, Value>>,
    output_dropped: u64,
    reattached: u32,
    left: Option<Left>,
}

/// How long a run was on its host, at the most.
#[derive(Debug)]
struct Stay {
    run: String,
    host: String,
    span: Span,
}

/// What a host recorded of a run.
#[derive(Debug, Clone, Copy, Default)]
struct Recorded {
    starts: usize,
    wrote: Option<(u64, u64)>,
    /// Whether what it left running came to its last word.
    lived: bool,
    /// When its start was recorded, and when its end was: the files' times are the kernel's, which no fault steps.
    started: Option<i64>,
    ended: Option<i64>,
}

/// A moment more on both sides of a run: its times are the controller's, which hears of things later.
const MARGIN: i64 = 3_000;
/// How soon the controller notices that its disk is full, in milliseconds: it looks every five seconds.
const NOTICED: i64 = 8_000;
/// After the end of its run, how soon [`Script::Daemon`]'s process comes to its last word, in milliseconds, at the latest.
const LIVES: i64 = 30_000;
const DOWNLOAD: Duration = Duration::from_secs(300);

pub(super) fn audit(chaos: &Chaos) -> Result<Account> {
    let mut account = Account { wrong: chaos.diary.problems(), ..Account::default() };
    let faults = chaos.diary.faults();
    let operations: Vec<Operation> = serde_json::from_value(chaos.fleet.json(&["op", "list"])?)?;
    check_requests(chaos, &operations, &faults, &mut account);
    let (mut typed, mut stays) = (Vec::new(), Vec::new());
    let recorded = read_records(chaos)?;
    let (mut known, mut told) = (BTreeSet::new(), BTreeSet::new());
    let curl = Curl::of(chaos)?;
    for operation in &operations {
        let runs: Vec<Run> = serde_json::from_value(chaos.fleet.json(&["op", "runs", &operation.number])?)?;
        account.operations += 1;
        for run in &runs {
            stays.push(Stay { run: run.id.clone(), host: run.host.clone(), span: span(run)? });
        }
        if runs.iter().any(|run| run.kind != SCRIPT) {
            typed.extend(runs.into_iter().map(|run| (operation, run)));
            continue;
        }
        curl.download(&runs)?;
        for run in &runs {
            known.insert(run.id.clone());
            if run.left.is_some_and(|left| left.fate == Fate::Unkept) {
                told.insert(run.id.clone());
            }
            let recorded = recorded.get(&run.id).copied().unwrap_or_default();
            audit_run(chaos, &curl, operation, &runs, run, recorded, &faults, &mut account)
                .with_context(|| format!("audit run {}", run.id))?;
        }
        check_order(operation, &runs, &recorded, &mut account);
    }
    actions::audit(chaos, &typed, &stays, &faults, &mut account)?;
    for run in recorded.keys().filter(|run| !known.contains(*run)) {
        account.wrong.push(format!("run {run} started on a host, and the controller does not know it"));
    }
    find_leftovers(chaos, &told, &mut account)?;
    Ok(account)
}

/// The kind of action that reboots its host.
const REBOOT: &str = "reboot";
/// Faults that are runs of that kind.
const ASKED: [Kind; 2] = [Kind::RebootAsked, Kind::BusyRebootAsked];

/// What a request may be refused with, and which fault explains it.
const REASONS: [(Kind, &str); 2] =
    [(Kind::ControllerDiskFilled, "disk is full"), (Kind::ControllerRestarted, "the controller is stopping")];

/// Every request that was taken is one operation, every refused one none, and the refusals have their reason.
fn check_requests(chaos: &Chaos, operations: &[Operation], faults: &[Injected], account: &mut Account) {
    let mut found: HashMap<&str, usize> = HashMap::new();
    for operation in operations {
        *found.entry(operation.reason.as_deref().unwrap_or_default()).or_default() += 1;
    }
    let full: Vec<Span> = faults
        .iter()
        .filter(|fault| fault.kind == Kind::ControllerDiskFilled)
        .map(|fault| fault.span)
        .collect();
    let ledger = chaos.ledger();
    account.requests = ledger.asked.len();
    for asked in &ledger.asked {
        let count = found.remove(asked.reason.as_str()).unwrap_or(0);
        let wrong = match &asked.answer {
            Answer::Taken if count != 1 => Some(format!("was taken, and there are {count} operations of it")),
            Answer::Taken => {
                let noticed =
                    |full: &&Span| full.from + NOTICED < asked.span.from && asked.span.until < full.until;
                full.iter().find(noticed).map(|_| "was taken with a full disk".to_owned())
            }
            Answer::Refused(said) => {
                account.refused_requests += 1;
                let explains = |fault: &Injected| {
                    REASONS.iter().any(|(kind, words)| fault.kind == *kind && said.contains(words))
                        && fault.span.wider(NOTICED).meets(&asked.span)
                };
                if count > 0 {
                    Some(format!("was refused ({said}), and there are {count} operations of it"))
                } else if !faults.iter().any(explains) {
                    Some(format!("was refused without a reason: {said}"))
                } else {
                    None
                }
            }
            Answer::Unknown(_) => {
                account.unanswered_requests += 1;
                (count > 1).then(|| format!("was made once, and there are {count} operations of it"))
            }
        };
        account.wrong.extend(wrong.map(|wrong| format!("request {:?} {wrong}", asked.reason)));
    }
    for (reason, count) in found {
        account.wrong.push(format!("{count} operations {reason:?} that nobody asked for"));
    }
}

/// An operation's steps on each host, by the host's own records.
fn check_order(
    operation: &Operation,
    runs: &[Run],
    recorded: &BTreeMap<String, Recorded>,
    account: &mut Account,
) {
    let mut hosts: BTreeMap<&str, Vec<Step>> = BTreeMap::new();
    for run in runs {
        let Recorded { started, ended, .. } = recorded.get(&run.id).copied().unwrap_or_default();
        let step = Step { number: run.step, state: run.state, started, ended };
        hosts.entry(&run.host).or_default().push(step);
    }
    for (host, steps) in hosts {
        if let Err(wrong) = judge_order(&steps) {
            account.wrong.push(format!("{} on {host}: {wrong}", operation.number));
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "each is a different source of what is known of the run")]
fn audit_run(
    chaos: &Chaos,
    curl: &Curl<'_>,
    operation: &Operation,
    runs: &[Run],
    run: &Run,
    recorded: Recorded,
    faults: &[Injected],
    account: &mut Account,
) -> Result<()> {
    let script = Script::named(&run.subject).with_context(|| format!("script {}", run.subject))?;
    let expected = script.expected(&run.id);
    let all_stdout = [expected.stdout.as_slice(), &expected.more].concat();
    let span = span(run)?;
    let stdout = curl.take(&run.id, "stdout")?;
    let stderr = curl.take(&run.id, "stderr")?;
    let stored = |bytes: &[u8], all: &[u8]| -> (u64, Match) {
        (bytes.len() as u64, compare(bytes, run.output_dropped, all))
    };
    let detail = run.state_detail.as_deref().unwrap_or_default();
    let facts = Facts {
        state: run.state,
        refusal: (run.state == RunState::Refused).then(|| Refusal::told(detail)),
        exit_code: run.exit_code,
        signal: run.signal,
        dropped: run.output_dropped,
        starts: recorded.starts,
        wrote: recorded.wrote,
        stdout: stored(&stdout, &all_stdout),
        stderr: stored(&stderr, &expected.stderr),
        held_ms: run.left.map(|left| left.held_ms),
        died: script == Script::Daemon && !recorded.lived && had_to_live(run, span, faults),
    };
    let last = chaos.fleet.lab.hosts().last().map(|host| host.name());
    let scene = Scene::of(chaos, operation, run, span, faults);
    let around = Around {
        output_capped: last == Some(run.host.as_str()) && script == Script::Big,
        step_failed: runs.iter().any(|other| {
            other.host == run.host && other.step < run.step && other.state != RunState::Succeeded
        }),
        ..scene.around
    };
    account.starts += recorded.starts;
    account.written += recorded.wrote.map_or(0, |(out, err)| out + err);
    account.stored += facts.stdout.0 + facts.stderr.0;
    account.stored_whole += match recorded.wrote {
        // Not what was left running wrote after that.
        Some((out, err)) => facts.stdout.0.min(out) + facts.stderr.0.min(err),
        None => 0,
    };
    let wrong = judge(&facts, &expected, &around).err();
    let wrong = wrong.map(|wrong| format!("{wrong}; {} starts", recorded.starts));
    scene.account_for(wrong, account);
    Ok(())
}

/// A run, and what was done to its surroundings.
struct Scene<'a> {
    operation: &'a Operation,
    run: &'a Run,
    span: Span,
    /// What was injected on its host while it was under way.
    near: Vec<&'a Injected>,
    /// What hit its supervisor.
    killed: Option<&'a Injected>,
    /// Without what only the run's script and the runs beside it tell.
    around: Around,
}

impl<'a> Scene<'a> {
    fn of(chaos: &Chaos, operation: &'a Operation, run: &'a Run, span: Span, faults: &'a [Injected]) -> Self {
        let near: Vec<&Injected> = faults
            .iter()
            .filter(|fault| fault.host == run.host && fault.span.wider(MARGIN).meets(&span))
            // What a run brings about itself explains nothing of it.
            .filter(|fault| run.kind != REBOOT || !ASKED.contains(&fault.kind))
            .collect();
        let killed = faults
            .iter()
            .find(|fault| fault.kind == Kind::SupervisorKilled && fault.run.as_ref() == Some(&run.id));
        let any = |kinds: &[Kind]| near.iter().any(|fault| kinds.contains(&fault.kind));
        let around = Around {
            rebooted: any(&CUTS_OFF),
            shut_down: any(&[Kind::HostRebooted, Kind::BusyRebootAsked]),
            booted: any(&ENDS_HOST),
            supervisor_killed: killed.is_some(),
            agent_ended: any(&ENDS_AGENT) || any(&ENDS_HOST),
            package_installed: any(&[Kind::AgentUpgraded]),
            disk_filled: any(&[Kind::HostDiskFilled]),
            stop_asked: chaos.ledger().stopped.contains(&operation.number),
            ..Around::default()
        };
        Self { operation, run, span, near, killed, around }
    }

    /// Counts the run; tells of it if it is lost, or wrong.
    fn account_for(&self, wrong: Option<String>, account: &mut Account) {
        let Self { operation, run, span, near, killed, .. } = self;
        account.runs += 1;
        account.dropped += run.output_dropped;
        account.reattached += u64::from(run.reattached);
        *account.states.entry(run.state).or_default() += 1;
        let where_ = format!("{} run {} ({} on {})", operation.number, run.id, run.subject, run.host);
        let detail = run.state_detail.as_deref().unwrap_or_default();
        if run.state == RunState::Lost {
            let ends = near.iter().filter(|fault| CUTS_OFF.contains(&fault.kind));
            let by: Vec<String> = killed
                .iter()
                .chain(ends)
                .map(|fault| format!("{} {}", fault.kind.name(), time(fault.span.from)))
                .collect();
            account.lost.push(format!("{where_}: {detail}: {}", by.join(", ")));
        }
        if let Some(wrong) = wrong {
            let near: Vec<String> = near
                .iter()
                .map(|fault| {
                    format!("{} {}–{}", fault.kind.name(), time(fault.span.from), time(fault.span.until))
                })
                .collect();
            account.wrong.push(format!(
                "{where_}: {wrong}; state {:?} {detail}; from {} to {}; near: {}",
                run.state,
                time(span.from),
                time(span.until),
                near.join(", ")
            ));
        }
    }
}

/// Whether what the run left running had the time to come to its last word, and nothing on its host ended it.
fn had_to_live(run: &Run, span: Span, faults: &[Injected]) -> bool {
    if run.left.is_none_or(|left| left.fate != Fate::Unkept) {
        return false;
    }
    let after = Span { from: span.from, until: span.until.saturating_add(LIVES) };
    let ended = |fault: &Injected| {
        fault.host == run.host && ENDS_HOST.contains(&fault.kind) && fault.span.meets(&after)
    };
    after.until < jiff::Timestamp::now().as_millisecond() && !faults.iter().any(ended)
}

/// From the run's hand-out to the controller's hearing of its end.
fn span(run: &Run) -> Result<Span> {
    let parse = |text: &Option<String>, absent: i64| -> Result<i64> {
        text.as_ref().map_or(Ok(absent), |text| {
            Ok(text.parse::<jiff::Timestamp>().with_context(|| text.clone())?.as_millisecond())
        })
    };
    let until = parse(&run.ended_at, i64::MAX)?;
    Ok(Span { from: parse(&run.dispatched_at, until)?, until })
}

fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| "?".to_owned(), |time| time.strftime("%H:%M:%S").to_string())
}

/// What scripts recorded on all hosts, by run.
fn read_records(chaos: &Chaos) -> Result<BTreeMap<String, Recorded>> {
    let mut all: BTreeMap<String, Recorded> = BTreeMap::new();
    for host in chaos.fleet.lab.hosts() {
        let directory = host.root().join(RECORDS.trim_start_matches('/'));
        for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((run, what)) = name.split_once('.') else { continue };
            let recorded = all.entry(run.to_owned()).or_default();
            match what {
                // Added: a run that started on two hosts started twice.
                "starts" => {
                    recorded.starts += std::fs::read_to_string(&path)?.lines().count();
                    recorded.started = Some(changed_at(&path)?);
                }
                "wrote" => {
                    recorded.ended = Some(changed_at(&path)?);
                    let text = std::fs::read_to_string(&path)?;
                    recorded.wrote = text
                        .trim()
                        .split_once(' ')
                        .and_then(|(out, err)| Some((out.parse().ok()?, err.parse().ok()?)));
                }
                "lived" => recorded.lived = true,
                _ => {}
            }
        }
    }
    Ok(all)
}

/// When a record was last written to, in milliseconds since 1970.
fn changed_at(path: &Path) -> Result<i64> {
    let since = std::fs::metadata(path)?.modified()?.duration_since(std::time::UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_millis())?)
}

/// Processes of runs that are over: whatever was stopped or ended left none behind but those that its result tells of. A
/// run whose supervisor was killed has nobody any more who could stop it.
fn find_leftovers(chaos: &Chaos, told: &BTreeSet<String>, account: &mut Account) -> Result<()> {
    const LIST: &str = "for process in /proc/[0-9]*; do \
         run=$(tr '\\0' '\\n' 2>/dev/null < $process/environ | sed -n 's/^FLEETWARD_RUN_ID=//p'); \
         [ -z \"$run\" ] || echo \"$run $(tr '\\0' ' ' < $process/cmdline)\"; done";
    let orphaned: BTreeSet<String> = chaos.diary.faults().into_iter().filter_map(|fault| fault.run).collect();
    for host in chaos.fleet.lab.hosts() {
        for line in host.exec(&["bash", "-c", LIST])?.text().lines() {
            let run = line.split(' ').next().unwrap_or_default();
            if orphaned.contains(run) {
                account.orphans += 1;
            } else if told.contains(run) {
                account.left += 1;
            } else {
                account.wrong.push(format!("{}: a process of an ended run is left: {line}", host.name()));
            }
        }
        let filler = host.root().join(AGENT_STATE.trim_start_matches('/')).join("runs");
        account.directories += std::fs::read_dir(filler).map_or(0, |entries| entries.flatten().count());
    }
    Ok(())
}

/// Downloads of runs' output over one connection, as an API client makes them.
struct Curl<'a> {
    chaos: &'a Chaos,
    directory: tempfile::TempDir,
    token: String,
    root: std::path::PathBuf,
}

impl<'a> Curl<'a> {
    fn of(chaos: &'a Chaos) -> Result<Self> {
        let contexts = std::fs::read(chaos.fleet.config().join("fleetward/contexts.json"))?;
        let contexts: Value = serde_json::from_slice(&contexts)?;
        let token = contexts["contexts"][0]["token"].as_str().context("the operator's token")?.to_owned();
        let data = chaos.fleet.lab.controller().root().join(CONTROLLER_STATE.trim_start_matches('/'));
        let root = data.join("pki/root.pem");
        ensure!(root.exists(), "{} is not there", root.display());
        Ok(Self { chaos, directory: tempfile::tempdir()?, token, root })
    }

    fn download(&self, runs: &[Run]) -> Result<()> {
        let mut config = format!(
            "silent\nshow-error\nfail\ncacert = \"{}\"\nheader = \"Authorization: Bearer {}\"\n",
            self.root.display(),
            self.token
        );
        for run in runs {
            for stream in ["stdout", "stderr"] {
                let file = self.file(&run.id, stream);
                writeln!(
                    config,
                    "url = \"{URL}/api/v1/runs/{}/output?stream={stream}\"\noutput = \"{}\"",
                    run.id,
                    file.display()
                )?;
            }
        }
        let file = self.directory.path().join("curl");
        std::fs::write(&file, config)?;
        let mut curl: Command = self.chaos.fleet.lab.operator_command("curl");
        process::succeed(curl.arg("--config").arg(&file), DOWNLOAD).map(drop)
    }

    /// The bytes of a stream that was downloaded. Nothing is left of them.
    fn take(&self, run: &str, stream: &str) -> Result<Vec<u8>> {
        let file = self.file(run, stream);
        // curl makes no file of an empty answer.
        let bytes = if file.exists() { std::fs::read(&file)? } else { Vec::new() };
        if file.exists() {
            std::fs::remove_file(&file)?;
        }
        Ok(bytes)
    }

    fn file(&self, run: &str, stream: &str) -> std::path::PathBuf {
        Path::new(self.directory.path()).join(format!("{run}.{stream}"))
    }
}
