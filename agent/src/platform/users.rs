//! Linux accounts: what a run needs to become one.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use fleetward_protocol::name::LinuxUser;
use fleetward_protocol::run::Refusal;
use fleetward_protocol::text::Text;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist, setgid, setgroups, setuid};
use serde::{Deserialize, Serialize};

/// An account of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its home directory.
    pub home: PathBuf,
    /// Its login shell.
    pub shell: PathBuf,
}

/// The account called `name`, if there is one.
#[must_use]
pub fn read_account(name: &str) -> Option<Account> {
    // The name service may load modules of its own into the process; most accounts stand in the file.
    find(&read_passwd(), |account| account.name == name)
        .or_else(|| User::from_name(name).ok().flatten().map(Account::from))
}

/// The account to become for a run as `user`; `None` if that is the agent's `own`.
///
/// # Errors
/// If there is none, or the agent may not become it.
pub fn account_of(user: &LinuxUser, own: &Account) -> Result<Option<Account>, Refusal> {
    if user.as_str() == own.name {
        return Ok(None);
    }
    read_account(user.as_str())
        .filter(|account| account.uid == own.uid || may_change_user())
        .map(|account| (account.uid != own.uid).then_some(account))
        .ok_or_else(|| Refusal::NoSuchUser { user: Text::of(user.as_str()) })
}

/// The names in the host's own list of accounts; a name service may have more.
#[must_use]
pub fn read_names() -> Vec<String> {
    read_accounts().into_iter().map(|account| account.name).collect()
}

/// The accounts in the host's own list; a name service may have more.
#[must_use]
pub fn read_accounts() -> Vec<Account> {
    read_passwd().lines().filter_map(parse).collect()
}

/// The account the agent itself runs as.
#[must_use]
pub fn read_own_account() -> Account {
    let uid = nix::unistd::geteuid();
    find(&read_passwd(), |account| account.uid == uid.as_raw())
        .or_else(|| User::from_uid(uid).ok().flatten().map(Account::from))
        .unwrap_or_else(|| Account {
            name: uid.to_string(),
            uid: uid.as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            home: "/".into(),
            shell: "/bin/sh".into(),
        })
}

/// Every group the account belongs to.
#[must_use]
pub fn read_groups(account: &Account) -> Vec<u32> {
    let own = vec![account.gid];
    let Ok(name) = CString::new(account.name.as_str()) else { return own };
    match getgrouplist(&name, Gid::from_raw(account.gid)) {
        Ok(groups) => groups.into_iter().map(Gid::as_raw).collect(),
        Err(_) => own,
    }
}

/// Whether the agent may become other users.
#[must_use]
pub fn may_change_user() -> bool {
    Uid::effective().is_root()
}

/// An account as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Identity {
    /// That of an account.
    #[must_use]
    pub fn of(account: &Account) -> Self {
        Self { uid: account.uid, gid: account.gid, groups: read_groups(account) }
    }

    /// Makes this process that account's, for good. Must be called before there is a second thread.
    ///
    /// # Errors
    /// If it could not be done, or could be taken back: then this process must do nothing more.
    pub fn ensure_taken(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        // The user last: nobody but root may do the rest.
        setgroups(&groups)?;
        setgid(Gid::from_raw(self.gid))?;
        setuid(Uid::from_raw(self.uid))?;
        if self.uid != 0 && setuid(Uid::from_raw(0)).is_ok() {
            return Err(io::Error::other("this process could become root again"));
        }
        Ok(())
    }
}

/// The names of users and groups, each looked up once.
#[derive(Debug, Default)]
pub struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// The user's name; its number where it has none.
    pub fn user(&mut self, uid: u32) -> &str {
        self.users.entry(uid).or_insert_with(|| {
            // As for accounts: most stand in the file, and the name service may ask somebody far away.
            find(&read_passwd(), |account| account.uid == uid)
                .map(|account| account.name)
                .or_else(|| User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name))
                .unwrap_or_else(|| uid.to_string())
        })
    }

    /// The group's name; its number where it has none.
    pub fn group(&mut self, gid: u32) -> &str {
        self.groups.entry(gid).or_insert_with(|| {
            let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
            group.map_or_else(|| gid.to_string(), |group| group.name)
        })
    }
}

/// The number of a user of this name, or of this number.
#[must_use]
pub fn read_uid(name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| read_account(name).map(|account| account.uid))
}

/// The number of a group of this name, or of this number.
#[must_use]
pub fn read_gid(name: &str) -> Option<u32> {
    let known = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    name.parse().ok().or_else(known)
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir,
            shell: user.shell,
        }
    }
}

fn read_passwd() -> String {
    std::fs::read_to_string("/etc/passwd").unwrap_or_default()
}

// passwd(5): name:password:uid:gid:gecos:home:shell
fn find(passwd: &str, wanted: impl Fn(&Account) -> bool) -> Option<Account> {
    passwd.lines().filter_map(parse).find(wanted)
}

fn parse(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with(['+', '-']))?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?;
    let shell = fields.next().filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh");
    Some(Account { name: name.to_owned(), uid, gid, home: home.into(), shell: shell.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n+nis::::::\nbroken\nwww-data:x:33:33::/var/www:\n";

    #[test]
    fn passwd_lines() {
        let root = find(PASSWD, |account| account.uid == 0).unwrap();
        assert_eq!((root.home.to_str(), root.shell.to_str()), (Some("/root"), Some("/bin/bash")));
        let www = find(PASSWD, |account| account.name == "www-data").unwrap();
        assert_eq!((www.gid, www.home.to_str(), www.shell.to_str()), (33, Some("/var/www"), Some("/bin/sh")));
        assert_eq!(find(PASSWD, |account| account.name == "broken"), None);
    }
}
