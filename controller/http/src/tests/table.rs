//! Table queries, against a naive reader.

use axum::http::StatusCode;
use fleetward_store::testing;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::site::TestSite;

const TYPES: [&str; 3] = ["VM", "VPS", "Metal"];

/// A site with twenty hosts of three types.
async fn populated(site: &TestSite) -> Vec<Value> {
    for number in 0..20 {
        let body = json!({ "name": format!("h{number:02}"), "type": TYPES[number * 7 % 3], "provider": format!("p{}", number % 4) });
        assert_eq!(site.call("POST", "/api/v1/hosts", Some(body)).await.status, StatusCode::CREATED);
    }
    query(site, json!({ "table": "tbl_links" })).await["rows"].as_array().unwrap().clone()
}

async fn query(site: &TestSite, body: Value) -> Value {
    let answer = site.call("POST", "/api/v1/tables/query", Some(body.clone())).await;
    assert_eq!(answer.status, StatusCode::OK, "{body}: {answer:?}");
    answer.json()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn p25_an_unknown_table_is_rejected() {
    let runtime = runtime();
    let site = runtime.block_on(TestSite::new());
    let known = [
        "tbl_links",
        "tbl_operations",
        "tbl_operations_history",
        "tbl_recent_activity",
        "tbl_infrastructure",
        "tbl_link_health",
    ];
    TestRunner::new(ProptestConfig::with_cases(128))
        .run(
            &prop_oneof![
                "tbl_[a-z_]{0,12}",
                "\\PC{0,20}",
                Just("tbl_links; DROP TABLE host".to_owned()),
                Just("host".to_owned())
            ],
            |table| {
                prop_assume!(!known.contains(&table.as_str()));
                let answer = runtime.block_on(site.call(
                    "POST",
                    "/api/v1/tables/query",
                    Some(json!({ "table": table })),
                ));
                prop_assert_eq!(answer.status, StatusCode::BAD_REQUEST);
                prop_assert_eq!(answer.code(), "UNKNOWN_TABLE");
                Ok(())
            },
        )
        .unwrap();
    for table in known {
        runtime.block_on(query(&site, json!({ "table": table })));
    }
}

#[derive(Debug, Clone)]
struct Asked {
    filters: Vec<Value>,
    sort: Vec<(&'static str, bool)>,
    size: u32,
    columns: Vec<&'static str>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let column = || prop::sample::select(vec!["name", "type", "provider"]);
    let value = || {
        prop_oneof![
            prop::sample::select(TYPES.to_vec()).prop_map(str::to_owned),
            (0..20_u8).prop_map(|number| format!("h{number:02}")),
            (0..4_u8).prop_map(|number| format!("p{number}")),
        ]
    };
    let single = (column(), prop::sample::select(vec!["eq", "gt", "gte", "lt", "lte"]), value())
        .prop_map(|(col, op, val)| json!({ "col": col, "op": op, "val": val }));
    let several = (column(), prop::collection::vec(value(), 0..4))
        .prop_map(|(col, val)| json!({ "col": col, "op": "in", "val": val }));
    let filters = prop::collection::vec(prop_oneof![single, several], 0..3);
    let columns = prop::sample::subsequence(vec!["id", "name", "type", "provider", "tags"], 1..=5);
    (filters, prop::collection::vec((column(), any::<bool>()), 0..3), 1..25_u32, columns)
        .prop_map(|(filters, sort, size, columns)| Asked { filters, sort, size, columns })
}

fn meets(row: &Value, filter: &Value) -> bool {
    let cell = row[filter["col"].as_str().unwrap()].as_str().unwrap();
    let value = &filter["val"];
    match filter["op"].as_str().unwrap() {
        "eq" => cell == value.as_str().unwrap(),
        "in" => value.as_array().unwrap().iter().any(|value| cell == value.as_str().unwrap()),
        "gt" => cell > value.as_str().unwrap(),
        "gte" => cell >= value.as_str().unwrap(),
        "lt" => cell < value.as_str().unwrap(),
        "lte" => cell <= value.as_str().unwrap(),
        other => panic!("{other}"),
    }
}

async fn check(site: &TestSite, all: &[Value], asked: &Asked) {
    let expected: Vec<&Value> =
        all.iter().filter(|row| asked.filters.iter().all(|filter| meets(row, filter))).collect();
    let sort: Vec<Value> = asked
        .sort
        .iter()
        .map(|(col, down)| json!({ "col": col, "dir": if *down { "desc" } else { "asc" } }))
        .collect();
    let mut given: Vec<Value> = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let mut columns = asked.columns.clone();
        columns.extend(["id", "name", "type", "provider"]);
        let mut body = json!({
            "table": "tbl_links", "columns": columns, "filters": asked.filters, "sort": sort, "page": { "size": asked.size },
        });
        if !cursor.is_null() {
            body["page"]["cursor"] = cursor;
        }
        let page = query(site, body).await;
        let rows = page["rows"].as_array().unwrap();
        assert!(rows.len() <= asked.size as usize);
        assert_eq!(page["page"]["size"], rows.len());
        given.extend(rows.iter().cloned());
        cursor = page["page"]["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
        assert_eq!(rows.len(), asked.size as usize);
    }
    // Every row that meets the filters, once.
    let ids = |rows: &[&Value]| {
        let mut ids: Vec<String> = rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&given.iter().collect::<Vec<_>>()), ids(&expected), "{asked:?}");
    // In an order that the sort keys allow.
    for pair in given.windows(2) {
        let order = asked.sort.iter().map(|(col, down)| {
            let order = pair[0][*col].as_str().cmp(&pair[1][*col].as_str());
            if *down { order.reverse() } else { order }
        });
        assert!(
            order.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).is_le(),
            "{asked:?}: {pair:?}"
        );
    }
}

async fn p26(site: TestSite) {
    let all = populated(&site).await;
    assert_eq!(all.len(), 20);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(128));
    for _ in 0..128 {
        let asked = prop::strategy::ValueTree::current(&asked().new_tree(&mut runner).unwrap());
        check(&site, &all, &asked).await;
    }
}

#[tokio::test]
async fn p26_filters_sort_and_pages_all_hold() {
    p26(TestSite::new().await).await;
}

#[tokio::test]
async fn p26_filters_sort_and_pages_all_hold_on_postgres() {
    if let Some(store) = testing::postgres("p26_filters_sort_and_pages_all_hold").await {
        p26(TestSite::on(store).await).await;
    }
}

#[test]
fn p27_an_answer_says_when_it_was_true() {
    let runtime = runtime();
    let site = runtime.block_on(TestSite::new());
    TestRunner::new(ProptestConfig::with_cases(128))
        .run(&(0..600_000_u64), |millis| {
            site.clock.advance(std::time::Duration::from_millis(millis));
            let answer = runtime.block_on(query(&site, json!({ "table": "tbl_links" })));
            let now = fleetward_api::time::Time::from(site.app.now()).to_string();
            prop_assert_eq!(answer["meta"]["as_of"].as_str(), Some(now.as_str()));
            Ok(())
        })
        .unwrap();
}

/// A filter with so many values.
fn is_one_of(values: usize) -> Value {
    json!({ "col": "name", "op": "in", "val": vec!["h"; values] })
}

#[tokio::test]
async fn a_refusal_names_the_limit_and_as_much_as_is_allowed_is_answered() {
    let site = TestSite::new().await;
    let body = json!({ "table": "tbl_links", "filters": vec![is_one_of(32); 32] });
    let refused = site.call("POST", "/api/v1/tables/query", Some(body)).await.json();
    let text = refused["error"].as_str().unwrap();
    assert!(text.contains("at most 1000 values") && text.contains("1024"), "{text}");
    let rows =
        query(&site, json!({ "table": "tbl_links", "filters": vec![is_one_of(31); 32] })).await["rows"]
            .clone();
    assert_eq!(rows, json!([]));
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_named() {
    let site = TestSite::new().await;
    for (body, code) in [
        (json!({ "table": "tbl_links", "columns": ["name", "password"] }), "UNKNOWN_COLUMN"),
        (
            json!({ "table": "tbl_links", "filters": [{ "col": "name", "op": "like", "val": "x" }] }),
            "INVALID_FIELD",
        ),
        (
            json!({ "table": "tbl_links", "filters": [{ "col": "name", "op": "eq", "val": 7 }] }),
            "INVALID_VALUE",
        ),
        (
            json!({ "table": "tbl_links", "filters": [{ "col": "tags", "op": "eq", "val": "x" }] }),
            "COLUMN_NOT_COMPARABLE",
        ),
        (json!({ "table": "tbl_links", "sort": [{ "col": "nothing" }] }), "UNKNOWN_COLUMN"),
        (json!({ "table": "tbl_links", "page": { "size": 0 } }), "INVALID_LIMIT"),
        (json!({ "table": "tbl_links", "page": { "cursor": "x" } }), "INVALID_CURSOR"),
        (json!({ "tabel": "tbl_links" }), "INVALID_FIELD"),
        (json!({ "table": "tbl_links", "columns": vec!["id"; 65] }), "TOO_MANY"),
        (json!({ "table": "tbl_links", "filters": vec![is_one_of(1); 33] }), "TOO_MANY"),
        (json!({ "table": "tbl_links", "filters": vec![is_one_of(1001)] }), "TOO_MANY"),
        // All filters together, and not each of them.
        (json!({ "table": "tbl_links", "filters": vec![is_one_of(32); 32] }), "TOO_MANY"),
    ] {
        let answer = site.call("POST", "/api/v1/tables/query", Some(body.clone())).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, code), "{body}");
    }
    // The audit log's table is for those who may read the audit log.
    let viewer = site.login_as("vera", fleetward_domain::people::permission::Role::Viewer).await;
    let body = json!({ "table": "tbl_recent_activity" });
    assert_eq!(
        site.call_as(&viewer, "POST", "/api/v1/tables/query", Some(body.clone())).await.code(),
        "FORBIDDEN"
    );
    assert_eq!(site.call("POST", "/api/v1/tables/query", Some(body)).await.status, StatusCode::OK);
}
