//! The fleet's git repository, read: `links.yaml`, `scripts.yaml` and the scripts they name.
//!
//! **What for.** [`parse`] turns the files of one commit into an [`Inventory`] that can be put in force as a
//! whole, or into every [`Problem`] that stands against it.
//!
//! **What it promises.** All or nothing: an inventory is returned only if no file has an error. Every problem
//! names file, line, column and field. Time and memory are bounded whatever the files hold: sizes are checked
//! before parsing, and nodes, nesting and what aliases may copy are capped while parsing. `docs/inventory.md`
//! describes the formats for people.
//!
//! **Deliberately absent.** No git and no file system: files come through a closure. Nothing about what is in
//! force now; what to do with a host that left the file is decided where both are known.

use std::time::Duration;

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::name::{HostName, LinuxUser, ResourceName, ScriptName, Tag};

use crate::fleet::contract::{FreeArguments, Variable};

pub use content::shell_word;
pub use path::{InvalidRepoPath, RepoPath};
pub use problem::{Problem, Severity};

mod content;
mod declaration;
mod fields;
mod links;
mod path;
mod problem;
mod scripts;
pub mod secrets;
pub mod share;
mod yaml;

/// The largest `links.yaml` or `scripts.yaml`, in bytes. A larger one is refused unread.
pub const MAX_FILE: usize = 8 << 20;
/// The most hosts one inventory may hold.
pub const MAX_HOSTS: usize = 100_000;
/// The most scripts one inventory may hold.
pub const MAX_SCRIPTS: usize = 10_000;
/// The most bytes that all scripts of one inventory may have together.
pub const MAX_SCRIPTS_TOTAL: usize = 64 << 20;
/// The most problems reported for one inventory; what comes after is counted.
pub const MAX_PROBLEMS: usize = 200;

/// Everything one commit says about the fleet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inventory {
    /// The hosts, by name.
    pub hosts: Vec<InventoryHost>,
    /// The scripts, by name.
    pub scripts: Vec<InventoryScript>,
    /// Inventory files that the commit does not have (`links.yaml`, `scripts.yaml`): it says nothing about
    /// their part, which is not the same as saying that it is empty.
    pub absent: Vec<String>,
    /// What a person should look at but what does not stand in the way.
    pub warnings: Vec<Problem>,
}

/// One entry of `links.yaml`.
#[derive(Debug, Clone, PartialEq)]
pub struct InventoryHost {
    /// The key of the entry.
    pub name: HostName,
    /// `enrollment.clientId`.
    pub client_id: ClientId,
    /// `type`, such as `VPS`.
    pub kind: String,
    /// `provider`; empty when the file names none.
    pub provider: String,
    /// `host`: an IP address or a name, for people and for hosts without an agent.
    pub address: String,
    /// `port` of SSH.
    pub port: u16,
    /// `user` of SSH.
    pub user: String,
    /// `tags`, without repetitions.
    pub tags: Vec<Tag>,
    /// `enrollment.required`; true when absent.
    pub enrollment_required: bool,
    /// `ssh.keyRef`: the name of a key file.
    pub key_ref: Option<String>,
    /// `ssh.proxyJump`: the host to go through.
    pub proxy_jump: Option<HostName>,
    /// `metadata`, as it stands.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Where the entry begins in its file, from 1.
    pub line: u32,
}

/// One entry of `scripts.yaml` with the content it names.
#[derive(Debug, Clone, PartialEq)]
pub struct InventoryScript {
    /// The key of the entry.
    pub name: ScriptName,
    /// `name`: the title for people.
    pub title: String,
    /// `description`.
    pub description: String,
    /// `path` in the repository; absent for an inline `command`.
    pub path: Option<RepoPath>,
    /// `emoji`; empty when the file names none.
    pub emoji: String,
    /// `flags`.
    pub flags: Vec<Flag>,
    /// `arguments`: whether it takes others than its flags; when absent, only a script without flags does.
    pub free_arguments: FreeArguments,
    /// `environment`.
    pub environment: Vec<Variable>,
    /// `estimatedDuration`.
    pub estimated: Option<Duration>,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `user`: as whom it runs; the agent's own user when absent.
    pub user: Option<LinuxUser>,
    /// `users`: as whom else it may be run.
    pub users: Vec<LinuxUser>,
    /// `resources` held while it runs.
    pub resources: Vec<ResourceName>,
    /// `tags`, without repetitions.
    pub tags: Vec<Tag>,
    /// SHA-256 of `content`.
    pub digest: Digest,
    /// What runs.
    pub content: Vec<u8>,
    /// Where the entry begins in its file, from 1.
    pub line: u32,
}

/// One entry of a script's `flags`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Flag {
    /// The argument as it is passed; for a flag that needs a value, the part before `=`.
    pub flag: String,
    /// Whether the file says `=REQUIRED`: whoever runs the script must give a value, passed as `flag=value`.
    pub requires_value: bool,
}

/// What the commit has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Missing,
    /// A regular file.
    File {
        /// The whole content.
        content: Vec<u8>,
        /// Whether git has it as executable.
        executable: bool,
    },
    /// A regular file above the limit that was asked for; its content was not read.
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// Something that is not a regular file, such as `a symbolic link`.
    NotAFile(&'static str),
    /// The repository could not tell.
    Unreadable(String),
}

/// Reads the inventory from one commit's files. `read` is asked for a path and the most bytes that are wanted.
///
/// # Errors
/// Every problem of every file, errors before warnings, [`MAX_PROBLEMS`] at most; at least one is an error.
pub fn parse(read: &dyn Fn(&RepoPath, usize) -> Found) -> Result<Inventory, Vec<Problem>> {
    let mut report = problem::Report::default();
    let mut inventory = Inventory::default();
    match inventory_file(&mut report, read, "links") {
        Opened::Absent(file) => inventory.absent.push(file),
        Opened::Broken => {}
        Opened::Document(document) => inventory.hosts = links::read(&mut report, &document),
    }
    match inventory_file(&mut report, read, "scripts") {
        Opened::Absent(file) => inventory.absent.push(file),
        Opened::Broken => {}
        Opened::Document(document) => inventory.scripts = scripts::read(&mut report, &document, read),
    }
    if inventory.absent.len() == 2 {
        report.enter("links.yaml");
        let message = "the repository has neither links.yaml nor scripts.yaml at its top; \
                       check the branch, or add one of them";
        report.error(problem::Position::START, "", message);
    }
    inventory.warnings = report.finish()?;
    Ok(inventory)
}

enum Opened {
    Absent(String),
    Broken,
    Document(yaml::Node),
}

/// Finds `stem.yaml` (or `.yml`), reads it and parses it as YAML.
fn inventory_file(
    report: &mut problem::Report,
    read: &dyn Fn(&RepoPath, usize) -> Found,
    stem: &str,
) -> Opened {
    let long = format!("{stem}.yaml");
    let short = format!("{stem}.yml");
    let (file, found) = match (read(&RepoPath::top(&long), MAX_FILE), read(&RepoPath::top(&short), MAX_FILE))
    {
        (Found::Missing, Found::Missing) => return Opened::Absent(long),
        (Found::Missing, found) => (short, found),
        (found, Found::Missing) => (long, found),
        _ => {
            report.enter(&long);
            report.error(
                problem::Position::START,
                "",
                format!("both {long} and {short} exist; keep one of them"),
            );
            return Opened::Broken;
        }
    };
    report.enter(&file);
    let refusal = match found {
        Found::File { content, .. } if content.len() <= MAX_FILE => {
            return yaml::parse(report, &content).map_or(Opened::Broken, Opened::Document);
        }
        Found::File { content, .. } => too_large(content.len() as u64),
        Found::TooLarge { size } => too_large(size),
        Found::NotAFile(what) => format!("is {what}, but has to be a regular file"),
        Found::Unreadable(detail) => format!("cannot be read from the repository: {detail}"),
        Found::Missing => return Opened::Absent(file),
    };
    report.error(problem::Position::START, "", refusal);
    Opened::Broken
}

/// A YAML file that is no part of an inventory, as JSON has it: read by the same rules, within the same bounds.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read_yaml(file: &str, content: &[u8]) -> Result<serde_json::Value, Vec<Problem>> {
    let mut report = problem::Report::default();
    report.enter(file);
    if content.len() > MAX_FILE {
        report.error(problem::Position::START, "", too_large(content.len() as u64));
    }
    let node = if content.len() > MAX_FILE { None } else { yaml::parse(&mut report, content) };
    report.finish()?;
    Ok(node.map_or(serde_json::Value::Null, |node| fields::json(&node)))
}

fn too_large(size: u64) -> String {
    format!("is {size} bytes long, but {MAX_FILE} are allowed; it was not read")
}

#[cfg(test)]
mod tests;
