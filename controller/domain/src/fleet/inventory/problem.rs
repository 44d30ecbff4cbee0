//! What stands against an inventory, said so that a person finds the place.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::MAX_PROBLEMS;

/// A place in a file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Position {
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

/// Whether a problem stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The inventory is not put in force.
    Error,
    /// Worth a look; the inventory is put in force.
    Warning,
}

/// One thing that is wrong in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Whether it stands in the way.
    pub severity: Severity,
    /// The file, as a path in the repository; empty where the repository itself is meant.
    pub file: String,
    /// The line, from 1; 0 where no line is meant.
    pub line: u32,
    /// The column in characters, from 1; 0 where no line is meant.
    pub column: u32,
    /// The field, such as `links.web-1.enrollment.clientId`; empty where the whole file is meant.
    pub field: String,
    /// What is wrong and what to do, as a lowercase fragment.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if self.line > 0 {
                write!(f, ":{}:{}", self.line, self.column)?;
            }
            f.write_str(": ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Collects problems while files are read; keeps the first [`MAX_PROBLEMS`] and counts the rest.
#[derive(Debug, Default)]
pub(super) struct Report {
    file: String,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    dropped: usize,
}

impl Report {
    /// From now on problems are about `file`.
    pub(super) fn enter(&mut self, file: &str) {
        file.clone_into(&mut self.file);
    }

    pub(super) fn error(&mut self, at: Position, field: &str, message: impl Into<String>) {
        self.add(Severity::Error, at, field, message.into());
    }

    pub(super) fn warning(&mut self, at: Position, field: &str, message: impl Into<String>) {
        self.add(Severity::Warning, at, field, message.into());
    }

    /// The warnings if there was no error, else everything, errors first.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, Vec<Problem>> {
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        self.warnings.truncate(MAX_PROBLEMS - self.errors.len().min(MAX_PROBLEMS));
        if self.dropped > 0
            && let Some(last) = self.errors.last().cloned()
        {
            let message = format!("{} more problems are not shown; correct these first", self.dropped);
            self.errors.push(Problem { field: String::new(), message, ..last });
        }
        self.errors.append(&mut self.warnings);
        Err(self.errors)
    }

    fn add(&mut self, severity: Severity, at: Position, field: &str, message: String) {
        let list = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if list.len() >= MAX_PROBLEMS {
            self.dropped += usize::from(severity == Severity::Error);
            return;
        }
        let (file, field) = (self.file.clone(), field.to_owned());
        list.push(Problem { severity, file, line: at.line, column: at.column, field, message });
    }
}
