//! What a change to one unit would do to the unit of the agent, by what systemd says of both (systemd.unit(5)).

use std::collections::{HashMap, HashSet};

use fleetward_protocol::action::unit::UnitName;
use fleetward_protocol::text::{Line, Text, Word};
use zbus::{OwnedObjectPath, OwnedVariant};

use super::{MANAGER, PATH, PROPERTIES, Systemd, SystemdError, UNIT, ask};

/// The properties that name the units with which a unit is stopped.
const STOPPED_WITH: [&str; 5] = ["Requires", "Requisite", "BindsTo", "PartOf", "StopPropagatedFrom"];
/// Those that name the units without which a unit does not start.
const STARTED_AFTER: [&str; 3] = ["Requires", "Requisite", "BindsTo"];
/// Those that name the units that start it with them.
const STARTED_BY: [&str; 4] = ["WantedBy", "RequiredBy", "BoundBy", "UpheldBy"];
/// Those that name the units that it starts, at once or (a timer, a path, a socket) later.
const STARTS: [&str; 5] = ["Wants", "Requires", "BindsTo", "Upholds", "Triggers"];
/// Those that name the units that cannot be active together with it.
const CONFLICTS: [&str; 2] = ["Conflicts", "ConflictedBy"];
/// Through so many units a dependency is followed. What hangs together with more is not known to be harmless.
const MOST: usize = 2048;
/// Units without which a host does not come up as its agent needs it, whatever names them.
const BOOT: [&str; 5] = ["-.mount", "local-fs.target", "sysinit.target", "basic.target", "default.target"];
/// The units of the message bus, by their own names.
const BUS: [&str; 3] = ["dbus.socket", "dbus.service", "dbus-broker.service"];

/// What is about to be done to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is stopped.
    Stop,
    /// It is started.
    Start,
    /// It is stopped and started, and is stopped all the same if the start fails.
    Restart,
    /// It is not started any more from the next boot on.
    Disable,
}

/// What that would do to the unit of this process, which is the agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carries {
    /// Nothing that is known.
    Nothing,
    /// It is that unit.
    Us,
    /// That unit needs it.
    Needed {
        /// The unit's name.
        own: Word,
        /// How: `a.service needs b.socket, which needs c.target`.
        how: Line,
    },
    /// That unit is started by it at each boot.
    Starter {
        /// The unit's name.
        own: Word,
        /// How: `c.target starts b.target, which starts a.service`.
        how: Line,
    },
    /// That unit, or one that it needs, is stopped when it is started.
    Conflict {
        /// The unit's name.
        own: Word,
        /// What is started and what is stopped: `a.target would be started with it, and stops b.target`.
        how: Line,
    },
    /// What starts that unit at each boot does not come up without it.
    Boot {
        /// The unit's name.
        own: Word,
        /// How: `b.target needs c.target, and b.target has a part in starting a.service`.
        how: Line,
    },
    /// The agent asks systemd through it.
    Bus,
    /// It, or what starts with it, stops the message bus, through which the agent asks systemd.
    BusConflict {
        /// What is started and what is stopped.
        how: Line,
    },
    /// The agent's unit starts again only if this one does, which is not active now.
    Missing {
        /// The unit's name.
        own: Word,
        /// The one that it needs.
        needs: Word,
    },
    /// That cannot be told: more units hang together than are looked at.
    Unknown,
}

/// A unit as far as it matters here.
#[derive(Debug)]
struct Seen {
    id: String,
    is_active: bool,
    properties: HashMap<String, OwnedVariant>,
}

impl Seen {
    fn named<'a>(&'a self, dependencies: &'a [&str]) -> impl Iterator<Item = String> + 'a {
        dependencies.iter().flat_map(|name| {
            let names = self.properties.get(*name).and_then(|value| value.try_clone().ok());
            names.and_then(|names| Vec::<String>::try_from(names).ok()).unwrap_or_default()
        })
    }
}

/// Units that were reached from one.
#[derive(Debug)]
struct Reached {
    /// The nearest first, each with the place of the one that it was reached from.
    units: Vec<(Seen, usize)>,
    /// Whether these are all.
    is_whole: bool,
}

impl Systemd {
    /// What a change to this unit would do to the unit of the process that asks, by what systemd says of that process. The
    /// agent is in the same unit as all that it starts.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_carries(&self, unit: &UnitName, change: Change) -> Result<Carries, SystemdError> {
        self.runtime.block_on(async {
            // Started by something that is no unit, it has none to lose.
            let Some(own) = self.see_own().await? else { return Ok(Carries::Nothing) };
            // By its own name: it may have others.
            let asked = self.see(&self.load(unit).await?).await?;
            match change {
                Change::Start if asked.id == own.id => Ok(Carries::Nothing),
                Change::Restart if asked.id == own.id => self.starts_again(&own).await,
                Change::Stop | Change::Disable if asked.id == own.id => Ok(Carries::Us),
                Change::Start | Change::Restart => self.conflicts(own, asked, change).await,
                Change::Stop => {
                    let reached = self.reach(own, &STOPPED_WITH, |_| true).await?;
                    Ok(match needed(&reached, &asked.id) {
                        Some(needed) => needed,
                        None if reached.is_whole => bus(&asked.id),
                        None => Carries::Unknown,
                    })
                }
                Change::Disable => self.keeps_from_starting(own, &asked).await,
            }
        })
    }

    /// The unit of the agent, by its own name; `None` where it belongs to none.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_own_name(&self) -> Result<Option<String>, SystemdError> {
        self.runtime.block_on(async { Ok(self.see_own().await?.map(|own| own.id)) })
    }

    /// The names under which a file would stand in the place of the agent's unit, of one that this needs to start, of what starts it,
    /// or of the message bus.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_names_to_keep(&self) -> Result<HashSet<String>, SystemdError> {
        self.runtime.block_on(async {
            let Some(own) = self.see_own().await? else { return Ok(HashSet::new()) };
            let id = own.id.clone();
            let mut names: HashSet<String> = BUS.iter().chain(&BOOT).map(|name| (*name).to_owned()).collect();
            let reached = self.reach(own, &STARTED_AFTER, |_| true).await?;
            names.extend(reached.units.into_iter().map(|(unit, _)| unit.id));
            let own = self.see_named(&id).await?;
            let reached = self.reach(own, &STARTED_BY, |unit| unit.is_active).await?;
            names.extend(reached.units.into_iter().map(|(unit, _)| unit.id));
            Ok(names)
        })
    }

    /// Every unit that this process's own cannot be without, as [`read_carries`](Self::read_carries) looks at one for a stop and for the
    /// next boots, by each of its names; `None` if they are more than are looked at.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_all_needed(&self) -> Result<Option<HashSet<String>>, SystemdError> {
        self.runtime.block_on(async {
            let Some(own) = self.see_own().await? else { return Ok(Some(HashSet::new())) };
            let id = own.id.clone();
            let mut all = vec![self.reach(own, &STOPPED_WITH, |_| true).await?];
            let own = self.see_named(&id).await?;
            all.push(self.reach(own, &STARTED_AFTER, |_| true).await?);
            let own = self.see_named(&id).await?;
            let starters = self.reach(own, &STARTED_BY, |unit| unit.is_active).await?;
            for (starter, _) in starters.units.iter().skip(1).filter(|(starter, _)| starter.is_active) {
                let starter = self.see_named(&starter.id).await?;
                all.push(self.reach(starter, &STARTED_AFTER, |_| true).await?);
            }
            let mut names: HashSet<String> = BUS.iter().chain(&BOOT).map(|name| (*name).to_owned()).collect();
            let is_whole = starters.is_whole && all.iter().all(|reached| reached.is_whole);
            for (unit, _) in all.iter().flat_map(|reached| &reached.units) {
                names.extend(unit.named(&["Names"]));
                names.insert(unit.id.clone());
            }
            Ok(is_whole.then_some(names))
        })
    }

    /// Whether the agent's unit would not be started any more without this one.
    async fn keeps_from_starting(&self, own: Seen, asked: &Seen) -> Result<Carries, SystemdError> {
        let id = own.id.clone();
        let reached = self.reach(own, &STARTED_AFTER, |_| true).await?;
        if let Some(needed) = needed(&reached, &asked.id) {
            return Ok(needed);
        }
        let mut is_whole = reached.is_whole;
        // What is not active has not started it in this boot.
        let own = self.see_named(&id).await?;
        let starters = self.reach(own, &STARTED_BY, |unit| unit.is_active).await?;
        is_whole &= starters.is_whole;
        if let Some(mut chain) = chain(&starters, &asked.id).filter(|_| asked.is_active) {
            chain.reverse();
            return Ok(Carries::Starter { own: Text::of(id), how: sentence(&chain, "starts") });
        }
        for (starter, _) in starters.units.into_iter().skip(1).filter(|(starter, _)| starter.is_active) {
            let name = starter.id.clone();
            let reached = self.reach(starter, &STARTED_AFTER, |_| true).await?;
            if let Some(chain) = chain(&reached, &asked.id) {
                let needs = sentence(&chain, "needs");
                let how = Text::of(format_args!("{needs}, and {name} has a part in starting {id}"));
                return Ok(Carries::Boot { own: Text::of(id), how });
            }
            is_whole &= reached.is_whole;
        }
        Ok(match asked.id.as_str() {
            boot if BOOT.contains(&boot) => {
                Carries::Boot { own: Text::of(id), how: Text::of("no host comes up as it should without it") }
            }
            other if is_whole => bus(other),
            _ => Carries::Unknown,
        })
    }

    /// Whether the agent's unit starts again once it is stopped, as far as that can be told: what it needs is active.
    async fn starts_again(&self, own: &Seen) -> Result<Carries, SystemdError> {
        for name in own.named(&STARTED_AFTER) {
            if !self.see_named(&name).await?.is_active {
                return Ok(Carries::Missing { own: Text::of(&own.id), needs: Text::of(name) });
            }
        }
        Ok(Carries::Nothing)
    }

    /// The unit of this process, if it has one.
    async fn see_own(&self) -> Result<Option<Seen>, SystemdError> {
        match ask(&self.connection, PATH, MANAGER, "GetUnitByPID", &(std::process::id(),)).await {
            Ok(own) => self.see(&own).await.map(Some),
            Err(SystemdError::Refused { name, .. }) if name.ends_with(".NoUnitForPID") => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn see_named(&self, name: &str) -> Result<Seen, SystemdError> {
        let path = ask(&self.connection, PATH, MANAGER, "LoadUnit", &(name,)).await?;
        self.see(&path).await
    }

    /// Whether what starts with this unit stops the agent's, or one that that needs; or, restarted, is itself such a one.
    async fn conflicts(&self, own: Seen, asked: Seen, change: Change) -> Result<Carries, SystemdError> {
        let name = own.id.clone();
        let reached = self.reach(own, &STOPPED_WITH, |_| true).await?;
        if let Some(needed) = needed(&reached, &asked.id).filter(|_| change == Change::Restart) {
            return Ok(needed);
        }
        let mut is_whole = reached.is_whole;
        let needed: HashSet<String> = reached.units.into_iter().map(|(unit, _)| unit.id).collect();
        // What is active already stops nothing more.
        let first = asked.id.clone();
        let started = self.reach(asked, &STARTS, |unit| !unit.is_active).await?;
        is_whole &= started.is_whole;
        for (unit, _) in started.units.iter().filter(|(unit, _)| unit.id == first || !unit.is_active) {
            let matters = |stopped: &String| needed.contains(stopped) || BUS.contains(&stopped.as_str());
            if let Some(stopped) = unit.named(&CONFLICTS).find(matters) {
                let how = match unit.id == first {
                    true => format!("it cannot be active together with {stopped}"),
                    false => format!(
                        "{} is started with it, and cannot be active together with {stopped}",
                        unit.id
                    ),
                };
                return Ok(match needed.contains(&stopped) {
                    true => Carries::Conflict { own: Text::of(name), how: Text::of(how) },
                    false => Carries::BusConflict { how: Text::of(how) },
                });
            }
        }
        Ok(if is_whole { Carries::Nothing } else { Carries::Unknown })
    }

    async fn see(&self, path: &OwnedObjectPath) -> Result<Seen, SystemdError> {
        let mut properties: HashMap<String, OwnedVariant> =
            ask(&self.connection, path.as_str(), PROPERTIES, "GetAll", &(UNIT,)).await?;
        let mut text = |name| {
            let value = properties.remove(name);
            value.and_then(|value| String::try_from(value).ok()).unwrap_or_default()
        };
        let (id, active) = (text("Id"), text("ActiveState"));
        Ok(Seen { id, is_active: matches!(active.as_str(), "active" | "reloading"), properties })
    }

    /// The units that can be reached from one along these dependencies, itself first, beyond those alone that `leads_on`.
    async fn reach(
        &self,
        first: Seen,
        along: &[&str],
        leads_on: fn(&Seen) -> bool,
    ) -> Result<Reached, SystemdError> {
        let mut known: HashSet<String> = HashSet::from([first.id.clone()]);
        let (mut reached, mut is_whole) = (vec![(first, 0)], true);
        let mut at = 0;
        while let Some((unit, _)) = reached.get(at) {
            let next: Vec<String> = match at == 0 || leads_on(unit) {
                true => unit.named(along).collect(),
                false => Vec::new(),
            };
            for name in next {
                if known.contains(&name) {
                    continue;
                }
                if reached.len() == MOST {
                    is_whole = false;
                } else {
                    known.insert(name.clone());
                    let path = ask(&self.connection, PATH, MANAGER, "LoadUnit", &(name.as_str(),)).await;
                    match path {
                        Ok(path) => reached.push((self.see(&path).await?, at)),
                        // A name that systemd itself has no unit for.
                        Err(SystemdError::Refused { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            at += 1;
        }
        Ok(Reached { units: reached, is_whole })
    }
}

/// From the first unit to the one of this name; `None` if it was not reached.
fn chain<'a>(reached: &'a Reached, id: &str) -> Option<Vec<&'a str>> {
    let mut at = reached.units.iter().position(|(unit, _)| unit.id == id)?;
    let mut chain = vec![id_at(reached, at)?];
    while at != 0 {
        at = reached.units.get(at)?.1;
        chain.insert(0, id_at(reached, at)?);
    }
    Some(chain)
}

fn id_at(reached: &Reached, at: usize) -> Option<&str> {
    reached.units.get(at).map(|(unit, _)| unit.id.as_str())
}

fn needed(reached: &Reached, id: &str) -> Option<Carries> {
    let chain = chain(reached, id)?;
    let own = chain.first()?;
    Some(Carries::Needed { own: Text::of(own), how: sentence(&chain, "needs") })
}

fn bus(id: &str) -> Carries {
    if BUS.contains(&id) { Carries::Bus } else { Carries::Nothing }
}

/// `a needs b, which needs c`.
fn sentence(chain: &[&str], does: &str) -> Line {
    let Some((first, rest)) = chain.split_first() else { return Line::default() };
    let links: Vec<String> = rest.iter().map(|next| format!("{does} {next}")).collect();
    Text::of(format_args!("{first} {}", links.join(", which ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_told_from_one_end_to_the_other() {
        let seen = |id: &str| Seen { id: id.into(), is_active: true, properties: HashMap::new() };
        let units =
            vec![(seen("a.service"), 0), (seen("x.slice"), 0), (seen("b.socket"), 0), (seen("c.target"), 2)];
        let reached = Reached { units, is_whole: true };
        let Some(Carries::Needed { own, how }) = needed(&reached, "c.target") else { panic!("not reached") };
        assert_eq!(
            (own.as_str(), how.as_str()),
            ("a.service", "a.service needs b.socket, which needs c.target")
        );
        assert_eq!(needed(&reached, "d.target"), None);
        assert_eq!(bus("dbus.socket"), Carries::Bus);
    }
}
