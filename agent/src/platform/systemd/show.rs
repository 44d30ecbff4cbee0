//! All that systemd knows of one unit, as values that need no bus to be read.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use fleetward_protocol::action::unit::UnitName;
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use super::units::Units;
use super::{MANAGER, PATH, PROPERTIES, SystemdError, UNIT, ask, interface};

/// The most bytes of a text that is made of a value of several parts.
const MAX_TEXT: usize = 8 << 10;
/// How deep values may stand in each other.
const MAX_DEPTH: usize = 6;

/// A value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plain {
    /// A number.
    Number(u64),
    /// A text, or what is none as one.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
}

/// The properties of a unit by their names, but for those that hold nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties(pub BTreeMap<String, Plain>);

impl Properties {
    /// A text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Plain::Text(text) => Some(text),
            Plain::Number(_) | Plain::Texts(_) => None,
        }
    }

    /// A number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name)? {
            Plain::Number(number) => Some(*number),
            Plain::Text(_) | Plain::Texts(_) => None,
        }
    }

    /// Several texts; none where there is nothing.
    #[must_use]
    pub fn texts(&self, name: &str) -> &[String] {
        match self.0.get(name) {
            Some(Plain::Texts(texts)) => texts,
            _ => &[],
        }
    }
}

impl Units {
    /// What systemd knows of a unit, which is loaded for it if need be.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub async fn show(&self, unit: &UnitName) -> Result<Properties, SystemdError> {
        let path: OwnedObjectPath =
            ask(self.connection(), PATH, MANAGER, "LoadUnit", &(unit.as_str(),)).await?;
        self.properties(&path, unit.as_str()).await
    }

    /// The properties of the object of a unit of this name.
    async fn properties(&self, path: &OwnedObjectPath, unit: &str) -> Result<Properties, SystemdError> {
        let own = interface(unit);
        let of = async |interface: &str| {
            ask::<HashMap<String, OwnedVariant>>(
                self.connection(),
                path.as_str(),
                PROPERTIES,
                "GetAll",
                &(interface,),
            )
            .await
        };
        let (all, more) = tokio::try_join!(of(UNIT), of(&own))?;
        let plain = |(name, value): (String, OwnedVariant)| plain(&name, &value).map(|value| (name, value));
        Ok(Properties(all.into_iter().chain(more).filter_map(plain).collect()))
    }
}

/// A value without what it has in common with others; `None` if it says nothing.
fn plain(name: &str, value: &Variant<'_>) -> Option<Plain> {
    let number = |number: u64| match number {
        // What is not counted, and what is not limited (org.freedesktop.systemd1(5)).
        u64::MAX if is_counted(name) => None,
        u64::MAX => Some(Plain::Text("infinity".to_owned())),
        0 if name.ends_with("Timestamp") => None,
        number => Some(Plain::Number(number)),
    };
    match value {
        Variant::U8(value) => number(u64::from(*value)),
        Variant::U16(value) => number(u64::from(*value)),
        Variant::U32(value) => number(u64::from(*value)),
        Variant::U64(value) => number(*value),
        // A credential's content may be secret; that there is one is not.
        Variant::Array(credentials) if name.starts_with("SetCredential") => {
            let names = credentials.iter().filter_map(|credential| match credential {
                Variant::Structure(fields) => fields.fields().first().map(words),
                _ => None,
            });
            texts(names.collect())
        }
        Variant::Array(commands) if name.starts_with("Exec") && commands.element_signature() != "s" => {
            texts(commands.iter().filter_map(command).collect())
        }
        Variant::Array(items) if items.element_signature() == "s" => texts(items.iter().map(words).collect()),
        Variant::Dict(_) | Variant::Array(_) | Variant::Structure(_) | Variant::Variant(_) => {
            let text = words(value);
            (!matches!(text.as_str(), "" | "[]" | "( )")).then_some(Plain::Text(text))
        }
        value => {
            let text = words(value);
            (!text.is_empty()).then_some(Plain::Text(text))
        }
    }
}

fn texts(texts: Vec<String>) -> Option<Plain> {
    (!texts.is_empty()).then_some(Plain::Texts(texts))
}

/// Whether it is something that is counted, and not a limit of it.
fn is_counted(name: &str) -> bool {
    ["Current", "NSec", "Bytes", "Packets", "Operations", "Peak", "Available", "Realtime", "Monotonic"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// The command line of a command (systemd has it with its times and its last end).
fn command(value: &Variant<'_>) -> Option<String> {
    let Variant::Structure(fields) = value else { return None };
    match fields.fields().get(1)? {
        Variant::Array(arguments) => Some(arguments.iter().map(words).collect::<Vec<_>>().join(" ")),
        _ => None,
    }
}

/// A value in words, no longer than is of use.
fn words(value: &Variant<'_>) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, value, MAX_DEPTH);
    text
}

fn write(text: &mut String, value: &Variant<'_>, depth: usize) -> std::fmt::Result {
    if text.len() > MAX_TEXT || depth == 0 {
        return text.write_char('…');
    }
    match value {
        Variant::U8(value) => write!(text, "{value}"),
        Variant::Bool(value) => text.write_str(if *value { "yes" } else { "no" }),
        Variant::I16(value) => write!(text, "{value}"),
        Variant::U16(value) => write!(text, "{value}"),
        Variant::I32(value) => write!(text, "{value}"),
        Variant::U32(value) => write!(text, "{value}"),
        Variant::I64(value) => write!(text, "{value}"),
        Variant::U64(value) => write!(text, "{value}"),
        Variant::F64(value) => write!(text, "{value}"),
        Variant::Str(value) => text.write_str(value),
        Variant::ObjectPath(value) => write!(text, "{value}"),
        Variant::Variant(value) => write(text, value, depth - 1),
        Variant::Array(items) => list(text, "[", items.iter(), "]", depth),
        Variant::Structure(fields) => list(text, "(", fields.fields().iter(), ")", depth),
        Variant::Dict(entries) => {
            let all = entries.iter().flat_map(|(name, value)| [name, value]);
            list(text, "{", all, "}", depth)
        }
        _ => text.write_char('?'),
    }
}

fn list<'a>(
    text: &mut String,
    begin: &str,
    items: impl Iterator<Item = &'a Variant<'a>>,
    end: &str,
    depth: usize,
) -> std::fmt::Result {
    text.write_str(begin)?;
    for (place, item) in items.enumerate() {
        if place > 0 {
            text.write_char(' ')?;
        }
        write(text, item, depth - 1)?;
        if text.len() > MAX_TEXT {
            break;
        }
    }
    text.write_str(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(name: &str, value: impl Into<Variant<'a>>) -> Option<Plain> {
        plain(name, &value.into())
    }

    #[test]
    fn a_value_is_a_number_a_text_or_several() {
        let text = |text: &str| Some(Plain::Text(text.to_owned()));
        assert_eq!(value("MainPID", 7_u32), Some(Plain::Number(7)));
        assert_eq!(
            (value("MemoryMax", u64::MAX), value("MemoryCurrent", u64::MAX)),
            (text("infinity"), None)
        );
        assert_eq!(
            (value("ActiveEnterTimestamp", 0_u64), value("NRestarts", 0_u32)),
            (None, Some(Plain::Number(0)))
        );
        assert_eq!(
            (value("CanStop", true), value("Nice", -5_i32), value("Slice", "")),
            (text("yes"), text("-5"), None)
        );
        let environment = vec!["A=1".to_owned(), "B=x y".to_owned()];
        assert_eq!(value("Environment", environment.clone()), Some(Plain::Texts(environment)));
        assert_eq!(value("After", Vec::<String>::new()), None);
        assert_eq!(value("Job", (7_u32, "x")), text("(7 x)"));
    }

    #[test]
    fn a_command_is_its_line_and_a_credential_its_name() {
        let command = vec![("/bin/sh", vec!["/bin/sh", "-c", "exit 1"], false, 1_u64)];
        assert_eq!(value("ExecStart", command), Some(Plain::Texts(vec!["/bin/sh -c exit 1".to_owned()])));
        let credential = vec![("token", b"secret".to_vec())];
        assert_eq!(value("SetCredential", credential), Some(Plain::Texts(vec!["token".to_owned()])));
    }

    #[test]
    fn what_is_long_is_cut() {
        let many: Vec<(String, u32)> = (0..10_000).map(|number| ("x".repeat(20), number)).collect();
        let Some(Plain::Text(text)) = value("Many", many) else { panic!() };
        assert!(text.len() <= MAX_TEXT + 64, "{}", text.len());
    }
}
