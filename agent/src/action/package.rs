//! Changes packages through apt and dpkg, and says what became of them.
//!
//! What would be done is asked of apt-get before: nothing is removed that was not named, and what the agent is made of stays. What
//! was done is not undone: nobody knows the way back from what the scripts of a package did. So what fails is told with all that
//! was changed up to then, and left.

mod before;
mod goal;
mod outcome;

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::time::Duration;

use fleetward_protocol::action::package::{Conffiles, Package, PackageReport, PackageVerb};
use fleetward_protocol::action::{Change, Contract as _, Preview};
use fleetward_protocol::text::Line;
use tokio::runtime::Runtime;

use self::before::Before;
use self::goal::Goal;
use super::Perform;
use crate::journal::steps::Earlier;
use crate::perform::{Failure, Left, Problem, Steps};
use crate::platform::apt::change::{Ended, Heard, Program};
use crate::platform::apt::installed::Installed;
use crate::platform::apt::locks::Locks;
use crate::platform::apt::{Apt, AptError};
use crate::platform::stop::Why;
use crate::platform::systemd::Systemd;

/// Between two looks at whether a lock is still held.
const LOOK: Duration = Duration::from_millis(500);
/// So often apt may find a lock held that was free a moment before.
const ATTEMPTS: u8 = 20;
/// The most lines of apt's that are told.
const MAX_LINES: u32 = 10_000;

/// With these nobody is asked anything, and nothing is restarted but what a package itself restarts: needrestart only lists.
const VARIABLES: [(&str, &str); 5] = [
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBIAN_PRIORITY", "critical"),
    ("APT_LISTCHANGES_FRONTEND", "none"),
    ("APT_LISTBUGS_FRONTEND", "none"),
    ("NEEDRESTART_MODE", "l"),
];

impl Perform for Package {
    fn rehearse(&self, steps: &mut Steps) -> Result<Preview, Failure<Preview>> {
        let site = steps.look("find", "apt", |_| Site::find())?;
        let installed = site.read_installed()?;
        let mut changes = Vec::new();
        if is_to_configure(self, &site, &installed) {
            changes.push(Change::new("run `dpkg --configure -a`, for dpkg was interrupted before"));
        }
        let goal = steps.look("check", self.subject(), |steps| {
            site.runtime.block_on(goal::find(self, &site.apt, &installed, steps.allowed()))
        })?;
        changes.extend(goal.preview(self));
        Ok(Preview::of(changes))
    }

    fn perform(&self, steps: &mut Steps) -> Result<PackageReport, Failure<PackageReport>> {
        let site = steps.look("find", "apt", |_| Site::find())?;
        if !steps.look("locks", "of apt and dpkg", |steps| site.wait(locks_of(self), steps))? {
            return Err(stopped(steps, "nothing more was done").into());
        }
        let mut began = site.read_installed()?;
        if is_to_configure(self, &site, &began) {
            configure(self, &site, steps)?;
        }
        let remembered = steps.recall::<Before>();
        let is_remembered = remembered.is_some();
        if let Some(before) = remembered {
            before.put_into(&mut began);
        }
        let before = site.read_installed()?;
        let goal = steps.look("check", self.subject(), |steps| {
            let goal = look(self, &site, &before, steps)?;
            if goal == Goal::Reached {
                outcome::ensure_whole(self, &began, &before)?;
            }
            Ok(goal)
        })?;
        let earlier = steps.earlier(self.verb.as_str());
        if goal == Goal::Reached {
            let why = match earlier {
                Some(_) => steps.not_again(),
                None => "unchanged".to_owned(),
            };
            steps.unchanged(self.verb.as_str(), format_args!("{why}: all is as asked for"));
            let after = site.read_installed()?;
            return Ok(site.runtime.block_on(outcome::report(
                &site.apt,
                &began,
                &after,
                earlier.is_some(),
                false,
            )));
        };
        if !is_remembered && !goal.would().is_empty() {
            steps.remember(&Before::of(goal.would(), &before))?;
        }
        let lists = site.apt.read_lists();
        let changed = steps.change(
            self.verb.as_str(),
            self.subject(),
            // What is still to be done was looked at. What was done, and is to be done anew since, came later.
            |_, earlier| Ok((earlier == Earlier::Done).then_some(())),
            |steps| reach(self, &site, goal, steps),
        );
        let mut after = before.clone();
        let verified = steps.look("verify", self.subject(), |steps| {
            after = site.read_installed()?;
            // Why it was not reached is known.
            if changed.is_err() {
                Ok(())
            } else {
                site.runtime.block_on(outcome::verify(self, &site.apt, (&began, &after), steps.allowed()))
            }
        });
        let is_refresh = self.verb == PackageVerb::Refresh;
        // That a package is now there on its own account is seen in no version.
        let is_done = if is_refresh { site.apt.read_lists() != lists } else { changed.is_ok() };
        // By lists that were not fetched nobody knows what there is to upgrade.
        let counts = is_refresh && changed.is_ok() && verified.is_ok();
        let is_changed = began != after || is_done || earlier.is_some();
        let report = site.runtime.block_on(outcome::report(&site.apt, &began, &after, is_changed, counts));
        outcome::tell(&report, steps);
        match changed.and(verified) {
            Ok(()) => Ok(report),
            Err(problem) => Err(Failure { problem, left: Left::AsItIs, report: Some(Box::new(report)) }),
        }
    }
}

/// What is to be done as things are now, told.
fn look(
    asked: &Package,
    site: &Site,
    installed: &BTreeMap<String, Installed>,
    steps: &mut Steps,
) -> Result<Goal, Problem> {
    let goal = site.runtime.block_on(goal::find(asked, &site.apt, installed, steps.allowed()))?;
    goal.tell(steps);
    Ok(goal)
}

/// Does what is to be done. Whenever somebody else had a lock meanwhile, packages may be others: what was found to be right is looked at
/// again before anything is done.
fn reach(asked: &Package, site: &Site, mut goal: Goal, steps: &mut Steps) -> Result<(), Problem> {
    for _ in 0..ATTEMPTS {
        let Goal::Change { program, ref arguments, .. } = goal else { return Ok(()) };
        match site.run(asked, program, arguments, steps)? {
            Ran::Well => {
                // Named to apt-get, what was installed for others would be kept for good.
                return match goal.to_mark() {
                    [] => Ok(()),
                    names => site.change(asked, Program::AptMark, &mark(names), steps),
                };
            }
            Ran::Badly(problem) => return Err(problem),
            // Somebody was quicker.
            Ran::Locked => {
                site.wait_again(locks_of(asked), steps)?;
                goal = look(asked, site, &site.read_installed()?, steps)?;
            }
        }
    }
    Err(always_locked())
}

/// Whether dpkg was interrupted in the middle of something, and that matters to what is asked for. Whoever is at work now is not
/// interrupted.
fn is_to_configure(asked: &Package, site: &Site, installed: &BTreeMap<String, Installed>) -> bool {
    let matters = !matches!(asked.verb, PackageVerb::Refresh | PackageVerb::Hold | PackageVerb::Unhold);
    matters
        && (site.apt.read_is_interrupted() || installed.values().any(|package| !package.is_whole()))
        && site.apt.read_holder(Locks::Packages).is_none()
}

/// Has dpkg come to the end of what was interrupted. A package that cannot be set up is no reason to do nothing else: to remove it or
/// to bring it to another version may be what mends it, and apt-get knows what hangs on it.
fn configure(asked: &Package, site: &Site, steps: &mut Steps) -> Result<(), Problem> {
    let keep = ["--force-confdef", "--force-confold", "--configure", "-a"].map(str::to_owned);
    // Each life of a run may have interrupted it anew, behind one that had done it.
    steps.repeat("configure", "dpkg --configure -a, for dpkg was interrupted before", |steps| {
        match site.change_as_far(asked, Program::Dpkg, &keep, steps)? {
            Some(problem) if site.apt.read_is_interrupted() => Err(problem),
            Some(problem) => {
                steps.complain(problem.reason);
                steps.complain("that is left as it is, and what was asked for is tried all the same");
                Ok(())
            }
            None => Ok(()),
        }
    })
}

fn mark(names: &[String]) -> Vec<String> {
    ["auto".to_owned()].into_iter().chain(names.iter().cloned()).collect()
}

/// apt on this host, and something to wait for it with.
struct Site {
    runtime: Runtime,
    apt: Apt,
}

impl Site {
    fn find() -> Result<Self, Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| {
            Problem::new(
                format_args!("cannot wait for events: {error}"),
                "see whether the host has memory left",
            )
        })?;
        let apt = runtime.block_on(Apt::find()).map_err(|error| problem(&error))?;
        Ok(Self { runtime, apt })
    }

    fn read_installed(&self) -> Result<BTreeMap<String, Installed>, Problem> {
        self.runtime.block_on(self.apt.read_installed()).map_err(|error| problem(&error))
    }

    /// Waits until nobody holds what the action needs; false if it was asked to stop meanwhile.
    fn wait(&self, locks: Locks, steps: &mut Steps) -> Result<bool, Problem> {
        let mut told: Option<Line> = None;
        while let Some(holder) = self.apt.read_holder(locks) {
            if steps.stop().requested().is_some() {
                return Ok(false);
            }
            if told.as_ref() != Some(&holder) {
                steps.going("locks", format_args!("waiting: {holder}"));
                told = Some(holder);
            }
            self.runtime.block_on(async { tokio::time::sleep(LOOK).await });
        }
        Ok(true)
    }

    /// The same where nothing is done unless that is so.
    fn wait_again(&self, locks: Locks, steps: &mut Steps) -> Result<(), Problem> {
        match self.wait(locks, steps)? {
            true => Ok(()),
            false => Err(stopped(steps, "nothing more was done")),
        }
    }

    /// Runs a program for which it is the same what became of packages meanwhile, once nobody holds what it needs.
    fn change(
        &self,
        asked: &Package,
        program: Program,
        arguments: &[String],
        steps: &mut Steps,
    ) -> Result<(), Problem> {
        self.change_as_far(asked, program, arguments, steps)?.map_or(Ok(()), Err)
    }

    /// The same; what the program itself failed with, if it did.
    fn change_as_far(
        &self,
        asked: &Package,
        program: Program,
        arguments: &[String],
        steps: &mut Steps,
    ) -> Result<Option<Problem>, Problem> {
        for _ in 0..ATTEMPTS {
            match self.run(asked, program, arguments, steps)? {
                Ran::Well => return Ok(None),
                Ran::Badly(problem) => return Ok(Some(problem)),
                Ran::Locked => self.wait_again(Locks::Packages, steps)?,
            }
        }
        Err(always_locked())
    }

    /// Runs a program to its end.
    fn run(
        &self,
        asked: &Package,
        program: Program,
        arguments: &[String],
        steps: &mut Steps,
    ) -> Result<Ran, Problem> {
        let mut told = Told::default();
        let stop = steps.stop().as_fd().try_clone_to_owned();
        let stop = stop.map_err(|error| {
            Problem::new(format_args!("cannot wait for events: {error}"), "nothing was done; ask again")
        })?;
        let mut variables = VARIABLES.to_vec();
        // ucf(1) keeps files that dpkg does not know as such.
        variables.push(match asked.conffiles {
            Conffiles::Keep => ("UCF_FORCE_CONFFOLD", "1"),
            Conffiles::Replace => ("UCF_FORCE_CONFFNEW", "1"),
        });
        let mut heard = |heard: Heard<'_>| told.hear(&heard, steps);
        let ended = self.apt.change(program, arguments, &variables, stop, &mut heard);
        let ended = self.runtime.block_on(ended).map_err(|error| problem(&error))?;
        told.finish(steps);
        match ended {
            Ended::Well => Ok(Ran::Well),
            Ended::Stopped(why) => Err(Problem::new(
                format_args!("{} in the middle of it: apt ended behind what it was at", why.words()),
                "ask again: what is done already is not done again",
            )),
            Ended::Left(why, unit) => Err(left(why, unit.as_deref())),
            Ended::Badly(_) if told.is_locked => Ok(Ran::Locked),
            Ended::Badly(_) if Systemd::connect().is_ok_and(|systemd| systemd.is_shutting_down()) => {
                Err(Problem::new(
                    "the host is shutting down, and had apt end behind what it was at",
                    "ask again when the host is back: what is done already is not done again",
                ))
            }
            Ended::Badly(how) => Ok(Ran::Badly(told.problem(asked, &how))),
        }
    }
}

/// How a program ended.
#[derive(Debug)]
enum Ran {
    /// As it should.
    Well,
    /// It did nothing, for somebody else has a lock.
    Locked,
    /// With an error of its own.
    Badly(Problem),
}

/// The locks that an action needs.
const fn locks_of(asked: &Package) -> Locks {
    match asked.verb {
        PackageVerb::Refresh => Locks::Lists,
        _ => Locks::Packages,
    }
}

fn always_locked() -> Problem {
    Problem::new(
        format_args!("a lock of apt or dpkg was held each of {ATTEMPTS} times that it seemed free"),
        "see on the host what works with packages all the time: `ps -fC apt,apt-get,aptitude,dpkg,unattended-upgr`",
    )
}

fn left(why: Why, unit: Option<&str>) -> Problem {
    let advice = match unit {
        Some(unit) => format!(
            "apt was asked to stop, and goes on until the end of what dpkg is at: see `systemctl status {unit}` on the host"
        ),
        None => {
            "apt was asked to stop; should dpkg be left in the middle, the next run sets it right".to_owned()
        }
    };
    Problem::new(format_args!("{} in the middle of it", why.words()), advice)
}

fn stopped(steps: &mut Steps, advice: &str) -> Problem {
    let why = steps.stop().requested().unwrap_or(Why::Requested);
    Problem::new(format_args!("{} while a lock was held", why.words()), advice)
}

/// What was told of what apt says.
#[derive(Default)]
struct Told {
    lines: u32,
    /// Lines that say what is wrong.
    errors: Vec<String>,
    is_locked: bool,
}

impl Told {
    fn hear(&mut self, heard: &Heard<'_>, steps: &mut Steps) -> Option<Why> {
        match *heard {
            Heard::Signal => return steps.stop().requested(),
            Heard::Note(words) => steps.complain(words),
            Heard::Line(line) => {
                self.lines = self.lines.saturating_add(1);
                self.is_locked |= is_lock_held(line);
                let is_error = line.starts_with("E: ") || line.starts_with("dpkg: error");
                let count = self.errors.len();
                match self.errors.last_mut() {
                    // dpkg tells its reason in the line behind it.
                    Some(last) if last.ends_with(':') && line.starts_with(' ') => last.push_str(line),
                    _ if is_error && count < 5 => {
                        self.errors.push(line.trim_start_matches("E: ").to_owned());
                    }
                    _ => {}
                }
                match (self.lines <= MAX_LINES, is_error || line.starts_with("W: ")) {
                    (true, false) => steps.say(line),
                    (true, true) => steps.complain(line),
                    (false, _) => {}
                }
            }
        }
        None
    }

    fn finish(&self, steps: &mut Steps) {
        if let Some(more) = self.lines.checked_sub(MAX_LINES).filter(|more| *more > 0) {
            steps.say(format_args!("{more} more lines, which are not shown"));
        }
    }

    fn problem(&self, asked: &Package, how: &str) -> Problem {
        let what = if self.errors.is_empty() { how.to_owned() } else { self.errors.join("; ") };
        let has = |part: &str| what.contains(part);
        let advice = if has("Unable to fetch") || has("Failed to fetch") || has("not resolve") {
            "see whether the host reaches its package sources, and ask for `refresh` before"
        } else if has("not enough") || has("No space left") {
            "make room on the host's disk, and ask again"
        } else if has("cannot be authenticated") || has("not signed") || has("NO_PUBKEY") {
            "its package sources are not signed by a key that the host trusts: see /etc/apt/sources.list.d on the host"
        } else {
            "the lines above say more; what was done up to then is in the report"
        };
        Problem::new(format_args!("`{}` failed: {what}", asked.verb), advice)
    }
}

/// Whether apt or dpkg says that somebody else has a lock. dpkg before 1.21 says "is locked", later ones "was locked by another process
/// with pid 812".
fn is_lock_held(line: &str) -> bool {
    line.starts_with("E: Could not get lock") || line.contains("locked by another process")
}

/// apt could not be asked.
fn problem(error: &AptError) -> Problem {
    let text = error.to_string();
    let has = |part: &str| text.contains(part);
    let advice = match error {
        AptError::Absent(_) => "this kind is for hosts of Debian and Ubuntu alone",
        AptError::Silent(_) => "ask again when the host has less to do",
        AptError::Failed { .. }
            if has("Unable to locate") || has("no installation candidate") || has("was not found") =>
        {
            "ask for `refresh` before, or look for the right name and version with `apt-cache policy` on the host"
        }
        AptError::Failed { .. } if has("Held packages") => {
            "let what is held be changed with `unhold`, and ask again"
        }
        AptError::Failed { .. } if has("need to be removed") || has("remove is disabled") => {
            "nothing is removed that was not named: remove what is in the way first, or do it on the host with `apt-get`"
        }
        AptError::Failed { .. } if has("Essential packages") => "no host works without these",
        AptError::Start { .. } | AptError::Failed { .. } | AptError::Much(_) | AptError::Strange(_) => {
            "run `apt-get check` and `dpkg --audit` on the host: they may say more"
        }
    };
    Problem::new(text, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentences of lockfile.c and dpkg's main, before and since 1.21, and of apt's own.
    #[test]
    fn who_was_quicker_is_heard_of_from_apt_and_from_every_dpkg() {
        for (line, expected) in [
            ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (apt-get)", true),
            ("dpkg: error: dpkg frontend is locked by another process", true),
            ("dpkg: error: dpkg frontend lock was locked by another process with pid 812", true),
            ("dpkg: error: dpkg database lock was locked by another process with pid 812", true),
            ("dpkg: error processing package broken (--configure):", false),
        ] {
            assert_eq!(is_lock_held(line), expected, "{line}");
        }
    }
}
