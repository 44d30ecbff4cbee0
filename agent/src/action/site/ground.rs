//! What there is on a host before a site is changed, and what is to be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fleetward_protocol::action::Contract as _;
use fleetward_protocol::action::site::{Site, SiteReport, SiteVerb};
use fleetward_protocol::object::{Class, Object};
use fleetward_protocol::text::{Text, Word};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::pieces::{self, pieces};
use super::render::Links;
use super::turn;
use super::{SWITCH, warnings};
use crate::perform::{Left, Problem, Steps};
use crate::platform::nginx::dump::Dump;
use crate::platform::nginx::master::Master;
use crate::platform::nginx::piece::{Piece, Thing};
use crate::platform::nginx::place::{Layout, SitePlace};
use crate::platform::nginx::server::Place;
use crate::platform::nginx::shadow::Shadow;
use crate::platform::nginx::{Nginx, NginxError};

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) nginx: Nginx,
    pub(super) runtime: Runtime,
    pub(super) dump: Dump,
    pub(super) place: SitePlace,
    pub(super) layout: Layout,
    pub(super) pieces: Vec<Piece>,
    /// The master, if nginx ran when it was looked for.
    pub(super) master: Option<Master>,
    /// Whether it was started by this action.
    pub(super) is_started: bool,
    /// What may not be meant so.
    warnings: Vec<String>,
    before: Word,
    /// Whether nginx did not take its configuration before anything was done.
    was_broken: bool,
}

/// What has to be known when the run goes on after it was cut off.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Memory {
    /// What was where, in the order in which it is changed.
    was: Vec<(PathBuf, Thing)>,
    before: Word,
    /// Whether nginx did not take its configuration before anything was done.
    #[serde(default)]
    was_broken: bool,
}

/// What became of a change that was in place before the run was cut off, and is not to stay.
#[derive(Debug)]
pub(super) struct PutBack {
    /// How the host is left.
    pub(super) left: Left,
    /// How the site stands then, if that can be told.
    pub(super) report: Option<Box<SiteReport>>,
}

impl Default for PutBack {
    /// There was none.
    fn default() -> Self {
        Self { left: Left::AsItIs, report: None }
    }
}

impl Found {
    pub(super) fn check(asked: &Site, steps: &mut Steps, put_back: &mut PutBack) -> Result<Self, Problem> {
        ensure_within(asked, steps)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Problem::new(error, "nothing was done; ask again"))?;
        let nginx = runtime.block_on(Nginx::find()).map_err(|error| problem(&error))?;
        let read = runtime.block_on(nginx.read_dump_or_files());
        let (dump, broken) = read.map_err(|error| problem(&error))?;
        let broken = broken.map(NginxError::Broken);
        if let Some(error @ NginxError::Broken(lines)) = &broken {
            lines.iter().for_each(|line| steps.complain(line));
            // Broken by what this run itself has put in place before it was cut off: it does not stay.
            if steps.earlier(SWITCH).is_some()
                && !steps.recall::<Memory>().is_some_and(|memory| memory.was_broken)
            {
                take_back(asked, nginx, runtime, put_back, steps)?;
                return Err(problem_again(error, steps));
            }
        }
        let layout = Layout::of(&dump).ok_or_else(|| {
            Problem::new(
                format_args!("{} includes no directory of sites", nginx.config.display()),
                "have its `http` block include `sites-enabled/*` or `conf.d/*.conf`",
            )
        })?;
        let place = layout.place(asked.name.as_str());
        let links = if steps.allowed().roots().is_some() { Links::Refused } else { Links::Followed };
        let pieces = pieces(asked, &nginx, &dump, &place, links)?;
        let before = Text::of(state(&place, |piece| &piece.was, &pieces));
        let mut warnings = match asked.verb {
            SiteVerb::Ensure => collisions(asked, &dump, &place),
            _ => Vec::new(),
        };
        let was_broken = broken.is_some();
        if let Some(error) = broken {
            // Nothing that is done here mends it.
            if pieces.iter().all(Piece::is_as_wanted) && steps.earlier(SWITCH).is_none() {
                return Err(problem(&error));
            }
            warnings.push("nginx did not take its configuration before this change".to_owned());
        }
        let mut found = Self {
            nginx,
            runtime,
            dump,
            place,
            layout,
            pieces,
            master: None,
            is_started: false,
            warnings,
            before,
            was_broken,
        };
        found.master = found.read_master();
        let runs = if found.master.is_some() { "runs" } else { "does not run" };
        steps.say(format_args!(
            "nginx {} {runs}; site {} is {}",
            found.nginx.version, asked.name, found.before
        ));
        found.warnings.iter().for_each(|warning| steps.complain(warning));
        Ok(found)
    }

    /// The master, if nginx runs now.
    pub(super) fn read_master(&self) -> Option<Master> {
        // Where the configuration names another file for its id since it was started, systemd knows it still.
        self.read_named_master().or_else(|| turn::read_main_process(&self.nginx))
    }

    /// The one whose process id stands where nginx looks for it.
    pub(super) fn read_named_master(&self) -> Option<Master> {
        let pid = self.dump.setting("pid");
        Master::read(&pid.map_or_else(|| self.nginx.pid.clone(), |pid| self.dump.path(pid)))
    }

    /// Has nginx say what it would make of the whole configuration with the change in it.
    pub(super) fn test_beside(&self, steps: &mut Steps) -> Result<(), Problem> {
        let included = self.layout.included();
        let made = Shadow::make(&self.nginx, &self.dump, included, &self.pieces, &self.place.file).map_err(
            |error| {
                Problem::new(
                    format_args!(
                        "the configuration could not be laid out beside {}: {error}",
                        self.nginx.config.display()
                    ),
                    "nothing was done; see that its directory can be written",
                )
            },
        )?;
        if made.is_none() && self.was_broken {
            // In place it would only be seen that all is as bad as before.
            return Err(problem(&NginxError::Broken(Vec::new())));
        }
        let Some(shadow) = made else {
            steps.say(
                "the sites are included from within another file: the change is tested when it is in place",
            );
            return Ok(());
        };
        let verdict = self
            .runtime
            .block_on(self.nginx.read_verdict(shadow.config()))
            .map_err(|error| problem(&error))?;
        for line in &verdict.lines {
            steps.complain(shadow.translate(line, &self.nginx, included));
        }
        match verdict.is_usable {
            true => Ok(()),
            false if self.was_broken => Err(Problem::new(
                "nginx does not take its configuration, with this change and without it",
                BROKEN,
            )),
            false => Err(Problem::new(
                "nginx would not take its configuration with this change",
                "nothing was done; see its words above, correct the site, and ask again",
            )),
        }
    }

    /// Whether nginx runs with an older configuration than the one that stands in the site's files.
    pub(super) fn is_unread(&self) -> bool {
        let Some(master) = self.master else { return false };
        let SitePlace { file, link, users, .. } = &self.place;
        let is_newer = |path: &Path| master.is_older_than(path);
        // What was removed left its trace in the directory that nginx includes; others may have, too: nginx reads it once more.
        let is_gone = link.as_ref().unwrap_or(file).symlink_metadata().is_err();
        [Some(file), link.as_ref(), Some(users)].into_iter().flatten().any(|path| is_newer(path))
            || is_gone && is_newer(self.layout.included())
    }

    /// What is changed before nginx reads it.
    pub(super) fn early(&self) -> impl Iterator<Item = &Piece> + Clone {
        self.pieces.iter().filter(|piece| !self.is_late(piece))
    }

    /// What is removed when nginx does not need it any more.
    pub(super) fn late(&self) -> Option<&Piece> {
        self.pieces.iter().find(|piece| self.is_late(piece))
    }

    /// A file of users is asked for each request: without it nginx lets nobody in, as long as it works with the old configuration.
    fn is_late(&self, piece: &Piece) -> bool {
        piece.path == self.place.users && piece.wanted == Thing::Nothing
    }

    pub(super) fn memory(&self) -> Memory {
        let was = self.pieces.iter().map(|piece| (piece.path.clone(), piece.was.clone()));
        Memory { was: was.collect(), before: self.before.clone(), was_broken: self.was_broken }
    }

    /// Takes what was there from an earlier attempt.
    pub(super) fn remember_as(&mut self, memory: Memory) {
        for piece in &mut self.pieces {
            if let Some((_, was)) = memory.was.iter().find(|(path, _)| *path == piece.path) {
                piece.was = was.clone();
            }
        }
        self.before = memory.before;
    }

    pub(super) fn report(&self, asked: &Site) -> SiteReport {
        let before = self.before.clone();
        SiteReport {
            changed: false,
            after: before.clone(),
            before,
            file: Text::of(match (&self.place.disabled, asked.verb) {
                (Some(disabled), SiteVerb::Disable) => disabled.display(),
                _ => self.place.file.display(),
            }),
            version: Text::of(&self.nginx.version),
            running: self.master.is_some(),
            reloaded: false,
            probed: None,
            warnings: warnings(&self.warnings),
        }
    }

    /// Tells in a report how the site stands now, whatever was done and undone.
    pub(super) fn tell(&self, report: &mut SiteReport) {
        // What cannot be read is not as it was.
        let now = |piece: &Piece| {
            let was = Thing::read(&piece.path).unwrap_or(Thing::Other);
            Piece { path: piece.path.clone(), was, wanted: piece.wanted.clone() }
        };
        let pieces: Vec<Piece> = self.pieces.iter().map(now).collect();
        report.changed = self.pieces.iter().zip(&pieces).any(|(before, now)| before.was != now.was);
        report.after = Text::of(state(&self.place, |piece| &piece.was, &pieces));
        report.running = self.read_master().is_some();
    }

    pub(super) fn words(&self, asked: &Site) -> String {
        format!("site {} is {}", asked.name, self.before)
    }

    pub(super) fn after(&self, _: &Site) -> &'static str {
        state(&self.place, |piece| &piece.wanted, &self.pieces)
    }

    /// Puts back what was there; if nginx has read the change, or may have, it reads what was there again.
    pub(super) fn take_back(&mut self, steps: &mut Steps, is_read: bool) -> Left {
        let undone = steps.look("put-back", self.place.file.display(), |steps| {
            let changed = self.pieces.iter().filter(|piece| !piece.is_as_wanted());
            pieces::put_back(changed.map(|piece| (piece.path.as_path(), &piece.was)))?;
            steps.undone(SWITCH, format_args!("{} is as it was before", self.place.file.display()));
            self.read_again(is_read, steps)
        });
        match undone {
            Ok(()) => Left::Undone,
            Err(problem) => {
                steps.complain(problem.reason);
                steps.complain(problem.advice);
                Left::NotUndone
            }
        }
    }

    /// Has nginx read what was put back, if it has read the change, or may have.
    fn read_again(&self, is_read: bool, steps: &mut Steps) -> Result<(), Problem> {
        // Whoever has started nginx meanwhile, be it this boot, has started it with the change.
        let now = self.read_master();
        match now {
            _ if self.is_started => turn::stop(steps),
            Some(_) if is_read && self.was_broken => Err(Problem::new(
                "nginx may work with the change still, for it does not take what was there before",
                "correct the site or the probe, and ask again: without that nginx does not start",
            )),
            Some(master) if is_read || now != self.master || steps.cut().is_some() => {
                turn::turn(self, &master, &mut false, turn::Heeds::Nothing, steps).map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// Refuses a path that a link leads out of what the owner allows: nginx follows it as root.
fn ensure_within(asked: &Site, steps: &Steps) -> Result<(), Problem> {
    let Some(roots) = steps.allowed().roots() else { return Ok(()) };
    let roots: Vec<PathBuf> =
        roots.map(|root| root.canonicalize().unwrap_or_else(|_| root.to_owned())).collect();
    let touched = asked.touches();
    let paths = touched.iter().filter(|object| object.class() == Class::Paths).filter_map(Object::name);
    for path in paths.map(Path::new) {
        // What is not there yet is made where its directory is; by way of a link that leads nowhere yet, it is made elsewhere.
        let there = path.ancestors().find_map(|way| {
            let rest = path.strip_prefix(way).ok()?;
            match way.canonicalize() {
                Ok(way) => Some(Some(way.join(rest))),
                Err(_) => way.is_symlink().then_some(None),
            }
        });
        if !there.flatten().is_some_and(|there| roots.iter().any(|root| there.starts_with(root))) {
            return Err(Problem::new(
                format_args!(
                    "{} leads out of the directories that this host's owner allows for sites",
                    path.display()
                ),
                "see where its links lead; the owner names directories in `[policy.rules.site]` of agent.toml",
            ));
        }
    }
    Ok(())
}

/// Puts back what an attempt that was cut off had changed, for nginx does not take it.
fn take_back(
    asked: &Site,
    nginx: Nginx,
    runtime: Runtime,
    put_back: &mut PutBack,
    steps: &mut Steps,
) -> Result<(), Problem> {
    let Some(memory) = steps.recall::<Memory>() else { return Ok(()) };
    put_back.left = Left::NotUndone;
    pieces::put_back(memory.was.iter().map(|(path, was)| (path.as_path(), was)))?;
    let clause = steps.cut_clause();
    steps.undone(SWITCH, format_args!("what was put in place before {clause} is as it was before"));
    put_back.left = Left::Undone;
    let Ok((dump, broken)) = runtime.block_on(nginx.read_dump_or_files()) else { return Ok(()) };
    let Some(layout) = Layout::of(&dump) else { return Ok(()) };
    let place = layout.place(asked.name.as_str());
    let was_there = |(path, was): (PathBuf, Thing)| Piece { path, was: was.clone(), wanted: was };
    let found = Found {
        nginx,
        runtime,
        dump,
        place,
        layout,
        pieces: memory.was.into_iter().map(was_there).collect(),
        master: None,
        is_started: false,
        warnings: Vec::new(),
        before: memory.before,
        was_broken: false,
    };
    let mut report = found.report(asked);
    found.tell(&mut report);
    put_back.report = Some(Box::new(report));
    // Where others have broken more than that, nginx goes on with what it has.
    if broken.is_some() {
        return Ok(());
    }
    put_back.left = Left::NotUndone;
    found.read_again(true, steps)?;
    put_back.left = Left::Undone;
    Ok(())
}

fn problem_again(error: &NginxError, steps: &Steps) -> Problem {
    Problem::new(
        format_args!("{error} with what was put in place before {}", steps.cut_clause()),
        "see its words above, and whether nginx runs (`systemctl status nginx`); correct the site, and ask again",
    )
}

/// How a site stands by its pieces.
fn state(place: &SitePlace, side: impl Fn(&Piece) -> &Thing, pieces: &[Piece]) -> &'static str {
    let is_there = |path: &Path| {
        pieces.iter().find(|piece| piece.path == path).is_some_and(|piece| *side(piece) != Thing::Nothing)
    };
    let is_enabled = place.link.as_deref().unwrap_or(&place.file);
    let is_disabled = place.disabled.as_deref().unwrap_or(&place.file);
    match (is_there(is_enabled), is_there(is_disabled)) {
        (true, _) => "enabled",
        (false, true) => "disabled",
        (false, false) => "absent",
    }
}

/// What others answer to on the same port: nginx takes the one that it reads first.
fn collisions(asked: &Site, dump: &Dump, place: &SitePlace) -> Vec<String> {
    let own: Vec<Place> =
        asked.listens().iter().map(|listen| Place::at(listen.address, listen.port)).collect();
    let names: BTreeSet<&str> = asked.server_names.iter().map(|name| name.as_str()).collect();
    let is_default = asked.listens().iter().any(|listen| listen.default_server);
    let mut found = Vec::new();
    for server in dump.servers() {
        if server.file == place.file || Some(server.file) == place.link.as_deref() {
            continue;
        }
        if !server.places().iter().any(|there| own.contains(there)) {
            continue;
        }
        let file = server.file.display();
        for name in server.names().filter(|name| names.contains(name)) {
            found.push(format!(
                "{file} answers to {name} on the same port: nginx takes the one that it reads first"
            ));
        }
        let has_default = server.listens().any(|words| words.iter().any(|word| word == "default_server"));
        if is_default && has_default {
            found.push(format!("{file} is a default_server, too"));
        }
    }
    found
}

/// What to do about a configuration that nginx does not take, whoever broke it.
const BROKEN: &str = "correct what its words above name, on the host or with this kind, until `nginx -t` is content; nothing was done, so as not to make it worse";

/// What to do about what nginx says.
pub(super) fn problem(error: &NginxError) -> Problem {
    let advice = match error {
        NginxError::Absent => "install it first, for example with `fleetward package install`",
        NginxError::Broken(_) => BROKEN,
        NginxError::Start(_) | NginxError::Silent | NginxError::Much | NginxError::Strange => {
            "nothing was done; see what `nginx -t` says on the host"
        }
    };
    Problem::new(error, advice)
}
