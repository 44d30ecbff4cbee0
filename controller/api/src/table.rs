//! Table queries: filtered, sorted, paged rows for other programs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;

/// `POST /tables/query`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TableQuery {
    /// `tbl_links`, `tbl_operations`, `tbl_operations_history`, `tbl_recent_activity`, `tbl_infrastructure` or
    /// `tbl_link_health`.
    pub table: String,
    /// The columns wanted; all when absent. At most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 64)]
    pub columns: Option<Vec<String>>,
    /// Conditions that every row must meet. At most 32, with at most 1,000 values in all of them together.
    #[serde(default)]
    #[schema(max_items = 32)]
    pub filters: Vec<Filter>,
    /// The order; ties are broken by the row's id. At most 7 keys.
    #[serde(default)]
    #[schema(max_items = 7)]
    pub sort: Vec<Sort>,
    /// Which page.
    #[serde(default)]
    pub page: TablePage,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Filter {
    /// The column.
    pub col: String,
    /// How it is compared.
    pub op: FilterOp,
    /// With what: a text, a number, a truth value, or for `in` a list of at most 1,000 of them.
    pub val: serde_json::Value,
}

/// How a column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FilterOp {
    /// Equal.
    Eq,
    /// One of.
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

/// A sort key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sort {
    /// The column.
    pub col: String,
    /// The direction; ascending when absent.
    #[serde(default)]
    pub dir: Direction,
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Smallest first.
    #[default]
    Asc,
    /// Largest first.
    Desc,
}

/// Which page.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct TablePage {
    /// Rows at most: 1 to 1000, 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TableResult {
    /// The table asked for.
    pub table: String,
    /// The rows, each with exactly the columns asked for.
    #[schema(value_type = Vec<Object>)]
    pub rows: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Which page this is.
    pub page: TablePageResult,
    /// About the answer.
    pub meta: TableMeta,
}

/// Which page an answer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TablePageResult {
    /// Rows in it.
    pub size: u32,
    /// Where the next one begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// About an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableMeta {
    /// The instant the rows were true.
    pub as_of: Time,
}
