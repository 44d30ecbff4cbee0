//! What can go wrong in the store, as its callers must tell it apart.

use sqlx::error::ErrorKind;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such row, or it is out of the caller's scope.
    #[error("{what} does not exist")]
    NotFound {
        /// What was asked for.
        what: &'static str,
    },
    /// The change would break a uniqueness or reference rule.
    #[error("conflict with existing data: {what}")]
    Conflict {
        /// The rule, in words for a person.
        what: String,
    },
    /// The caller's page cursor is not one that this list gave out.
    #[error("the cursor is not valid for this list; start again without one")]
    InvalidCursor,
    /// There is no room left where the database lives. Nothing was changed; free space and try again.
    #[error("the database has no disk space left")]
    DiskFull(#[source] sqlx::Error),
    /// The disk where the database lives did not read or write. What was asked may have taken effect or not;
    /// it may be tried again.
    #[error("the disk of the database cannot be read or written")]
    Storage(#[source] sqlx::Error),
    /// The database cannot be reached, or is too busy, right now.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The database takes no writes: it is a standby, as an old primary is after a failover, or was set read only.
    #[error(
        "the database takes no writes, for it is a standby or was set read only; promote it, or let `database` lead to the primary"
    )]
    ReadOnly(#[source] sqlx::Error),
    /// Another controller works on the database now.
    #[error("another controller has taken over the database; stop one of the two for good")]
    TakenOver,
    /// As much is being searched as may be at the same time.
    #[error("too many lists and tables are being read; try again in a moment")]
    Busy,
    /// A search took too long, and was stopped.
    #[error("the query was stopped, for it took more than {} s; narrow it down with a filter, or sort by another column", after.as_secs())]
    Stopped {
        /// The limit.
        after: std::time::Duration,
    },
    /// A stored value is not what the schema says it must be.
    #[error("the database holds an invalid value in `{column}`: {detail}")]
    Corrupt {
        /// The column.
        column: String,
        /// What is wrong with the value.
        detail: String,
    },
    /// The database URL is neither `sqlite:PATH` nor `postgres://…`.
    #[error("`{0}` is not a database URL; use `sqlite:/path/to/file` or `postgres://user@host/database`")]
    InvalidUrl(String),
    /// There is no database, or nothing is in it.
    #[error("there is no controller's database at `{0}`; `fleetward-controller init` makes one")]
    Missing(String),
    /// The database file could not be created with mode 0600.
    #[error("cannot create the database file `{path}`")]
    CreateFile {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The schema is not one this build can use.
    #[error("the database schema does not fit this build: {0}")]
    Schema(String),
    /// The database refused a statement; a defect of this program.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
}

// SQLite primary result codes (https://sqlite.org/rescode.html); extended codes carry them in the low byte.
const SQLITE_BUSY: i64 = 5;
const SQLITE_LOCKED: i64 = 6;
const SQLITE_INTERRUPT: i64 = 9;
const SQLITE_IOERR: i64 = 10;
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_FULL: i64 = 13;
const SQLITE_CANTOPEN: i64 = 14;
const SQLITE_NOTADB: i64 = 26;
/// An extended code: the index of the log could not grow, which takes nothing but room.
const SQLITE_IOERR_SHMSIZE: i64 = SQLITE_IOERR | (19 << 8);

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::Unavailable(error),
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default().into_owned();
                match refusal.kind() {
                    ErrorKind::UniqueViolation | ErrorKind::ForeignKeyViolation => Self::Conflict {
                        what: refusal.constraint().unwrap_or_else(|| refusal.message()).to_owned(),
                    },
                    // A SQLSTATE has five characters (PostgreSQL manual, appendix A), a SQLite code at most four.
                    _ if code.len() == 5 => Self::from_sqlstate(&code, error),
                    _ => Self::from_sqlite(code.parse().unwrap_or(0), error),
                }
            }
            _ => Self::Refused(error),
        }
    }
}

impl StoreError {
    fn from_sqlstate(code: &str, error: sqlx::Error) -> Self {
        match code.get(..2) {
            _ if code == "53100" => Self::DiskFull(error),
            _ if code == "58030" => Self::Storage(error),
            // In a recovery, or by a setting (read_only_sql_transaction).
            _ if code == "25006" => Self::ReadOnly(error),
            // Query canceled: its own time limit, in what is not the server's shutdown.
            _ if code == "57014" => Self::Stopped { after: std::time::Duration::ZERO },
            // Connection exceptions, insufficient resources, operator intervention, and what a retry cures.
            Some("08" | "53" | "57" | "40") => Self::Unavailable(error),
            Some("XX") => Self::Corrupt { column: "the database".to_owned(), detail: error.to_string() },
            _ => Self::Refused(error),
        }
    }

    fn from_sqlite(code: i64, error: sqlx::Error) -> Self {
        match code & 0xff {
            SQLITE_FULL => Self::DiskFull(error),
            SQLITE_INTERRUPT => Self::Stopped { after: std::time::Duration::ZERO },
            SQLITE_IOERR if code == SQLITE_IOERR_SHMSIZE => Self::DiskFull(error),
            // Also a quota and a limit on the size of files: SQLite tells only "no space left" apart.
            SQLITE_IOERR => Self::Storage(error),
            SQLITE_BUSY | SQLITE_LOCKED | SQLITE_CANTOPEN => Self::Unavailable(error),
            SQLITE_CORRUPT | SQLITE_NOTADB => {
                Self::Corrupt { column: "the database file".to_owned(), detail: error.to_string() }
            }
            _ => Self::Refused(error),
        }
    }

    /// Names a conflict in words, by what the engine calls the broken rule.
    pub(super) fn named(self, names: &[(&str, &str)]) -> Self {
        match self {
            Self::Conflict { what } => {
                let found = names.iter().find(|(rule, _)| what.contains(rule));
                Self::Conflict { what: found.map_or(what.clone(), |(_, words)| (*words).to_owned()) }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_failing_one_are_told_apart() {
        let error = || sqlx::Error::WorkerCrashed;
        for full in [StoreError::from_sqlite(13, error()), StoreError::from_sqlite(4874, error())] {
            assert!(matches!(full, StoreError::DiskFull(_)), "{full:?}");
        }
        // SQLITE_IOERR_READ, _WRITE, _FSYNC
        for code in [266, 778, 1034] {
            let failing = StoreError::from_sqlite(code, error());
            assert!(matches!(failing, StoreError::Storage(_)), "{code}: {failing:?}");
        }
        assert!(matches!(StoreError::from_sqlstate("53100", error()), StoreError::DiskFull(_)));
        assert!(matches!(StoreError::from_sqlstate("58030", error()), StoreError::Storage(_)));
    }
}
