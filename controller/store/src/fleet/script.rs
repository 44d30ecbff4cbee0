//! Scripts of the inventory, and their content by digest. A run names the digest it ran, so content stays.

use std::time::Duration;

use fleetward_domain::fleet::contract::{FreeArguments, Variable};
use fleetward_domain::fleet::inventory::Flag;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::TenantId;
use fleetward_protocol::name::{LinuxUser, ResourceName, ScriptName, Tag};
use fleetward_protocol::time::Timestamp;

use crate::query::{Row, json, query, words};
use crate::{Connection, Scope, StoreError};

words! {
    /// Which scripts to list.
    Listed {
        /// Those in the inventory now.
        Active = "active",
        /// Those that left it, too.
        WithRetired = "with_retired",
    }
}

/// A script as `scripts.yaml` declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its id in `scripts.yaml`, unique within the tenant.
    pub name: ScriptName,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Its name for people.
    pub display_name: String,
    /// What it does.
    pub description: String,
    /// A pictogram.
    pub emoji: String,
    /// The flags it takes.
    pub flags: Vec<Flag>,
    /// Whether it takes other arguments.
    pub free_arguments: FreeArguments,
    /// The environment variables it takes.
    pub environment: Vec<Variable>,
    /// How long it takes, about.
    pub estimated: Option<Duration>,
    /// How long it may take, if it says so itself.
    pub timeout: Option<Duration>,
    /// As whom it runs; the agent's own user when absent.
    pub user: Option<LinuxUser>,
    /// As whom else it may be run.
    pub users: Vec<LinuxUser>,
    /// Resources held while it runs.
    pub resources: Vec<ResourceName>,
    /// Labels.
    pub tags: Vec<Tag>,
    /// Its file, relative to the repository's root; absent for an inline command.
    pub path: Option<String>,
    /// The commit that declared it so.
    pub commit: String,
    /// When it was first seen.
    pub created_at: Timestamp,
    /// When its declaration or content last changed.
    pub updated_at: Timestamp,
    /// When it left the inventory.
    pub retired_at: Option<Timestamp>,
}

const SELECT: &str = "SELECT tenant_id, name, digest, display_name, description, emoji, flags, estimated_ms, tags, \
   path, timeout_ms, run_as, resources, commit_id, created_at, updated_at, retired_at, free_arguments, environment, \
   users FROM script WHERE ";

/// Keeps content under its digest; the same content again changes nothing.
///
/// # Errors
/// If the database fails.
pub async fn insert_content(
    conn: &mut Connection,
    content: &[u8],
    now: Timestamp,
) -> Result<Digest, StoreError> {
    let digest = Digest::of(content);
    query(
        "INSERT INTO script_content (digest, content, size, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(digest)
    .bind(content)
    .bind(content.len() as u64)
    .bind(now)
    .run(conn)
    .await?;
    Ok(digest)
}

/// The content of this digest. There is no scope: a digest is known only to who saw the script or its run.
///
/// # Errors
/// [`StoreError::NotFound`] if it was never kept.
pub async fn get_content(conn: &mut Connection, digest: &Digest) -> Result<Vec<u8>, StoreError> {
    let found = find_content(conn, digest).await?;
    found.ok_or(StoreError::NotFound { what: "the script's content" })
}

/// As [`get_content`]; `None` if it was never kept.
///
/// # Errors
/// If the database fails.
pub async fn find_content(conn: &mut Connection, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
    query("SELECT content FROM script_content WHERE digest = $1")
        .bind(digest)
        .find(conn, |row| row.get("content"))
        .await
}

/// The sizes, in bytes, of the contents of all scripts in scope.
///
/// # Errors
/// If the database fails.
pub async fn list_sizes(conn: &mut Connection, scope: &Scope) -> Result<Vec<(Digest, u64)>, StoreError> {
    query("SELECT digest, size FROM script_content WHERE digest IN (SELECT s.digest FROM script s WHERE ")
        .scope("s.tenant_id", scope)
        .push(")")
        .list_of(conn, |row| Ok((row.get("digest")?, row.get("size")?)))
        .await
}

/// Puts a script into the inventory, in place of one of the same name, which is no longer retired then.
///
/// # Errors
/// [`StoreError::Conflict`] if its content was not kept before.
pub async fn update(conn: &mut Connection, script: &Script) -> Result<(), StoreError> {
    query(
        "INSERT INTO script (tenant_id, name, digest, display_name, description, emoji, flags, estimated_ms, tags, \
           path, commit_id, created_at, updated_at, retired_at, timeout_ms, run_as, resources, free_arguments, environment, users) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) \
         ON CONFLICT (tenant_id, name) DO UPDATE SET digest = excluded.digest, \
           display_name = excluded.display_name, description = excluded.description, emoji = excluded.emoji, \
           flags = excluded.flags, estimated_ms = excluded.estimated_ms, tags = excluded.tags, \
           path = excluded.path, commit_id = excluded.commit_id, updated_at = excluded.updated_at, \
           retired_at = excluded.retired_at, timeout_ms = excluded.timeout_ms, run_as = excluded.run_as, \
           resources = excluded.resources, free_arguments = excluded.free_arguments, \
           environment = excluded.environment, users = excluded.users",
    )
    .bind(script.tenant)
    .bind(&script.name)
    .bind(script.digest)
    .bind(&script.display_name)
    .bind(&script.description)
    .bind(&script.emoji)
    .bind(json(&script.flags)?)
    .bind(script.estimated.map(millis))
    .bind(json(&script.tags)?)
    .bind(script.path.as_ref())
    .bind(&script.commit)
    .bind(script.created_at)
    .bind(script.updated_at)
    .bind(script.retired_at)
    .bind(script.timeout.map(millis))
    .bind(script.user.as_ref())
    .bind(json(&script.resources)?)
    .bind(free_word(script.free_arguments))
    .bind(json(&script.environment)?)
    .bind(json(&script.users)?)
    .run(conn)
    .await
    .map(|_| ())
}

/// Retires a script: it runs no more, and its history stays. Whether it was in the inventory.
///
/// # Errors
/// If the database fails.
pub async fn update_retired(
    conn: &mut Connection,
    tenant: TenantId,
    name: &ScriptName,
    now: Timestamp,
) -> Result<bool, StoreError> {
    query(
        "UPDATE script SET retired_at = $3, updated_at = $3 WHERE tenant_id = $1 AND name = $2 AND retired_at IS NULL",
    )
    .bind(tenant)
    .bind(name)
    .bind(now)
    .took(conn)
    .await
}

/// The script of this name, retired or not, if there is one in scope. With several tenants in scope, the first
/// by tenant id.
///
/// # Errors
/// If the database fails.
pub async fn find(
    conn: &mut Connection,
    scope: &Scope,
    name: &ScriptName,
) -> Result<Option<Script>, StoreError> {
    query(SELECT)
        .push("name = ")
        .value(name)
        .push(" AND ")
        .scope("tenant_id", scope)
        .push(" ORDER BY tenant_id LIMIT 1")
        .find(conn, read)
        .await
}

/// As [`find`], but absence is an error.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none in scope.
pub async fn get(conn: &mut Connection, scope: &Scope, name: &ScriptName) -> Result<Script, StoreError> {
    find(conn, scope, name).await?.ok_or(StoreError::NotFound { what: "the script" })
}

/// Scripts in scope, by name.
///
/// # Errors
/// If the database fails.
pub async fn list(conn: &mut Connection, scope: &Scope, listed: Listed) -> Result<Vec<Script>, StoreError> {
    let select = query(SELECT).scope("tenant_id", scope);
    let select = match listed {
        Listed::Active => select.push(" AND retired_at IS NULL"),
        Listed::WithRetired => select,
    };
    select.push(" ORDER BY name, tenant_id").list_of(conn, read).await
}

const fn free_word(free: FreeArguments) -> &'static str {
    match free {
        FreeArguments::Any => "any",
        FreeArguments::None => "none",
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn read(row: &Row) -> Result<Script, StoreError> {
    Ok(Script {
        tenant: row.get("tenant_id")?,
        name: row.get("name")?,
        digest: row.get("digest")?,
        display_name: row.get("display_name")?,
        description: row.get("description")?,
        emoji: row.get("emoji")?,
        flags: row.json("flags")?,
        free_arguments: match row.get::<String>("free_arguments")?.as_str() {
            "any" => FreeArguments::Any,
            _ => FreeArguments::None,
        },
        environment: row.json("environment")?,
        estimated: row.find("estimated_ms")?.map(Duration::from_millis),
        timeout: row.find("timeout_ms")?.map(Duration::from_millis),
        user: row.find("run_as")?,
        users: row.json("users")?,
        resources: row.json("resources")?,
        tags: row.json("tags")?,
        path: row.find("path")?,
        commit: row.get("commit_id")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
        retired_at: row.find("retired_at")?,
    })
}
