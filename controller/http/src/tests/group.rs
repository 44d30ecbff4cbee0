//! Groups of hosts.

use axum::http::StatusCode;
use fleetward_app::fleet::group::MAX_GROUPS;
use fleetward_domain::people::permission::Role;
use serde_json::json;

use super::site::TestSite;

#[tokio::test]
async fn a_group_is_set_changed_listed_and_deleted() {
    let site = TestSite::new().await;
    assert_eq!(site.get("/api/v1/groups").await["items"], json!([]));
    let path = "/api/v1/groups/databases";
    assert_eq!(site.call("GET", path, None).await.code(), "GROUP_NOT_FOUND");
    let set = site.call("PUT", path, Some(json!({ "on": "tag:db", "description": "PostgreSQL" }))).await;
    assert_eq!(set.status, StatusCode::OK, "{set:?}");
    assert_eq!(site.get(path).await, set.json());
    assert_eq!((&set.json()["tenant"], &set.json()["updated_by"]), (&json!("default"), &json!("ada")));
    // The same once more is no change; another expression is one.
    site.call("PUT", path, Some(json!({ "on": "tag:db", "description": "PostgreSQL" }))).await;
    site.clock.advance(std::time::Duration::from_secs(60));
    let changed = site.call("PUT", path, Some(json!({ "on": "tag:db & !db-9" }))).await.json();
    assert_eq!((&changed["on"], &changed["description"]), (&json!("tag:db & !db-9"), &json!("")));
    assert!(changed["updated_at"].as_str() > set.json()["updated_at"].as_str());
    let names = |page: &serde_json::Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|group| group["name"].as_str().unwrap().to_owned()).collect()
    };
    site.call("PUT", "/api/v1/groups/canaries", Some(json!({ "on": "web-1,web-7" }))).await;
    let first = site.get("/api/v1/groups?limit=1").await;
    assert_eq!(names(&first), ["canaries"]);
    let cursor = first["next_cursor"].as_str().unwrap().replace(' ', "%20");
    let second = site.get(&format!("/api/v1/groups?limit=1&cursor={cursor}")).await;
    assert_eq!((names(&second), &second["next_cursor"]), (vec!["databases".to_owned()], &json!(null)));
    assert_eq!(site.call("DELETE", path, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(site.call("DELETE", path, None).await.code(), "GROUP_NOT_FOUND");
    let audit = site.get("/api/v1/audit?subject=databases").await;
    let actions: Vec<&str> =
        audit["items"].as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["group.deleted", "group.set", "group.set"]);
}

#[tokio::test]
async fn what_is_no_group_is_refused() {
    let site = TestSite::new().await;
    let put = async |name: &str, on: &str, description: &str| {
        let body = json!({ "on": on, "description": description });
        let answer = site.call("PUT", &format!("/api/v1/groups/{name}"), Some(body)).await;
        if answer.status.is_success() { "SET".to_owned() } else { answer.code() }
    };
    assert_eq!(put("web", "tag:", "").await, "INVALID_TARGETS");
    assert_eq!(put("web", "", "").await, "INVALID_TARGETS");
    assert_eq!(put("web", "all", "one\ntwo").await, "INVALID_FIELD");
    assert_eq!(put("web", "all", &"x".repeat(201)).await, "INVALID_FIELD");
    assert_eq!(put("-web", "all", "").await, "INVALID_PATH");
    let operator = site.login_as("bob", Role::Operator).await;
    let refused = site.call_as(&operator, "PUT", "/api/v1/groups/web", Some(json!({ "on": "all" }))).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    assert_eq!(put("web", "tag:web | @other", "").await, "INVALID_TARGETS");
    for number in 0..MAX_GROUPS {
        assert_eq!(put(&format!("g{number}"), "all", "").await, "SET", "{number}");
    }
    assert_eq!(put("one-more", "all", "").await, "TOO_MANY_GROUPS");
    assert_eq!(put("g0", "web-*", "").await, "SET", "one that exists can be changed");
}

#[tokio::test]
async fn a_group_stands_for_its_expression_wherever_hosts_are_chosen() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    site.enrolled_host("web-2").await;
    site.enrolled_host("db-1").await;
    site.script("baseline").await;
    site.call("PUT", "/api/v1/groups/webs", Some(json!({ "on": "web-*" }))).await;
    let on = json!({ "on": "@webs & !web-2" });
    let names = |answer: &serde_json::Value| answer["hosts"].as_array().unwrap().len();
    let preview = site.call("POST", "/api/v1/targets/preview", Some(on)).await.json();
    assert_eq!((names(&preview), &preview["hosts"][0]["name"]), (1, &json!("web-1")));
    let listed = site.get("/api/v1/hosts?on=%40webs").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    let started = site.operation("@webs").await;
    // What was started keeps its hosts, whatever becomes of the group.
    site.call("PUT", "/api/v1/groups/webs", Some(json!({ "on": "db-1" }))).await;
    let runs = site.get(&format!("/api/v1/operations/{}/runs", started["id"].as_str().unwrap())).await;
    assert_eq!(runs["items"].as_array().unwrap().len(), 2, "{runs}");
    let unknown = site.call("POST", "/api/v1/targets/preview", Some(json!({ "on": "@lost" }))).await;
    assert_eq!(
        (unknown.code(), &unknown.json()["details"]["groups"]),
        ("UNKNOWN_GROUPS".to_owned(), &json!(["lost"]))
    );
}
