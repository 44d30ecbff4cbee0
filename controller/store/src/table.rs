//! The generic table query of the API: a table, columns, filters, sort keys and a page.
//!
//! Names are looked up in a fixed list (`columns.rs`) and stand for SQL written there; values are parsed to
//! their column's kind and bound. The tenant filter is always part of the query.

use fleetward_protocol::time::Timestamp;
use jiff::Timestamp as Instant;
use serde_json::{Map, Value};

use super::page::{Cursor, Direction, Key, KeyKind, MAX_KEYS, PageRequest, cut, push_page, select_keys};
use super::query::{Cell, OneOf, Query, Row, query};
use crate::{Engine, Reader, Scope, StoreError};
use columns::{Column, Kind, TABLES, Table};

mod columns;

/// The most values of all `in` filters of a query together.
pub const MAX_VALUES: usize = 1000;
/// The most filters of one query.
pub const MAX_FILTERS: usize = 32;
/// The most columns of one query.
pub const MAX_COLUMNS: usize = 64;

/// A query on one of the API's tables.
#[derive(Debug, Clone, PartialEq)]
pub struct TableQuery {
    /// The table's name, such as `tbl_links`.
    pub table: String,
    /// The columns to give; all if empty.
    pub columns: Vec<String>,
    /// What every row must satisfy.
    pub filters: Vec<TableFilter>,
    /// What the rows are sorted by, first key first; the table's own order if empty. Ties are broken by the
    /// table's unique column.
    pub sort: Vec<(String, Direction)>,
    /// Which page.
    pub page: PageRequest,
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct TableFilter {
    /// The column.
    pub column: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what: of the column's kind; an array for [`Operator::In`]. Times are RFC 3339 text or
    /// milliseconds since the Unix epoch.
    pub value: Value,
}

/// How a column is compared. A row without a value satisfies nothing but `eq null`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Equal.
    Eq,
    /// Equal to one of several.
    In,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
}

/// A page of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRows {
    /// The rows: column name to value.
    pub rows: Vec<Map<String, Value>>,
    /// Where the next page begins; absent on the last one.
    pub next: Option<Cursor>,
}

/// Why a table query was not answered.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// P25: there is no such table.
    #[error("there is no table `{table}`; the tables are {}", known_tables())]
    UnknownTable {
        /// What was asked for.
        table: String,
    },
    /// There is no such column.
    #[error("table {table} has no column `{column}`; its columns are {known}")]
    UnknownColumn {
        /// The table.
        table: &'static str,
        /// What was asked for.
        column: String,
        /// What there is.
        known: String,
    },
    /// A column that cannot be filtered or sorted by.
    #[error("column `{column}` can be shown, but not filtered or sorted by")]
    NotComparable {
        /// The column.
        column: &'static str,
    },
    /// A value that does not fit its column or operator.
    #[error("the value for `{column}` must be {expected}")]
    InvalidValue {
        /// The column.
        column: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// More than is allowed.
    #[error("a query may have at most {allowed} {what}, and this one has {count}; ask in several")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many may be.
        allowed: usize,
        /// How many there are.
        count: usize,
    },
    /// The store failed, or refused the cursor.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Answers a table query (P25, P26). When it was answered (P27) is the caller's clock to say.
///
/// # Errors
/// [`TableError`]; nothing that is wrong with the query reaches the database.
pub async fn list(
    conn: &mut impl Reader,
    scope: &Scope,
    asked: &TableQuery,
) -> Result<TableRows, TableError> {
    let table = TABLES
        .iter()
        .find(|table| table.name == asked.table)
        .ok_or_else(|| TableError::UnknownTable { table: asked.table.chars().take(80).collect() })?;
    within("columns", asked.columns.len(), MAX_COLUMNS)?;
    within("filters", asked.filters.len(), MAX_FILTERS)?;
    let values = asked.filters.iter().filter_map(|filter| filter.value.as_array()).map(Vec::len).sum();
    within("values in all filters together", values, MAX_VALUES)?;
    let columns: Vec<&Column> = if asked.columns.is_empty() {
        table.columns.iter().collect()
    } else {
        asked.columns.iter().map(|name| column(table, name)).collect::<Result<_, _>>()?
    };
    let keys = sort_keys(table, &asked.sort)?;
    let mut select = query("SELECT 1 AS one");
    for (at, column) in columns.iter().enumerate() {
        // A column that is asked for twice is given once.
        if columns.iter().take(at).all(|other| other.name != column.name) {
            select = select.push(", ").push(column.expression).push(" AS \"").push(column.name).push("\"");
        }
    }
    select = select_keys(select, &keys).push(table.from).scope(table.tenant, scope);
    for filter in &asked.filters {
        select = push_filter(select, conn.engine(), comparable(column(table, &filter.column)?)?, filter)?;
    }
    let rows = conn.rows(push_page(select, &keys, &asked.page)?.once()).await?;
    let page = cut(rows, &keys, &asked.page, |row| read(row, &columns))?;
    Ok(TableRows { rows: page.items, next: page.next })
}

const fn within(what: &'static str, count: usize, allowed: usize) -> Result<(), TableError> {
    if count > allowed { Err(TableError::TooMany { what, allowed, count }) } else { Ok(()) }
}

fn known_tables() -> String {
    TABLES.iter().map(|table| table.name).collect::<Vec<_>>().join(", ")
}

fn column(table: &Table, name: &str) -> Result<&'static Column, TableError> {
    table.columns.iter().find(|column| column.name == name).ok_or_else(|| TableError::UnknownColumn {
        table: table.name,
        column: name.chars().take(80).collect(),
        known: table.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", "),
    })
}

const fn comparable(column: &'static Column) -> Result<&'static Column, TableError> {
    match column.kind {
        Kind::Json => Err(TableError::NotComparable { column: column.name }),
        _ => Ok(column),
    }
}

fn sort_keys(table: &Table, sort: &[(String, Direction)]) -> Result<Vec<Key>, TableError> {
    within("sort keys", sort.len(), MAX_KEYS - 1)?;
    let mut keys: Vec<Key> = Vec::with_capacity(sort.len() + 2);
    for (name, direction) in sort {
        keys.push(key(comparable(column(table, name)?)?, *direction));
    }
    if keys.is_empty() {
        let (name, direction) = table.default_sort;
        keys.push(key(column(table, name)?, direction));
    }
    let ends = keys.last().map_or(Direction::Ascending, |last| last.direction);
    keys.push(key(table.unique, ends));
    Ok(keys)
}

const fn key(column: &Column, direction: Direction) -> Key {
    let kind = match column.kind {
        Kind::Text | Kind::Json => KeyKind::Text,
        Kind::Integer | Kind::Boolean | Kind::Time => KeyKind::Integer,
    };
    Key { expression: column.sortable, kind, direction }
}

fn push_filter(
    select: Query,
    engine: Engine,
    column: &'static Column,
    filter: &TableFilter,
) -> Result<Query, TableError> {
    let select = select.push(" AND ").push(column.expression);
    let operator = match (filter.operator, &filter.value) {
        (Operator::Eq, Value::Null) => return Ok(select.push(" IS NULL")),
        (Operator::In, Value::Array(values)) => {
            let cells = values.iter().map(|value| cell(column, value)).collect::<Result<Vec<_>, _>>()?;
            let kind = match column.kind {
                Kind::Text | Kind::Json => OneOf::Text,
                Kind::Integer | Kind::Boolean | Kind::Time => OneOf::Integer,
            };
            return Ok(select.push(" IN ").one_of(engine, kind, &cells.into_iter().map(json).collect()));
        }
        (Operator::In, _) => {
            return Err(TableError::InvalidValue { column: column.name, expected: "an array of values" });
        }
        (Operator::Eq, _) => " = ",
        (Operator::Gt, _) => " > ",
        (Operator::Gte, _) => " >= ",
        (Operator::Lt, _) => " < ",
        (Operator::Lte, _) => " <= ",
    };
    Ok(select.push(operator).value(cell(column, &filter.value)?))
}

fn cell(column: &'static Column, value: &Value) -> Result<Cell, TableError> {
    let invalid = |expected| TableError::InvalidValue { column: column.name, expected };
    match column.kind {
        Kind::Text | Kind::Json => {
            // PostgreSQL's text cannot hold NUL.
            let text = value.as_str().filter(|text| !text.contains('\0'));
            text.map(|text| Cell::Text(Some(text.to_owned()))).ok_or_else(|| invalid("text"))
        }
        Kind::Integer => {
            value.as_i64().map(|number| Cell::Int(Some(number))).ok_or_else(|| invalid("a whole number"))
        }
        Kind::Boolean => value
            .as_bool()
            .map(|flag| Cell::Int(Some(i64::from(flag))))
            .ok_or_else(|| invalid("true or false")),
        Kind::Time => {
            let millis = match value {
                Value::String(text) => text.parse::<Instant>().ok().map(Instant::as_millisecond),
                other => other.as_i64(),
            };
            millis
                .map(|millis| Cell::Int(Some(millis)))
                .ok_or_else(|| invalid("a time in RFC 3339, or milliseconds since the Unix epoch"))
        }
    }
}

fn json(cell: Cell) -> Value {
    match cell {
        Cell::Text(text) => Value::from(text),
        Cell::Int(number) => Value::from(number),
        // No column of a table is one.
        Cell::Blob(_) => Value::Null,
    }
}

fn read(row: &Row, columns: &[&Column]) -> Result<Map<String, Value>, StoreError> {
    let mut out = Map::with_capacity(columns.len());
    for column in columns {
        let value = match column.kind {
            Kind::Text => row.find::<String>(column.name)?.map(Value::from),
            Kind::Integer => row.find::<i64>(column.name)?.map(Value::from),
            Kind::Boolean => row.find::<bool>(column.name)?.map(Value::from),
            Kind::Time => row.find::<Timestamp>(column.name)?.map(rfc3339),
            Kind::Json => row.find_json(column.name)?,
        };
        out.insert(column.name.to_owned(), value.unwrap_or(Value::Null));
    }
    Ok(out)
}

/// UTC with millisecond precision; the bare number if it lies outside what RFC 3339 can write.
fn rfc3339(time: Timestamp) -> Value {
    match Instant::from_millisecond(time.as_millis()) {
        Ok(instant) => Value::from(format!("{instant:.3}")),
        Err(_) => Value::from(time.as_millis()),
    }
}
