//! Steps: what each host of an operation does, as it may be shown. What is sent stands beside it, sealed.

use std::collections::HashMap;

use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::OperationId;

use crate::query::query;
use crate::{Connection, Reader, Scope, StoreError};

/// One step of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The kind of action.
    pub kind: String,
    /// What it is about, in a few words.
    pub subject: String,
    /// The digest of kind and parameters as they are shown.
    pub digest: Digest,
    /// The parameters as they may be shown, as one JSON object.
    pub params: String,
}

/// A step to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStep {
    /// As it may be shown.
    pub shown: Step,
    /// The canonical bytes that are sent, sealed.
    pub sealed: Vec<u8>,
}

/// Adds the steps of an operation, in the transaction that adds the operation.
pub(crate) async fn insert(
    conn: &mut Connection,
    operation: OperationId,
    steps: &[NewStep],
) -> Result<(), StoreError> {
    for (position, step) in (0_u32..).zip(steps) {
        query(
            "INSERT INTO operation_step (operation_id, position, kind, subject, digest, params, sealed) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(operation)
        .bind(position)
        .bind(&step.shown.kind)
        .bind(&step.shown.subject)
        .bind(step.shown.digest)
        .bind(&step.shown.params)
        .bind(step.sealed.as_slice())
        .run(conn)
        .await?;
    }
    Ok(())
}

/// The steps of an operation in scope, in their order.
///
/// # Errors
/// If the database fails.
pub async fn list(
    conn: &mut impl Reader,
    scope: &Scope,
    operation: OperationId,
) -> Result<Vec<Step>, StoreError> {
    Ok(list_each(conn, scope, &[operation]).await?.remove(&operation).unwrap_or_default())
}

/// The steps of those of these operations that are in scope, in their order.
///
/// # Errors
/// If the database fails.
pub async fn list_each(
    conn: &mut impl Reader,
    scope: &Scope,
    operations: &[OperationId],
) -> Result<HashMap<OperationId, Vec<Step>>, StoreError> {
    let mut steps: HashMap<OperationId, Vec<Step>> = HashMap::new();
    let select = query(
        "SELECT s.operation_id, s.kind, s.subject, s.digest, s.params FROM operation_step s \
         JOIN operation o ON o.id = s.operation_id WHERE s.operation_id IN ",
    )
    .list(operations.iter())
    .push(" AND ")
    .scope("o.tenant_id", scope)
    .push(" ORDER BY s.operation_id, s.position");
    // The text for one operation comes again and again; it need not be parsed each time.
    let select = if operations.len() == 1 { select } else { select.once() };
    for row in conn.rows(select).await? {
        let operation: OperationId = row.get("operation_id")?;
        let step = Step {
            kind: row.get("kind")?,
            subject: row.get("subject")?,
            digest: row.get("digest")?,
            params: row.get("params")?,
        };
        steps.entry(operation).or_default().push(step);
    }
    Ok(steps)
}

/// The sealed bytes of an operation's steps, in their order.
///
/// # Errors
/// If the database fails.
pub async fn list_sealed(conn: &mut Connection, operation: OperationId) -> Result<Vec<Vec<u8>>, StoreError> {
    query("SELECT sealed FROM operation_step WHERE operation_id = $1 ORDER BY position")
        .bind(operation)
        .list_of(conn, |row| row.get("sealed"))
        .await
}
