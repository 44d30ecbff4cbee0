//! Linux accounts: what a run needs to become one.

use std::ffi::CString;
use std::path::PathBuf;

use fleetward_protocol::name::LinuxUser;
use fleetward_protocol::run::Refusal;
use fleetward_protocol::text::Text;
use nix::unistd::{Gid, Uid, User, getgrouplist};

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
    read_passwd().lines().filter_map(parse).map(|account| account.name).collect()
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
