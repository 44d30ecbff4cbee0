//! Paging by key, not by offset: a page costs the same wherever it lies, and rows that come or go do not shift
//! the others.
//!
//! A list is sorted by expressions that are never NULL, the last of which is unique, so the order is total and
//! ties are always broken the same way. The cursor is the last row's key; opaque to callers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::query::{Query, Row};

/// The most rows of one page.
pub const MAX_PAGE: u32 = 1000;

/// Where a page begins: after the row a previous page ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(String);

/// Which page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// How many rows; at least 1 and at most [`MAX_PAGE`] are given.
    pub limit: u32,
    /// After which row; from the start if absent.
    pub after: Option<Cursor>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last one.
    pub next: Option<Cursor>,
}

/// Which way a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// One sort key: an expression that is never NULL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) expression: &'static str,
    pub(super) kind: KeyKind,
    pub(super) direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    Text,
    Integer,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum KeyValue {
    Integer(i64),
    Text(String),
}

impl Cursor {
    /// Takes a cursor back from a client; whether it fits is found out when it is used.
    #[must_use]
    pub const fn from_client(text: String) -> Self {
        Self(text)
    }

    /// The text to give to a client.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PageRequest {
    /// The first page.
    #[must_use]
    pub const fn first(limit: u32) -> Self {
        Self { limit, after: None }
    }

    fn size(&self) -> u32 {
        self.limit.clamp(1, MAX_PAGE)
    }
}

const ALIASES: [&str; 8] = ["key0", "key1", "key2", "key3", "key4", "key5", "key6", "key7"];
/// The most sort keys, the unique one included.
pub(super) const MAX_KEYS: usize = ALIASES.len();

/// Appends `, expression AS keyN, …` to a select list.
pub(super) fn select_keys(mut query: Query, keys: &[Key]) -> Query {
    for (key, alias) in keys.iter().zip(ALIASES) {
        query = query.push(", ").push(key.expression).push(" AS ").push(alias);
    }
    query
}

/// Appends the cursor's condition (after an existing `WHERE …`), the order and the limit.
pub(super) fn push_page(mut query: Query, keys: &[Key], page: &PageRequest) -> Result<Query, StoreError> {
    if let Some(cursor) = &page.after {
        let values = decode(cursor, keys)?;
        // (a > x) OR (a = x AND b > y) OR …: row values would not do, directions may differ.
        query = query.push(" AND (");
        for last in 0..keys.len() {
            query = query.push(if last == 0 { "(" } else { " OR (" });
            for (at, (key, value)) in keys.iter().zip(&values).take(last + 1).enumerate() {
                let comparison = match (at == last, key.direction) {
                    (false, _) => " = ",
                    (true, Direction::Ascending) => " > ",
                    (true, Direction::Descending) => " < ",
                };
                query = query.push(if at == 0 { "" } else { " AND " }).push(key.expression).push(comparison);
                query = match value {
                    KeyValue::Integer(value) => query.value(*value),
                    KeyValue::Text(value) => query.value(value),
                };
            }
            query = query.push(")");
        }
        query = query.push(")");
    }
    query = query.push(" ORDER BY ");
    for (at, key) in keys.iter().enumerate() {
        query = query.push(if at == 0 { "" } else { ", " }).push(key.expression).push(match key.direction {
            Direction::Ascending => " ASC",
            Direction::Descending => " DESC",
        });
    }
    // One more than asked for tells whether there is a next page.
    Ok(query.push(" LIMIT ").value(page.size() + 1))
}

/// Makes a page of the rows that came.
pub(super) fn cut<T>(
    mut rows: Vec<Row>,
    keys: &[Key],
    page: &PageRequest,
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let size = page.size() as usize;
    let more = rows.len() > size;
    rows.truncate(size);
    let next = if more { rows.last().map(|row| encode(row, keys)).transpose()? } else { None };
    let items = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(Page { items, next })
}

fn encode(row: &Row, keys: &[Key]) -> Result<Cursor, StoreError> {
    let mut values = Vec::with_capacity(keys.len());
    for (key, alias) in keys.iter().zip(ALIASES) {
        values.push(match key.kind {
            KeyKind::Text => KeyValue::Text(row.get(alias)?),
            KeyKind::Integer => KeyValue::Integer(row.get(alias)?),
        });
    }
    let text = serde_json::to_vec(&values).map_err(|_| StoreError::InvalidCursor)?;
    Ok(Cursor(URL_SAFE_NO_PAD.encode(text)))
}

fn decode(cursor: &Cursor, keys: &[Key]) -> Result<Vec<KeyValue>, StoreError> {
    let bytes = URL_SAFE_NO_PAD.decode(&cursor.0).map_err(|_| StoreError::InvalidCursor)?;
    let values: Vec<KeyValue> = serde_json::from_slice(&bytes).map_err(|_| StoreError::InvalidCursor)?;
    let fits = values.len() == keys.len()
        && values.iter().zip(keys).all(|(value, key)| match value {
            KeyValue::Integer(_) => key.kind == KeyKind::Integer,
            // PostgreSQL's text cannot hold NUL.
            KeyValue::Text(text) => key.kind == KeyKind::Text && !text.contains('\0'),
        });
    if fits { Ok(values) } else { Err(StoreError::InvalidCursor) }
}
