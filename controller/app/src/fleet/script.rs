//! Scripts of the inventory.

use std::collections::HashMap;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::name::ScriptName;
use fleetward_store::StoreError;
use fleetward_store::fleet::script::{self, Listed, Script};

use crate::App;
use crate::people::access::{Permit, Read};

/// The scripts that can be run, by name.
///
/// # Errors
/// If the store fails.
pub async fn list(app: &App, permit: &Permit<Read>) -> Result<Vec<Script>, StoreError> {
    let mut conn = app.store().read().await?;
    script::list(&mut conn, &permit.scope(), Listed::Active).await
}

/// How large the scripts are, in bytes, by what they hold.
///
/// # Errors
/// If the store fails.
pub async fn sizes(app: &App, permit: &Permit<Read>) -> Result<HashMap<Digest, u64>, StoreError> {
    let mut conn = app.store().read().await?;
    Ok(script::list_sizes(&mut conn, &permit.scope()).await?.into_iter().collect())
}

/// A script and its content.
///
/// # Errors
/// [`StoreError::NotFound`] if the caller may see none of this name.
pub async fn get(
    app: &App,
    permit: &Permit<Read>,
    name: &ScriptName,
) -> Result<(Script, Vec<u8>), StoreError> {
    let mut conn = app.store().read().await?;
    let script = script::get(&mut conn, &permit.scope(), name).await?;
    let content = script::get_content(&mut conn, &script.digest).await?;
    Ok((script, content))
}
