//! Table queries.

use axum::extract::State;
use fleetward_api::table::{Direction, FilterOp, TableMeta, TablePageResult, TableQuery, TableResult};
use fleetward_app::table::{self, TableError};
use fleetward_store as store;
use fleetward_store::table::{Operator, TableError as QueryError, TableFilter};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Site;
use super::caller::Allowed;
use super::document::Failure;
use super::error::ApiError;
use super::extract::Json;
use super::page::request;
use fleetward_app::people::access::Read;

/// The routes of this noun.
pub(super) fn router() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(query))
}

/// Rows of a table.
///
/// A query that takes longer than 10 s is stopped (422, `QUERY_TOO_SLOW`); when too many are asked at the same time
/// it is refused for now (503, `BUSY`).
#[utoipa::path(
    post, path = "/tables/query", operation_id = "tableQuery", tag = "table",
    request_body = TableQuery,
    responses((status = 200, description = "One page of rows.", body = TableResult), Failure),
)]
async fn query(
    State(site): State<Site>,
    permit: Allowed<Read>,
    Json(asked): Json<TableQuery>,
) -> Result<Json<TableResult>, ApiError> {
    let as_of = site.app.now().into();
    let query = store::table::TableQuery {
        table: asked.table.clone(),
        columns: asked.columns.unwrap_or_default(),
        filters: asked
            .filters
            .into_iter()
            .map(|filter| TableFilter {
                column: filter.col,
                operator: operator(filter.op),
                value: filter.val,
            })
            .collect(),
        sort: asked.sort.into_iter().map(|sort| (sort.col, direction(sort.dir))).collect(),
        page: request(asked.page.size, asked.page.cursor)?,
    };
    let found = table::query(&site.app, &permit, &query).await?;
    Ok(Json(TableResult {
        table: asked.table,
        page: TablePageResult {
            size: u32::try_from(found.rows.len()).unwrap_or(u32::MAX),
            next_cursor: found.next.map(|cursor| cursor.as_str().to_owned()),
        },
        rows: found.rows,
        meta: TableMeta { as_of },
    }))
}

const fn operator(op: FilterOp) -> Operator {
    match op {
        FilterOp::Eq => Operator::Eq,
        FilterOp::In => Operator::In,
        FilterOp::Gt => Operator::Gt,
        FilterOp::Gte => Operator::Gte,
        FilterOp::Lt => Operator::Lt,
        FilterOp::Lte => Operator::Lte,
    }
}

const fn direction(direction: Direction) -> store::page::Direction {
    match direction {
        Direction::Asc => store::page::Direction::Ascending,
        Direction::Desc => store::page::Direction::Descending,
    }
}

impl From<TableError> for ApiError {
    fn from(error: TableError) -> Self {
        let text = error.to_string();
        match error {
            TableError::Denied(error) => error.into(),
            // P25
            TableError::Table(QueryError::UnknownTable { table }) => {
                Self::invalid("UNKNOWN_TABLE", text).detail("table", table)
            }
            TableError::Table(QueryError::UnknownColumn { column, .. }) => {
                Self::invalid("UNKNOWN_COLUMN", text).detail("column", column)
            }
            TableError::Table(QueryError::NotComparable { column }) => {
                Self::invalid("COLUMN_NOT_COMPARABLE", text).detail("column", column)
            }
            TableError::Table(QueryError::InvalidValue { column, .. }) => {
                Self::invalid("INVALID_VALUE", text).detail("column", column)
            }
            TableError::Table(QueryError::TooMany { allowed, .. }) => {
                Self::invalid("TOO_MANY", text).detail("allowed", allowed)
            }
            TableError::Table(QueryError::Store(error)) => error.into(),
        }
    }
}
