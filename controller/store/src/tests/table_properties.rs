//! P25, P26 and P27: the generic table query.

use crate::testing::NOW;
use jiff::Timestamp as Instant;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::properties::{directions, fleet, properties, settle};
use super::sample::*;
use crate::on_both_engines;
use crate::page::{Cursor, Direction, PageRequest};
use crate::people::tenant;
use crate::table::{Operator, TableError, TableFilter, TableQuery, TableRows, list};
use crate::{Connection, Scope, StoreError};

const TABLES: [&str; 6] = [
    "tbl_links",
    "tbl_link_health",
    "tbl_infrastructure",
    "tbl_operations",
    "tbl_operations_history",
    "tbl_recent_activity",
];

fn asked(table: &str) -> TableQuery {
    TableQuery {
        table: table.to_owned(),
        columns: Vec::new(),
        filters: Vec::new(),
        sort: Vec::new(),
        page: PageRequest::first(1000),
    }
}

async fn every_row(conn: &mut Connection, scope: &Scope, query: &TableQuery) -> Vec<Map<String, Value>> {
    let mut query = query.clone();
    let mut all = Vec::new();
    loop {
        let TableRows { rows, next } = list(conn, scope, &query).await.unwrap();
        assert!(rows.len() <= query.page.limit as usize);
        all.extend(rows);
        let Some(cursor) = next else { return all };
        query.page.after = Some(cursor);
    }
}

fn filter() -> impl Strategy<Value = TableFilter> {
    let text = (
        prop::sample::select(vec!["name", "type", "status", "agent_version"]),
        prop::sample::select(vec!["a", "b", "VPS", "VM", "online", "offline", ""]),
    )
        .prop_map(|(column, value)| (column, json!(value)));
    let number = (Just("latency_us"), 0..3_i64).prop_map(|(column, value)| (column, json!(value)));
    let flag = (Just("enrolled"), any::<bool>()).prop_map(|(column, value)| (column, json!(value)));
    let time =
        (Just("last_seen"), 0..4_i64).prop_map(|(column, seconds)| (column, json!(at(seconds).as_millis())));
    let operators =
        vec![Operator::Eq, Operator::In, Operator::Gt, Operator::Gte, Operator::Lt, Operator::Lte];
    let null = prop::sample::select(vec!["agent_version", "latency_us", "last_seen"]);
    prop_oneof![
        9 => (prop_oneof![text, number, flag, time], prop::sample::select(operators)).prop_map(|((column, value), operator)| {
            let value = if operator == Operator::In { json!([value]) } else { value };
            TableFilter { column: column.to_owned(), operator, value }
        }),
        1 => null.prop_map(|column| TableFilter { column: column.to_owned(), operator: Operator::Eq, value: Value::Null }),
    ]
}

/// A value as it compares; times go back to what they were filtered by.
fn comparable(value: &Value) -> Option<(i64, String)> {
    match value {
        Value::Null => None,
        Value::Bool(flag) => Some((i64::from(*flag), String::new())),
        Value::Number(number) => Some((number.as_i64().unwrap(), String::new())),
        Value::String(text) => Some(match text.parse::<Instant>() {
            Ok(instant) => (instant.as_millisecond(), String::new()),
            Err(_) => (0, text.clone()),
        }),
        other => panic!("{other}"),
    }
}

/// The filter once more, in Rust.
fn passes(filter: &TableFilter, row: &Map<String, Value>) -> bool {
    let value = comparable(&row[&filter.column]);
    let wanted = |wanted: &Value| comparable(wanted);
    match filter.operator {
        Operator::Eq => value == wanted(&filter.value),
        Operator::In => {
            value.is_some() && filter.value.as_array().unwrap().iter().any(|one| wanted(one) == value)
        }
        Operator::Gt => value.is_some() && value > wanted(&filter.value),
        Operator::Gte => value.is_some() && value >= wanted(&filter.value),
        Operator::Lt => value.is_some() && value < wanted(&filter.value),
        Operator::Lte => value.is_some() && value <= wanted(&filter.value),
    }
}

fn sorts() -> impl Strategy<Value = Vec<(String, Direction)>> {
    let column = prop::sample::select(vec!["name", "type", "status", "enrolled", "latency_us", "last_seen"]);
    prop::collection::vec((column.prop_map(str::to_owned), directions()), 0..4)
}

properties! {
    async fn p25_an_unknown_table_is_refused(store: Store, name in "(tbl_)?[a-z_;' ]{0,12}|host|run|\"user\"") {
        let mut conn = store.read().await.unwrap();
        let answer = list(&mut conn, &Scope::of(tenant::DEFAULT), &asked(&name)).await;
        if TABLES.contains(&name.as_str()) {
            answer.unwrap();
        } else {
            assert!(matches!(&answer, Err(TableError::UnknownTable { table }) if *table == name), "{answer:?}");
        }
        let column = TableQuery { columns: vec![name.clone()], ..asked("tbl_operations") };
        let answer = list(&mut conn, &Scope::of(tenant::DEFAULT), &column).await;
        assert!(matches!(answer, Err(TableError::UnknownColumn { .. })), "{answer:?}");
    }

    async fn p26_columns_filters_order_and_pages_all_hold(
        store: Store,
        (fleet, filters, sort, size) in (fleet(10), prop::collection::vec(filter(), 0..3), sorts(), 1..6_u32)
    ) {
        let (of, hosts) = settle(&store, &fleet).await;
        let (mut conn, scope) = (store.read().await.unwrap(), Scope::of(of));
        let all = every_row(&mut conn, &scope, &asked("tbl_links")).await;
        assert_eq!(all.len(), hosts.len());
        let columns: Vec<String> =
            ["id", "name", "type", "status", "enrolled", "latency_us", "last_seen", "agent_version"].map(str::to_owned).to_vec();
        let query = TableQuery {
            columns: columns.clone(), filters: filters.clone(), sort: sort.clone(), page: PageRequest::first(size), ..asked("tbl_links")
        };
        let rows = every_row(&mut conn, &scope, &query).await;
        for row in &rows {
            assert!(row.keys().eq(columns.iter().collect::<std::collections::BTreeSet<_>>()));
        }
        let ids = |rows: &[&Map<String, Value>]| {
            let mut ids: Vec<_> = rows.iter().map(|row| row["id"].to_string()).collect();
            ids.sort();
            ids
        };
        let expected: Vec<_> = all.iter().filter(|row| filters.iter().all(|filter| passes(filter, row))).collect();
        assert_eq!(ids(&rows.iter().collect::<Vec<_>>()), ids(&expected));
        let sort = if sort.is_empty() { vec![("name".to_owned(), Direction::Ascending)] } else { sort };
        for pair in rows.windows(2) {
            let order = sort.iter().map(|(column, direction)| {
                let order = comparable(&pair[0][column]).cmp(&comparable(&pair[1][column]));
                if *direction == Direction::Descending { order.reverse() } else { order }
            }).find(|order| order.is_ne());
            assert!(order.is_none_or(std::cmp::Ordering::is_lt), "{pair:?} by {sort:?}");
        }
    }

    async fn p27_times_are_given_in_utc_with_milliseconds(store: Store, seconds in -60_000_000_000_i64..250_000_000_000) {
        let of = tenant(&store).await;
        let mut tx = store.write().await.unwrap();
        let time = at(seconds / 1000) + std::time::Duration::from_millis(seconds.unsigned_abs() % 1000);
        crate::fleet::host::insert(&mut tx, &new_host(of, "web-1"), time).await.unwrap();
        let rows = list(&mut tx, &Scope::of(of), &asked("tbl_links")).await.unwrap().rows;
        let text = rows[0]["created"].as_str().unwrap();
        assert_eq!(text.parse::<Instant>().unwrap().as_millisecond(), time.as_millis());
        assert!(text.ends_with('Z') && text.contains('.'), "{text}");
    }
}

on_both_engines! {
    async fn every_table_answers_with_all_its_columns(store: Store) {
        let (op, runs) = operation(&store, tenant::DEFAULT, 1).await;
        let mut tx = store.write().await.unwrap();
        crate::work::operation::insert(&mut tx, &new_operation(tenant::DEFAULT), NOW).await.unwrap();
        use fleetward_domain::work::operation::OperationStatus::{Queued, Success};
        crate::work::operation::update_status(&mut tx, op, Queued, Success, at(2)).await.unwrap();
        let event = crate::people::audit::NewEvent {
            id: fleetward_protocol::id::AuditId::from_uuid(uuid()), tenant: Some(tenant::DEFAULT), at: NOW, kind: "x".to_owned(),
            actor: "ada".to_owned(), subject: "y".to_owned(), details: Map::new(),
        };
        crate::people::audit::insert(&mut tx, &event).await.unwrap();
        assert_eq!(runs.len(), 1);
        for table in TABLES {
            let rows = list(&mut tx, &Scope::of(tenant::DEFAULT), &asked(table)).await.unwrap().rows;
            assert_eq!(rows.len(), 1, "{table}");
            let hidden = list(&mut tx, &Scope::Tenants(vec![]), &asked(table)).await.unwrap().rows;
            assert!(hidden.is_empty(), "{table}");
            for column in rows[0].keys() {
                let query = TableQuery { sort: vec![(column.clone(), Direction::Descending)], ..asked(table) };
                let answer = list(&mut tx, &Scope::of(tenant::DEFAULT), &query).await;
                assert!(matches!(answer, Ok(_) | Err(TableError::NotComparable { .. })), "{table} by {column}: {answer:?}");
            }
        }
    }

    async fn values_that_do_not_fit_are_refused_with_what_would(store: Store) {
        let mut conn = store.read().await.unwrap();
        let scope = Scope::of(tenant::DEFAULT);
        for (column, operator, value) in [
            ("name", Operator::Eq, json!(1)),
            ("name", Operator::Eq, json!("a\u{0}b")),
            ("name", Operator::In, json!("a")),
            ("latency", Operator::Gt, json!("1")),
            ("latency", Operator::Gt, json!(1.5)),
            ("enrolled", Operator::Eq, json!("yes")),
            ("last_seen", Operator::Lt, json!("yesterday")),
            ("latency", Operator::Gt, Value::Null),
        ] {
            let filters = vec![TableFilter { column: column.to_owned(), operator, value: value.clone() }];
            let answer = list(&mut conn, &scope, &TableQuery { filters, ..asked("tbl_links") }).await;
            assert!(matches!(answer, Err(TableError::InvalidValue { .. })), "{column} {value}: {answer:?}");
        }
        let filters = vec![TableFilter { column: "last_seen".to_owned(), operator: Operator::Lt, value: json!("2026-01-01T00:00:00Z") }];
        list(&mut conn, &scope, &TableQuery { filters, ..asked("tbl_links") }).await.unwrap();
        for cursor in ["", "!", "W10", "WzEsMl0"] {
            let page = PageRequest { limit: 1, after: Some(Cursor::from_client(cursor.to_owned())) };
            let answer = list(&mut conn, &scope, &TableQuery { page, ..asked("tbl_links") }).await;
            assert!(matches!(answer, Err(TableError::Store(StoreError::InvalidCursor))), "{cursor}: {answer:?}");
        }
        let sort = vec![("name".to_owned(), Direction::Ascending); 8];
        let answer = list(&mut conn, &scope, &TableQuery { sort, ..asked("tbl_links") }).await;
        assert!(matches!(answer, Err(TableError::TooMany { .. })), "{answer:?}");
    }
}
