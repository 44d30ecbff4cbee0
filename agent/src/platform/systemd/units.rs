//! Which units systemd has loaded, and what it tells of them as they change.
//!
//! A unit that is not loaded is not asked about: asking by its object or its name would load it, and tell everybody that it
//! is new.

use std::future::poll_fn;
use std::iter::Peekable;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use fleetward_protocol::action::unit::UnitName;
use fleetward_protocol::query::units::{UnitItem, Usage};
use fleetward_protocol::text::Text;
use futures_core::Stream as _;
use tokio::task::JoinSet;
use zbus::message::Type as MessageType;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath};

use super::{MANAGER, PATH, PROPERTIES, QUEUE, SERVICE, SystemdError, UNIT, WITHOUT_RESULT, property};

/// So many units are asked about at the same time, with eight questions each: a message bus lets nobody wait for more than
/// 128 answers (`max_replies_per_connection`, dbus-daemon(1)).
pub const AT_ONCE: usize = 12;
/// So many questions are asked at the same time.
const QUESTIONS: usize = AT_ONCE * 8;
/// How long systemd is waited for before a query says that it does not answer: less than a query may take without a word.
const QUERY_PATIENCE: Duration = Duration::from_secs(20);
/// The types that have processes of their own, which systemd may count (systemd.resource-control(5)).
const COUNTED: [&str; 6] = ["service", "socket", "mount", "swap", "slice", "scope"];
/// Below it stand the units' objects.
const UNITS: &str = "/org/freedesktop/systemd1/unit";

/// A connection to the system's service manager, to look at its units.
#[derive(Debug)]
pub struct Units {
    connection: Connection,
}

/// A unit as the list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its whole name.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `active`, `inactive`, `failed`, …
    pub active: String,
    /// The same in the terms of its type.
    pub sub: String,
    path: OwnedObjectPath,
}

/// What systemd tells when something changes.
#[derive(Debug)]
pub struct Signals {
    manager: Pin<Box<MessageStream>>,
    properties: Pin<Box<MessageStream>>,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// This unit did.
    Unit(String),
    /// Perhaps every unit did: systemd has read its files again.
    Everything,
}

/// A unit as systemd lists it, by its name.
pub(super) type Row =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// As many of the next units as can be asked about at the same time: of most, as targets and devices are, there is little to ask.
pub fn next_at_once(units: &mut Peekable<impl Iterator<Item = Loaded>>) -> Vec<Loaded> {
    let (mut some, mut asked) = (Vec::new(), 0);
    while let Some(unit) = units.next_if(|unit| asked + unit.questions() <= QUESTIONS) {
        asked += unit.questions();
        some.push(unit);
    }
    some
}

impl Loaded {
    /// How many questions [`Units::read`] asks about it at the most.
    fn questions(&self) -> usize {
        let kind = self.name.rsplit('.').next().unwrap_or_default();
        match (COUNTED.contains(&kind), WITHOUT_RESULT.contains(&kind)) {
            (true, _) => 8,
            (false, false) => 3,
            (false, true) => 2,
        }
    }

    /// Where its object stands.
    pub(super) fn path(&self) -> &str {
        self.path.as_str()
    }
}

impl Units {
    /// Connects to the system's message bus.
    ///
    /// # Errors
    /// If there is none.
    pub async fn connect() -> Result<Self, SystemdError> {
        let connected = tokio::time::timeout(QUERY_PATIENCE, Connection::system()).await;
        let connection = connected.map_err(|_| SystemdError::Silent)?.map_err(SystemdError::Bus)?;
        Ok(Self { connection })
    }

    /// The units that are loaded: of these names, or all of them.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub async fn list(&self, names: Option<&[&str]>) -> Result<Vec<Loaded>, SystemdError> {
        // No states and no patterns mean all of them; a name has no character that is special in a pattern.
        let (states, patterns): (&[&str], _) = (&[], names.unwrap_or_default());
        let asked = (states, patterns);
        let rows = super::ask::<Vec<Row>>(&self.connection, PATH, MANAGER, "ListUnitsByPatterns", &asked);
        let rows = tokio::time::timeout(QUERY_PATIENCE, rows).await.map_err(|_| SystemdError::Silent)??;
        let loaded = |(name, description, load, active, sub, _, path, ..): Row| Loaded {
            name,
            description,
            load,
            active,
            sub,
            path,
        };
        Ok(rows.into_iter().map(loaded).collect())
    }

    /// What these units of the list are, in full and in their order. All of them are asked about at the same time: whoever has
    /// many asks for the [`next_at_once`] after each other.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub async fn read(&self, units: Vec<Loaded>) -> Result<Vec<UnitItem>, SystemdError> {
        each(&self.connection, units, |connection, unit| async move { read_item(&connection, &unit).await })
            .await
    }

    /// How all of it is, in the words of systemd, and how many units failed.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub async fn read_state(&self) -> Result<(Option<String>, Option<u32>), SystemdError> {
        tokio::try_join!(
            property(&self.connection, PATH, MANAGER, "SystemState"),
            property(&self.connection, PATH, MANAGER, "NFailedUnits"),
        )
    }

    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether there is such a unit: loaded, or to be loaded from its file.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub async fn knows(&self, unit: &UnitName) -> Result<bool, SystemdError> {
        let path: OwnedObjectPath =
            super::ask(&self.connection, PATH, MANAGER, "LoadUnit", &(unit.as_str(),)).await?;
        let load: Option<String> = property(&self.connection, path.as_str(), UNIT, "LoadState").await?;
        Ok(load.is_none_or(|load| load != "not-found"))
    }

    /// What changes from now on. To be listened to while something is asked: answers come behind what is not heard.
    ///
    /// # Errors
    /// If systemd will not tell.
    pub async fn signals(&self) -> Result<Signals, SystemdError> {
        let rule = || MatchRule::builder().msg_type(MessageType::Signal).sender(SERVICE);
        let manager = rule().path(PATH).interface(MANAGER).build();
        let properties =
            rule().path_namespace(UNITS).interface(PROPERTIES).member("PropertiesChanged").build();
        let signals = Signals {
            manager: self.listen(manager.map_err(SystemdError::Strange)?).await?,
            properties: self.listen(properties.map_err(SystemdError::Strange)?).await?,
        };
        // Nobody is told of anything who has not asked for it.
        super::call(&self.connection, PATH, MANAGER, "Subscribe", &()).await?;
        Ok(signals)
    }

    async fn listen(&self, rule: MatchRule<'static>) -> Result<Pin<Box<MessageStream>>, SystemdError> {
        let stream = MessageStream::for_match_rule(rule, &self.connection, Some(QUEUE));
        Ok(Box::pin(super::patiently(stream).await?))
    }
}

/// Reads something of each of these units at the same time; in their order.
pub(super) async fn each<T: Send + 'static, R>(
    connection: &Connection,
    units: Vec<Loaded>,
    read: impl Fn(Connection, Loaded) -> R,
) -> Result<Vec<T>, SystemdError>
where
    R: Future<Output = Result<T, SystemdError>> + Send + 'static,
{
    let mut asked = JoinSet::new();
    for (place, unit) in units.into_iter().enumerate() {
        let reading = read(connection.clone(), unit);
        asked.spawn(async move { reading.await.map(|item| (place, item)) });
    }
    let mut items = Vec::with_capacity(asked.len());
    while let Some(item) = asked.join_next().await {
        // A task that fell down has fallen with the runtime.
        items.push(item.map_err(|error| SystemdError::Runtime(error.into()))??);
    }
    items.sort_unstable_by_key(|(place, _)| *place);
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

async fn read_item(connection: &Connection, unit: &Loaded) -> Result<UnitItem, SystemdError> {
    let Loaded { name, description, load, active, sub, path } = unit;
    let states = [load, active, sub].map(Text::of);
    let (state, (usage, restarts)) = tokio::try_join!(
        super::read_rest(connection, path.as_str(), name, states),
        read_usage(connection, unit),
    )?;
    Ok(UnitItem::new(name, description, state, usage, restarts))
}

/// What a unit uses, and how often it was started again: asked only of what may have an answer.
async fn read_usage(connection: &Connection, unit: &Loaded) -> Result<(Usage, Option<u32>), SystemdError> {
    let (path, own) = (unit.path.as_str(), super::interface(&unit.name));
    let kind = unit.name.rsplit('.').next().unwrap_or_default();
    let runs = COUNTED.contains(&kind) && !matches!(unit.active.as_str(), "inactive" | "failed");
    let counted = async |name| {
        if !runs {
            return Ok(None);
        }
        let value: Option<u64> = property(connection, path, &own, name).await?;
        // What is not counted is the greatest number (org.freedesktop.systemd1(5)).
        Ok::<_, SystemdError>(value.filter(|value| *value < u64::MAX))
    };
    let restarts = async {
        match kind == "service" && unit.active != "inactive" {
            true => property::<u32>(connection, path, &own, "NRestarts").await,
            false => Ok(None),
        }
    };
    let (memory, nanoseconds, tasks, restarts) = tokio::try_join!(
        counted("MemoryCurrent"),
        counted("CPUUsageNSec"),
        counted("TasksCurrent"),
        restarts
    )?;
    Ok((Usage { memory, cpu_ms: nanoseconds.map(|time| time / 1_000_000), tasks }, restarts))
}

impl Signals {
    /// The next change. Cancel-safe.
    ///
    /// # Errors
    /// If the bus went away.
    pub async fn next(&mut self) -> Result<Signal, SystemdError> {
        loop {
            let message = poll_fn(|context| match self.properties.as_mut().poll_next(context) {
                Poll::Pending => self.manager.as_mut().poll_next(context),
                ready => ready,
            });
            let message = message.await.ok_or(SystemdError::Ended)?.map_err(|_| SystemdError::Ended)?;
            if let Some(signal) = read(&message) {
                return Ok(signal);
            }
        }
    }
}

/// What a signal says, if it is about units.
fn read(message: &Message) -> Option<Signal> {
    let header = message.header();
    match header.member()?.as_str() {
        "PropertiesChanged" => name_of(header.path()?.as_str()).map(Signal::Unit),
        "UnitNew" | "UnitRemoved" => {
            let (name, _): (String, OwnedObjectPath) = super::body(message).ok()?;
            Some(Signal::Unit(name))
        }
        // What is enabled has changed, or all of it was read again.
        "UnitFilesChanged" => Some(Signal::Everything),
        "Reloading" => {
            let (begins,): (bool,) = super::body(message).ok()?;
            (!begins).then_some(Signal::Everything)
        }
        _ => None,
    }
}

/// The unit whose object stands at this path (sd_bus_path_encode(3)).
fn name_of(path: &str) -> Option<String> {
    let mut bytes = path.strip_prefix(UNITS)?.strip_prefix('/')?.bytes();
    let mut name = Vec::new();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'_' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use zbus::ObjectPath;

    use super::*;

    #[test]
    fn no_more_is_asked_at_the_same_time_than_the_bus_takes_and_all_is_asked() {
        let unit = |kind: &str| Loaded {
            name: format!("x.{kind}"),
            description: String::new(),
            load: "loaded".into(),
            active: "active".into(),
            sub: String::new(),
            path: ObjectPath::try_from("/").unwrap().into(),
        };
        for (kind, at_once) in [("target", 48), ("service", 12), ("timer", 32)] {
            let mut units = (0..100).map(|_| unit(kind)).peekable();
            let sizes: Vec<usize> = std::iter::from_fn(|| Some(next_at_once(&mut units).len()))
                .take_while(|size| *size > 0)
                .collect();
            assert_eq!((sizes[0], sizes.iter().sum::<usize>()), (at_once, 100), "{kind}");
        }
    }

    #[test]
    fn the_object_of_a_unit_tells_its_name() {
        let name = |tail: &str| name_of(&format!("{UNITS}/{tail}"));
        assert_eq!(name("nginx_2eservice").as_deref(), Some("nginx.service"));
        assert_eq!(name("_40a_5cx2d_2eservice").as_deref(), Some("@a\\x2d.service"));
        assert_eq!(name("_2"), None);
        assert_eq!(name("_zz"), None);
        assert_eq!(name("_ff"), None, "no text");
        assert_eq!(name_of("/org/freedesktop/systemd1/job/7"), None);
        assert_eq!(name_of(UNITS), None);
    }
}
