//! Who can log in on a host, and who is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::choice::choices;
use crate::object::{Class, Object};
use crate::text::{List, Text, Word};
use crate::time::Timestamp;

/// The most groups of a user that are told.
pub const MAX_GROUPS: usize = 24;

/// Which logins are listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Logins {
    /// These parts only; all of them when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub parts: Vec<Part>,
}

choices! {
    /// What there is to see of logins.
    pub enum Part {
        /// The users of the host's own list (`/etc/passwd`) who have a shell to log in with.
        User = "user",
        /// Those who are logged in now.
        Session = "session",
    }
}

choices! {
    /// What a user's password is like. Keys, and what others than the host know, are not in it.
    pub enum Password {
        /// There is one.
        Set = "set",
        /// None fits: nobody can log in with one.
        Locked = "locked",
        /// None is needed.
        Empty = "empty",
    }
}

/// A user who can log in, or one who is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LoginItem {
    /// What it is.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub part: Part,
    /// The Linux user's name.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "deploy"))]
    pub user: Word,
    /// The user's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The home directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub home: Option<Text<512>>,
    /// The shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub shell: Option<Word>,
    /// The user's groups, the first 24 of them.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub groups: List<Text<64>, MAX_GROUPS>,
    /// What the password is like; absent where the agent may not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub password: Option<Password>,
    /// When the user logged in last, as far as the host keeps that (`/var/log/lastlog`); of a session, when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub since: Option<Timestamp>,
    /// From where: an address or a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "192.0.2.10"))]
    pub from: Option<Word>,
    /// On which terminal or seat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "pts/0"))]
    pub terminal: Option<Word>,
    /// What logind, or the list of logins, calls the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub session: Option<Word>,
    /// What let the user in: `sshd`, `login`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "sshd"))]
    pub service: Option<Word>,
    /// How the session is: `active`, `online`, `closing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub state: Option<Word>,
    /// The process that leads the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

impl LoginItem {
    /// One of which nothing but this is known.
    #[must_use]
    pub fn new(part: Part, user: &str) -> Self {
        Self {
            part,
            user: Text::of(user),
            uid: None,
            home: None,
            shell: None,
            groups: List::default(),
            password: None,
            since: None,
            from: None,
            terminal: None,
            session: None,
            service: None,
            state: None,
            pid: None,
        }
    }
}

impl Contract for Logins {
    const KIND: &'static str = "logins";
    const SUMMARY: &'static str = "List the users who can log in, and those who are logged in.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[Class::Users];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    const MAX_ITEMS: usize = 16_384;
    const MAX_BYTES: usize = 16 << 20;

    type Item = LoginItem;

    fn key(item: &LoginItem) -> Key {
        let LoginItem { part, user, session, .. } = item;
        match session {
            Some(session) => Text::of(format_args!("{part} {session} {user}")),
            None => Text::of(format_args!("{part} {user}")),
        }
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn shown(item: &LoginItem) -> Option<Object> {
        Some(Object::named(Class::Users, &item.user))
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Logins {
    /// Whether this part is meant.
    #[must_use]
    pub fn means(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

/// What a password is like, by its field in shadow(5). The field itself is told to nobody.
#[must_use]
pub fn password(field: &str) -> Password {
    match field {
        "" => Password::Empty,
        // No hash of crypt(3) begins so: a password behind it is one that was locked.
        field if field.starts_with(['!', '*']) || field == "x" => Password::Locked,
        _ => Password::Set,
    }
}

/// Whether a path is a shell to log in with, and not something that ends at once.
#[must_use]
pub fn is_login_shell(shell: &str) -> bool {
    let name = shell.rsplit('/').next().unwrap_or_default();
    !matches!(name, "nologin" | "false" | "true" | "sync" | "halt" | "shutdown")
}

fn is_empty(groups: &List<Text<64>, MAX_GROUPS>) -> bool {
    groups.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ActionRequest;
    use crate::query::{MAX_ITEM, Query};

    #[test]
    fn a_password_is_told_by_what_it_is_like_and_never_by_itself() {
        for (field, expected) in [
            ("", Password::Empty),
            ("*", Password::Locked),
            ("!", Password::Locked),
            ("!!", Password::Locked),
            ("!$y$j9T$salt$hash", Password::Locked),
            ("$y$j9T$salt$hash", Password::Set),
        ] {
            assert_eq!(password(field), expected, "{field}");
        }
    }

    #[test]
    fn what_ends_at_once_is_no_shell() {
        for (shell, expected) in [
            ("/bin/bash", true),
            ("/usr/bin/zsh", true),
            ("/usr/sbin/nologin", false),
            ("/sbin/nologin", false),
            ("/bin/false", false),
            ("/bin/sync", false),
        ] {
            assert_eq!(is_login_shell(shell), expected, "{shell}");
        }
    }

    #[test]
    fn parts_are_told_apart_and_the_largest_item_fits() {
        let item = LoginItem::new(Part::User, "root");
        let session = LoginItem { part: Part::Session, session: Some(Text::of("4")), ..item.clone() };
        assert_eq!(
            (Logins::key(&item), Logins::key(&session)),
            (Text::of("user root"), Text::of("session 4 root"))
        );
        assert_eq!(Logins::shown(&session), Some(Object::named(Class::Users, "root")));
        let sessions = Logins { parts: vec![Part::Session] };
        assert!(
            Logins::default().means(Part::User)
                && sessions.means(Part::Session)
                && !sessions.means(Part::User)
        );
        let word = || Some(Text::of("\"".repeat(255)));
        let largest = LoginItem {
            user: Text::of("\"".repeat(255)),
            home: Some(Text::of("\"".repeat(1024))),
            shell: word(),
            groups: List::of((0..99).map(|_| Text::of("\"".repeat(64)))),
            from: word(),
            terminal: word(),
            session: word(),
            service: word(),
            state: word(),
            ..item
        };
        let length = serde_json::to_string(&largest).unwrap().len();
        assert!(length <= MAX_ITEM, "{length}");
        let request = ActionRequest { kind: "logins".into(), params: r#"{"parts":["group"]}"#.into() };
        let error = Query::parse(&request).unwrap_err().to_string();
        assert!(error.contains("unknown variant `group`"), "{error}");
    }
}
