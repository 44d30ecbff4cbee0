//! Lists who can log in, and who is logged in.

use fleetward_protocol::object::{Class, Object};
use fleetward_protocol::query::logins::{LoginItem, Logins, Part, is_login_shell};
use fleetward_protocol::text::{List, Text};

use super::look::Look;
use super::teller::{Stop, Teller};
use super::units::problem;
use crate::platform::logins::{self, Entry};
use crate::platform::systemd::SystemdError;
use crate::platform::systemd::units::Units;
use crate::platform::users::{self, Account, Names};

impl Look for Logins {
    async fn look(&self, _follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        if self.means(Part::User) {
            tell_users(teller).await?;
        }
        if self.means(Part::Session) {
            for session in read_sessions().await.map_err(problem)? {
                teller.item(&session).await?;
            }
        }
        Ok(())
    }
}

async fn tell_users(teller: &mut Teller<Logins>) -> Result<(), Stop> {
    let (passwords, last) = (logins::read_passwords(), logins::open_last());
    let mut names = Names::default();
    let mut accounts = users::read_accounts();
    accounts.retain(|account| {
        // Of others the name service is not even asked for their groups.
        is_login_shell(&account.shell.to_string_lossy())
            && teller.allowed().allows(&Object::named(Class::Users, &account.name))
    });
    for account in accounts {
        let last = last.as_ref().and_then(|list| logins::read_last(list, account.uid));
        let (since, from, terminal) =
            last.map_or((None, None, None), |last| (Some(last.at), last.from, last.terminal));
        let password = passwords.get(&account.name).copied();
        teller
            .item(&LoginItem {
                password,
                since,
                from: from.map(Text::of),
                terminal: terminal.map(Text::of),
                ..user(&account, &mut names)
            })
            .await?;
    }
    Ok(())
}

fn user(account: &Account, names: &mut Names) -> LoginItem {
    let groups = users::read_groups(account);
    LoginItem {
        uid: Some(account.uid),
        home: Some(Text::of(account.home.display())),
        shell: Some(Text::of(account.shell.display())),
        groups: List::of(groups.into_iter().map(|group| Text::of(names.group(group)))),
        ..LoginItem::new(Part::User, &account.name)
    }
}

/// By logind; by the list of logins where there is none, or no message bus.
async fn read_sessions() -> Result<Vec<LoginItem>, SystemdError> {
    let known = match Units::connect().await {
        Ok(bus) => bus.read_sessions().await?,
        Err(SystemdError::Bus(_)) => None,
        Err(error) => return Err(error),
    };
    Ok(known.unwrap_or_else(|| logins::read_entries().into_iter().map(listed).collect()))
}

fn listed(entry: Entry) -> LoginItem {
    // It is one of its terminal, by which who(1) names it.
    let session = entry.terminal.clone().or_else(|| entry.pid.map(|pid| pid.to_string()));
    LoginItem {
        since: Some(entry.since),
        from: entry.from.map(Text::of),
        terminal: entry.terminal.map(Text::of),
        session: Some(Text::of(session.unwrap_or_default())),
        pid: entry.pid,
        ..LoginItem::new(Part::Session, &entry.user)
    }
}

#[cfg(test)]
mod tests {
    use fleetward_protocol::time::Timestamp;

    use super::*;

    /// Whoever writes the list of logins writes what he wants.
    #[test]
    fn what_stands_in_the_list_of_logins_looks_as_it_is() {
        let hostile = "a\u{1b}[2Jb\nc\u{202e}";
        let entry = Entry {
            user: hostile.into(),
            since: Timestamp::from_millis(1),
            terminal: Some(hostile.into()),
            from: Some(hostile.repeat(99)),
            pid: Some(7),
        };
        let item = listed(entry);
        let told = serde_json::to_string(&item).unwrap();
        assert!(!told.contains("\\u001b") && !told.contains("\\n") && !told.contains('\u{202e}'), "{told}");
        assert!(item.user.starts_with("a\u{fffd}[2Jb"), "{told}");
        assert_eq!(item.session, item.terminal, "who(1) names it so");
        let nameless = Entry {
            user: "a".into(),
            since: Timestamp::from_millis(1),
            terminal: None,
            from: None,
            pid: Some(7),
        };
        assert_eq!(listed(nameless).session.as_deref(), Some("7"));
    }
}
