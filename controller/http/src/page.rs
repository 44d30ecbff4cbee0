//! Pages: what a request asks for, and what it is given.

use fleetward_api::page::{DEFAULT_LIMIT, MAX_LIMIT, Page};
use fleetward_store::page::{Cursor, Page as Found, PageRequest};

use super::error::ApiError;

/// The page that `limit` and `cursor` ask for.
///
/// # Errors
/// 400 for a page of no rows, or of too many.
pub(super) fn request(limit: Option<u32>, cursor: Option<String>) -> Result<PageRequest, ApiError> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let message = format!("a page has 1 to {MAX_LIMIT} rows, not {limit}");
        return Err(ApiError::invalid("INVALID_LIMIT", message).detail("max", MAX_LIMIT));
    }
    Ok(PageRequest { limit, after: cursor.filter(|cursor| !cursor.is_empty()).map(Cursor::from_client) })
}

/// A page, with its rows as the API shows them.
pub(super) fn page<F, T>(found: Found<F>, view: impl FnMut(F) -> T) -> Page<T> {
    Page {
        items: found.items.into_iter().map(view).collect(),
        next_cursor: found.next.map(|cursor| cursor.as_str().to_owned()),
    }
}

/// A page of rows that are all in memory, in the order of the texts `key` gives, which are unique; the cursor is
/// the last row's.
pub(super) fn page_of<F, T>(
    rows: Vec<F>,
    page: &PageRequest,
    key: impl Fn(&F) -> String,
    view: impl FnMut(F) -> T,
) -> Page<T> {
    let after = page.after.as_ref().map(Cursor::as_str);
    let mut rest =
        rows.into_iter().filter(|row| after.is_none_or(|after| key(row).as_str() > after)).peekable();
    let rows: Vec<F> = rest.by_ref().take(page.limit as usize).collect();
    let next_cursor = rest.peek().and_then(|_| rows.last()).map(&key);
    Page { items: rows.into_iter().map(view).collect(), next_cursor }
}
