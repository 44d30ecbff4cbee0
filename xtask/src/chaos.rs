//! Chaos: a fleet of real hosts at work while it is broken in every way that there is a hand for, and an audit.
//!
//! Promises: the schedule is a pure function of the seed; every run that the controller knows is judged: a script's by what
//! it recorded on its host and by every byte it must have written, a typed action's by its report, by what its unit
//! recorded, by how often its host was booted, and by what is on its host in the end, with what nginx serves of it; what cannot be
//! explained by a fault that was injected there and then counts as wrong. Deliberately absent: faults that this machine cannot inject honestly are named in the table instead of being pretended.

pub mod action;
mod audit;
pub mod boots;
mod clock;
pub mod diary;
mod fault;
pub mod plan;
pub mod remains;
pub mod script;
pub mod site;
pub mod table;
pub mod typed;
pub mod verdict;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use self::action::{FILES, UNITS, Unit};
use self::diary::Diary;
use self::fault::{AGENT_STATE, CONTROLLER_STATE, PACKAGE};
use self::plan::{Kind, Lane};
use self::script::{RECORDS, Script};
use self::table::Report;
use self::work::Asked;
use crate::fleet::Fleet;
use crate::lab::{Cgroups, Host, Lab, LabOptions, Lifetime};
use crate::package;
use crate::process;

/// What a chaos run is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Hosts beside the controller's.
    pub hosts: usize,
    /// How long operations are asked for and faults injected; healing and the audit come on top.
    pub length: Duration,
    /// What decides everything that is left to chance.
    pub seed: u64,
    /// Where the diary is written.
    pub log: PathBuf,
}

/// Operators who work at the same time.
const OPERATORS: usize = 2;
/// Sizes of the disks under the agents' state and the controller's data, in MiB.
const AGENT_DISK: u64 = 1024;
const CONTROLLER_DISK: u64 = 8192;
/// How long the fleet may take to be whole again.
const WHOLE: Duration = Duration::from_secs(180);
/// How long what was under way may take to end, beside the longest silence.
const DRAIN: Duration = Duration::from_secs(300);
/// The last host's owner keeps no more than this of a run's output: less than [`Script::Big`] writes.
const CAP: &str = "\n[runs]\nmax_output_mib = 4\n";

/// What all lanes share.
#[derive(Debug)]
struct Chaos {
    fleet: Fleet,
    diary: Diary,
    ending: Ending,
    silence: Duration,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    injected: BTreeMap<Kind, usize>,
    asked: Vec<Asked>,
    stopped: BTreeSet<String>,
}

/// The end of the time for faults, as an event.
#[derive(Debug)]
struct Ending {
    over: Mutex<bool>,
    told: Condvar,
}

/// Brings up a lab of its own, breaks it for the given time, heals it, and judges every run.
///
/// # Errors
/// When the lab does not come up, or cannot be healed or asked any more. What is wrong with runs is in the report.
pub fn run(options: &Options) -> Result<Report> {
    let diary = Diary::create(&options.log)?;
    let fleet = prepare(options).context("bring up the lab")?;
    let chaos = Chaos {
        fleet,
        diary,
        ending: Ending { over: Mutex::new(false), told: Condvar::new() },
        silence: (options.length / 4).min(Duration::from_secs(60)),
        ledger: Mutex::default(),
    };
    chaos.diary.note(&format!("chaos begins: {options:?}"));
    let begun = Instant::now();
    thread::scope(|scope| {
        let chaos = &chaos;
        for host in 0..options.hosts {
            for lane in [Lane::Machine(host), Lane::Link(host)] {
                scope.spawn(move || fault::drive(chaos, lane, plan::faults(options.seed, lane)));
            }
        }
        let lane = Lane::Controller;
        scope.spawn(move || fault::drive(chaos, lane, plan::faults(options.seed, lane)));
        for operator in 0..OPERATORS {
            let requests = plan::requests(options.seed, operator, options.hosts);
            scope.spawn(move || work::drive(chaos, operator, requests));
        }
        chaos.ending.wait(options.length);
        chaos.ending.come();
    });
    chaos.diary.note("chaos is over");
    let broken = begun.elapsed();
    fault::heal(&chaos).context("heal the lab")?;
    wait_whole(&chaos);
    wait_final(&chaos);
    chaos.diary.note("the audit begins");
    let account = audit::audit(&chaos)?;
    let ledger = chaos.ledger();
    let report = Report {
        hosts: options.hosts,
        seed: options.seed,
        length: broken,
        injected: Kind::ALL
            .iter()
            .map(|kind| (*kind, ledger.injected.get(kind).copied().unwrap_or(0)))
            .collect(),
        account,
    };
    drop(ledger);
    for wrong in &report.account.wrong {
        chaos.diary.note(&format!("WRONG: {wrong}"));
    }
    if !report.account.wrong.is_empty() {
        chaos.diary.note(&complaints(&chaos));
    }
    chaos.diary.note(&report.text());
    Ok(report)
}

/// What the controller has complained of, for whoever looks into what is wrong: its host is gone by then.
fn complaints(chaos: &Chaos) -> String {
    const LIST: &str =
        "journalctl -u fleetward-controller -o short-iso --no-pager | grep -E 'ERROR|WARN' | tail -n 400";
    let said = chaos.fleet.lab.controller().exec(&["sh", "-c", LIST]);
    format!(
        "the controller's complaints:\n{}",
        said.map_or_else(|problem| format!("{problem:#}"), |said| said.text())
    )
}

fn prepare(options: &Options) -> Result<Fleet> {
    let lab = Lab::up(&LabOptions {
        name: format!("chaos-{}", std::process::id()),
        hosts: options.hosts,
        cgroups: Cgroups::Machine,
        lifetime: Lifetime::WithValue,
    })?;
    let work = tempfile::tempdir()?;
    let library = clock::compile(work.path())?;
    each(std::iter::once(lab.controller()).chain(lab.hosts()), |host| {
        host.cut_power()?;
        let is_controller = host.name() == lab.controller().name();
        let (directory, mib) =
            if is_controller { (CONTROLLER_STATE, CONTROLLER_DISK) } else { (AGENT_STATE, AGENT_DISK) };
        host.attach_disk(directory, mib)?;
        if !is_controller {
            clock::install(host, &library)?;
        }
        host.start()?;
        host.wait_running(Duration::from_secs(120))
    })?;
    let fleet = Fleet::on(lab)?;
    let agent = package::built("fleetward-agent")?;
    let last = fleet.lab.hosts().last().map(Host::name);
    each(fleet.lab.hosts().iter(), |host| {
        fleet.enrol(host, &["chaos"])?;
        host.push(&agent, PACKAGE)?;
        host.run(&["mkdir", "-p", RECORDS, UNITS, FILES])?;
        for unit in Unit::ALL {
            let file = host.root().join(UNITS.trim_start_matches('/')).join(unit.name());
            std::fs::write(&file, unit.text()).with_context(|| file.display().to_string())?;
        }
        host.run(&["systemctl", "daemon-reload"])?;
        host.run(&["systemctl", "enable", "--quiet", "--now", "nginx"])?;
        boots::install(host)?;
        if Some(host.name()) == last {
            let settings = host.root().join("etc/fleetward/agent.toml");
            let text = std::fs::read_to_string(&settings)?;
            // The file's own section has its examples as comments, so a second one would be one too many.
            let text =
                if text.contains("\n[runs]\n") { text.replacen("\n[runs]\n", CAP, 1) } else { text + CAP };
            std::fs::write(&settings, text)?;
        }
        Ok(())
    })?;
    let texts: Vec<(&str, String)> =
        Script::ALL.into_iter().map(|script| (script.name(), script.text())).collect();
    let scripts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    fleet.publish(&scripts)?;
    Ok(fleet)
}

/// Does the same for several hosts at a time.
fn each<'a>(hosts: impl Iterator<Item = &'a Host>, what: impl Fn(&Host) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let what = &what;
        let all: Vec<_> = hosts.map(|host| (host, scope.spawn(move || what(host)))).collect();
        for (host, thread) in all {
            match thread.join() {
                Ok(done) => done.with_context(|| host.name().to_owned())?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
}

fn wait_whole(chaos: &Chaos) {
    let all = chaos.fleet.lab.hosts().len();
    let whole = process::until("every host to be online", WHOLE, || {
        let online = chaos.fleet.json(&["host", "list", "--status", "online"])?;
        Ok((online.as_array().map_or(0, Vec::len) == all).then_some(()))
    });
    if let Err(problem) = whole {
        chaos.diary.problem(format!("{problem:#}"));
    }
}

fn wait_final(chaos: &Chaos) {
    let ended = process::until("every operation to end", DRAIN + chaos.silence, || {
        for status in ["queued", "running"] {
            let open = chaos.fleet.json(&["op", "list", "--status", status])?;
            if open.as_array().is_none_or(|open| !open.is_empty()) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    if let Err(problem) = ended {
        chaos.diary.problem(format!("{problem:#}"));
    }
}

impl Chaos {
    fn count(&self, kind: Kind) {
        *self.ledger().injected.entry(kind).or_default() += 1;
    }

    fn asked(&self, asked: Asked) {
        self.ledger().asked.push(asked);
    }

    fn stopped(&self, operation: &str) {
        self.ledger().stopped.insert(operation.to_owned());
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ending {
    /// Waits for that long or until the end; tells whether the end has come.
    fn wait(&self, span: Duration) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let (over, _) =
            self.told.wait_timeout_while(over, span, |over| !*over).unwrap_or_else(PoisonError::into_inner);
        *over
    }

    fn come(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_all();
    }
}
