//! One SQL text for both engines: text with `$n` placeholders, values that are only ever bound, and rows that
//! are read into typed values.
//!
//! sqlx's own `QueryBuilder` writes `?` placeholders for `Any`, which PostgreSQL does not know; hence
//! [`Query`]. SQL text enters it only as `&'static str`, so nothing a user sent can become SQL.

use std::borrow::Cow;
use std::fmt::Write as _;

use fleetward_domain::people::permission::Role;
use fleetward_domain::work::operation::OperationStatus;
use fleetward_domain::work::run::RunStatus;
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{AnyConnection, Arguments as _, AssertSqlSafe, Row as _};

use crate::{Engine, Scope, StoreError};

/// A value on its way into the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Text(Option<String>),
    Int(Option<i64>),
    Blob(Option<Vec<u8>>),
}

/// What can be bound. Nulls are typed, because PostgreSQL plans by the type.
pub(super) trait Bind {
    const NULL: Cell;
    fn cell(self) -> Cell;
}

/// What can be read from a column; `None` is NULL.
pub(super) trait Field: Sized {
    fn field(row: &AnyRow, column: &str) -> Result<Option<Self>, StoreError>;
}

/// A statement under construction.
pub struct Query {
    text: Cow<'static, str>,
    arguments: AnyArguments,
    failed: Option<sqlx::Error>,
    persistent: bool,
}

/// What a list of values holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OneOf {
    Text,
    Integer,
}

/// Starts a statement; `$1`, `$2`, … in `text` take what [`Query::bind`] gives, in order.
pub(super) fn query(text: &'static str) -> Query {
    Query { text: Cow::Borrowed(text), arguments: AnyArguments::default(), failed: None, persistent: true }
}

impl Query {
    /// Binds the next placeholder, which already stands in the text.
    pub(super) fn bind(mut self, value: impl Bind) -> Self {
        self.add(value.cell());
        self
    }

    /// Appends text.
    pub(super) fn push(mut self, text: &'static str) -> Self {
        self.text.to_mut().push_str(text);
        self
    }

    /// Appends a placeholder and binds it.
    pub(super) fn value(mut self, value: impl Bind) -> Self {
        self.add(value.cell());
        let number = self.arguments.len();
        // Writing to a String cannot fail.
        let _ = write!(self.text.to_mut(), "${number}");
        self
    }

    /// Appends `(v1, v2, …)`, or a list that matches nothing if there are no values.
    pub(super) fn list(mut self, values: impl IntoIterator<Item = impl Bind>) -> Self {
        self = self.push("(");
        let mut first = true;
        for value in values {
            if !first {
                self = self.push(", ");
            }
            first = false;
            self = self.value(value);
        }
        self.push(if first { "NULL)" } else { ")" })
    }

    /// Appends `(SELECT …)` with each of the values, of one kind, as one parameter: thousands of placeholders would
    /// cost SQLite the square of their number, for it looks each name up among all.
    pub(super) fn one_of(self, engine: Engine, kind: OneOf, values: &serde_json::Value) -> Self {
        let (begin, end) = match (engine, kind) {
            (Engine::Sqlite, _) => ("(SELECT value FROM json_each(", "))"),
            (Engine::Postgres, OneOf::Text) => {
                ("(SELECT value FROM jsonb_array_elements_text(CAST(", " AS jsonb)))")
            }
            (Engine::Postgres, OneOf::Integer) => {
                ("(SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text(CAST(", " AS jsonb)))")
            }
        };
        self.push(begin).value(values.to_string()).push(end)
    }

    /// Appends the tenant filter on `column`.
    pub(super) fn scope(self, column: &'static str, scope: &Scope) -> Self {
        match scope {
            Scope::Everything => self.push("1 = 1"),
            Scope::Tenants(tenants) if tenants.is_empty() => self.push("1 = 0"),
            Scope::Tenants(tenants) => self.push(column).push(" IN ").list(tenants.iter().copied()),
        }
    }

    /// Keeps the statement out of the connection's cache: its text hardly ever comes again.
    pub(super) fn once(mut self) -> Self {
        self.persistent = false;
        self
    }

    /// Runs it; the number of rows it changed.
    pub(super) async fn run(self, conn: &mut AnyConnection) -> Result<u64, StoreError> {
        let (text, arguments, persistent) = self.parts()?;
        let done =
            sqlx::query_with(AssertSqlSafe(text), arguments).persistent(persistent).execute(conn).await?;
        Ok(done.rows_affected())
    }

    /// Runs it; whether it changed exactly the one row it was about.
    pub(super) async fn took(self, conn: &mut AnyConnection) -> Result<bool, StoreError> {
        Ok(self.run(conn).await? > 0)
    }

    /// All rows.
    pub(super) async fn all(self, conn: &mut AnyConnection) -> Result<Vec<Row>, StoreError> {
        let (text, arguments, persistent) = self.parts()?;
        let rows =
            sqlx::query_with(AssertSqlSafe(text), arguments).persistent(persistent).fetch_all(conn).await?;
        Ok(rows.into_iter().map(Row).collect())
    }

    /// All rows, each read by `read`.
    pub(super) async fn list_of<T>(
        self,
        conn: &mut AnyConnection,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.all(conn).await?.iter().map(read).collect()
    }

    /// The first row, if any.
    pub(super) async fn first(self, conn: &mut AnyConnection) -> Result<Option<Row>, StoreError> {
        let (text, arguments, persistent) = self.parts()?;
        let row = sqlx::query_with(AssertSqlSafe(text), arguments)
            .persistent(persistent)
            .fetch_optional(conn)
            .await?;
        Ok(row.map(Row))
    }

    /// The first row, read by `read`, if any.
    pub(super) async fn find<T>(
        self,
        conn: &mut AnyConnection,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.first(conn).await?.as_ref().map(read).transpose()
    }

    fn add(&mut self, cell: Cell) {
        let added = match cell {
            Cell::Text(value) => self.arguments.add(value),
            Cell::Int(value) => self.arguments.add(value),
            Cell::Blob(value) => self.arguments.add(value),
        };
        if let Err(error) = added {
            self.failed = Some(sqlx::Error::Encode(error));
        }
    }

    pub(super) fn parts(self) -> Result<(Cow<'static, str>, AnyArguments, bool), StoreError> {
        #[cfg(any(test, feature = "testing"))]
        super::testing::STATEMENTS.with(|made| made.set(made.get() + 1));
        match self.failed {
            Some(error) => Err(StoreError::Refused(error)),
            None => Ok((self.text, self.arguments, self.persistent)),
        }
    }
}

/// A row.
pub struct Row(AnyRow);

impl From<AnyRow> for Row {
    fn from(row: AnyRow) -> Self {
        Self(row)
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("text", &self.text).finish_non_exhaustive()
    }
}

impl Row {
    /// A column that is never NULL.
    pub(super) fn get<T: Field>(&self, column: &str) -> Result<T, StoreError> {
        self.find(column)?.ok_or_else(|| corrupt(column, "it is missing"))
    }

    /// A column that may be NULL.
    pub(super) fn find<T: Field>(&self, column: &str) -> Result<Option<T>, StoreError> {
        T::field(&self.0, column)
    }

    /// A column of JSON that is never NULL.
    pub(super) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        let text: String = self.get(column)?;
        serde_json::from_str(&text).map_err(|error| corrupt(column, error))
    }

    /// A column of JSON that may be NULL.
    pub(super) fn find_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, StoreError> {
        let text: Option<String> = self.find(column)?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| corrupt(column, error))).transpose()
    }
}

/// A `LIKE` pattern, with `!` as its escape, for text that contains `text` in any case.
pub(super) fn contains(text: &str) -> String {
    let mut pattern = String::from("%");
    for letter in text.chars().filter(|&letter| letter != '\0') {
        if matches!(letter, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(letter.to_ascii_lowercase());
    }
    pattern.push('%');
    pattern
}

/// JSON text of `value`, for a column.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| corrupt("a new value", error))
}

pub(super) fn corrupt(column: &str, detail: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { column: column.to_owned(), detail: detail.to_string() }
}

impl<T: Bind> Bind for Option<T> {
    const NULL: Cell = T::NULL;
    fn cell(self) -> Cell {
        self.map_or(Self::NULL, Bind::cell)
    }
}

impl Bind for Cell {
    const NULL: Cell = Cell::Text(None);
    fn cell(self) -> Cell {
        self
    }
}

impl Bind for &str {
    const NULL: Cell = Cell::Text(None);
    fn cell(self) -> Cell {
        Cell::Text(Some(self.to_owned()))
    }
}

impl Bind for String {
    const NULL: Cell = Cell::Text(None);
    fn cell(self) -> Cell {
        Cell::Text(Some(self))
    }
}

impl Bind for &String {
    const NULL: Cell = Cell::Text(None);
    fn cell(self) -> Cell {
        Cell::Text(Some(self.clone()))
    }
}

impl Bind for Vec<u8> {
    const NULL: Cell = Cell::Blob(None);
    fn cell(self) -> Cell {
        Cell::Blob(Some(self))
    }
}

impl Bind for &[u8] {
    const NULL: Cell = Cell::Blob(None);
    fn cell(self) -> Cell {
        Cell::Blob(Some(self.to_vec()))
    }
}

impl Bind for bool {
    const NULL: Cell = Cell::Int(None);
    fn cell(self) -> Cell {
        Cell::Int(Some(i64::from(self)))
    }
}

impl Bind for u64 {
    const NULL: Cell = Cell::Int(None);
    fn cell(self) -> Cell {
        Cell::Int(Some(i64::try_from(self).unwrap_or(i64::MAX)))
    }
}

macro_rules! bind_integers {
    ($($type:ty),*) => {$(
        impl Bind for $type {
            const NULL: Cell = Cell::Int(None);
            fn cell(self) -> Cell {
                Cell::Int(Some(i64::from(self)))
            }
        }
    )*};
}

bind_integers!(u16, u32, i32, i64);

impl Bind for Timestamp {
    const NULL: Cell = Cell::Int(None);
    fn cell(self) -> Cell {
        Cell::Int(Some(self.as_millis()))
    }
}

impl Field for String {
    fn field(row: &AnyRow, column: &str) -> Result<Option<Self>, StoreError> {
        row.try_get(column).map_err(|error| corrupt(column, error))
    }
}

impl Field for i64 {
    fn field(row: &AnyRow, column: &str) -> Result<Option<Self>, StoreError> {
        row.try_get(column).map_err(|error| corrupt(column, error))
    }
}

impl Field for Vec<u8> {
    fn field(row: &AnyRow, column: &str) -> Result<Option<Self>, StoreError> {
        row.try_get(column).map_err(|error| corrupt(column, error))
    }
}

impl Field for bool {
    fn field(row: &AnyRow, column: &str) -> Result<Option<Self>, StoreError> {
        Ok(i64::field(row, column)?.map(|value| value != 0))
    }
}

impl Field for Timestamp {
    fn field(row: &AnyRow, column: &str) -> Result<Option<Self>, StoreError> {
        Ok(i64::field(row, column)?.map(Self::from_millis))
    }
}

macro_rules! read_integers {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn field(row: &AnyRow, column: &str) -> Result<Option<Self>, StoreError> {
                i64::field(row, column)?
                    .map(|value| Self::try_from(value).map_err(|error| corrupt(column, error)))
                    .transpose()
            }
        }
    )*};
}

read_integers!(u16, u32, u64, i32);

macro_rules! text_types {
    ($($type:ty),* $(,)?) => {$(
        impl Bind for $type {
            const NULL: Cell = Cell::Text(None);
            fn cell(self) -> Cell {
                Cell::Text(Some(self.to_string()))
            }
        }

        impl Bind for &$type {
            const NULL: Cell = Cell::Text(None);
            fn cell(self) -> Cell {
                Cell::Text(Some(self.to_string()))
            }
        }

        impl Field for $type {
            fn field(row: &AnyRow, column: &str) -> Result<Option<Self>, StoreError> {
                String::field(row, column)?
                    .map(|text| text.parse().map_err(|error| corrupt(column, error)))
                    .transpose()
            }
        }
    )*};
}

fleetward_protocol::for_each_id!(text_types);
fleetward_protocol::for_each_name!(text_types);
text_types!(ClientId, Digest, OperationStatus, Role, RunStatus);

/// An enum that is stored as text. What else stands in the column is corrupt: it is read as an error that names it.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every variant, in declaration order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word that is stored, and that the API shows.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    other => Err($crate::UnknownWord(other.chars().take(40).collect())),
                }
            }
        }

        impl $crate::query::Bind for $name {
            const NULL: $crate::query::Cell = $crate::query::Cell::Text(None);
            fn cell(self) -> $crate::query::Cell {
                $crate::query::Bind::cell(self.as_str())
            }
        }

        impl $crate::query::Field for $name {
            fn field(
                row: &sqlx::any::AnyRow,
                column: &str,
            ) -> Result<Option<Self>, $crate::StoreError> {
                <String as $crate::query::Field>::field(row, column)?
                    .map(|text| text.parse().map_err(|error| $crate::query::corrupt(column, error)))
                    .transpose()
            }
        }
    )+};
}

pub(super) use words;
