//! Hosts, from their first token to their retirement.

use axum::http::StatusCode;
use serde_json::json;

use super::site::TestSite;

#[tokio::test]
async fn a_host_is_added_changed_and_retired() {
    let site = TestSite::new().await;
    let body = json!({ "name": "web-1", "type": "VPS", "provider": "Example", "tags": ["prod", "web"] });
    let added = site.call("POST", "/api/v1/hosts", Some(body.clone())).await;
    assert_eq!(added.status, StatusCode::CREATED, "{added:?}");
    let added = added.json();
    let token = added["token"].as_str().unwrap();
    assert_eq!(
        added["command"],
        format!("fleetward-agent enrol --controller ctl.example.com:7443 --token {token}")
    );
    let parsed: fleetward_protocol::enrol::Token = token.parse().unwrap();
    assert_eq!(parsed.client.unwrap().to_string(), added["host"]["client_id"].as_str().unwrap());

    let twice = site.call("POST", "/api/v1/hosts", Some(body)).await;
    assert_eq!((twice.status, twice.code().as_str()), (StatusCode::CONFLICT, "HOST_TAKEN"));
    let told = twice.json()["error"].as_str().unwrap().to_owned();
    assert!(told.contains("`fleetward host token web-1`"), "{told}");
    let found = site.get("/api/v1/hosts/web-1").await;
    assert_eq!(found, added["host"]);
    assert_eq!(
        (&found["status"], &found["enrolment"], &found["source"]),
        (&json!("offline"), &json!("pending"), &json!("api"))
    );

    let changed = site.call("PATCH", "/api/v1/hosts/web-1", Some(json!({ "tags": ["test"] }))).await.json();
    assert_eq!((&changed["tags"], &changed["provider"]), (&json!(["test"]), &json!("Example")));
    assert_eq!(site.call("GET", "/api/v1/hosts/web-2", None).await.code(), "HOST_NOT_FOUND");
    assert_eq!(
        site.call("PATCH", "/api/v1/hosts/web-1", Some(json!({ "tag": ["x"] }))).await.code(),
        "UNKNOWN_FIELD"
    );
    assert_eq!(
        site.call("PATCH", "/api/v1/hosts/web-1", Some(json!({ "type": " " }))).await.code(),
        "INVALID_FIELD"
    );
    assert_eq!(site.call("POST", "/api/v1/hosts/web-1/verify", None).await.code(), "HOST_OFFLINE");
    assert_eq!(site.call("POST", "/api/v1/hosts/web-1/approve", None).await.code(), "HOST_NOT_QUARANTINED");
    assert_eq!(site.call("POST", "/api/v1/hosts/web-1/revoke", None).await.code(), "HOST_HAS_NO_CERTIFICATE");

    let token = site.call("POST", "/api/v1/hosts/web-1/token", Some(json!({ "lifetime_s": 60 }))).await;
    assert_eq!(
        (token.status, &token.json()["expires_at"]),
        (StatusCode::CREATED, &json!("2023-11-14T22:14:20.000Z"))
    );
    let too_short = site.call("POST", "/api/v1/hosts/web-1/token", Some(json!({ "lifetime_s": 1 }))).await;
    assert_eq!(too_short.code(), "INVALID_LIFETIME");
    assert_eq!(site.call("POST", "/api/v1/enrolment-tokens", None).await.status, StatusCode::CREATED);

    assert_eq!(site.call("DELETE", "/api/v1/hosts/web-1", None).await.code(), "HOST_ACTIVE");
    let retired = site.call("POST", "/api/v1/hosts/web-1/retire", None).await.json();
    assert_eq!(retired["lifecycle"], "retired");
    assert_eq!(site.get("/api/v1/hosts").await["items"], json!([]));
    assert_eq!(site.get("/api/v1/hosts?lifecycle=all").await["items"].as_array().unwrap().len(), 1);

    let audit = site.get("/api/v1/audit?action=host.").await;
    let actions: Vec<&str> =
        audit["items"].as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["host.retired", "host.changed", "host.added"]);
    let about = site.get("/api/v1/audit?subject=web-1&actor=ada").await;
    assert_eq!(about["items"].as_array().unwrap().len(), 4, "{about}");
}

#[tokio::test]
async fn a_retired_host_leaves_its_name_and_can_be_deleted() {
    let site = TestSite::new().await;
    let add = async || {
        let added = site.call("POST", "/api/v1/hosts", Some(json!({ "name": "web-1", "type": "VM" }))).await;
        assert_eq!(added.status, StatusCode::CREATED, "{added:?}");
        added.json()["host"]["id"].as_str().unwrap().to_owned()
    };
    let retire = async || site.call("POST", "/api/v1/hosts/web-1/retire", None).await.status;
    let first = add().await;
    assert_eq!(retire().await, StatusCode::OK);
    let second = add().await;
    // The name is the living one's; the other is found by its id.
    assert_eq!(site.get("/api/v1/hosts/web-1").await["id"], json!(second));
    let old = site.get(&format!("/api/v1/hosts/{first}")).await;
    assert_eq!((&old["name"], &old["lifecycle"]), (&json!("web-1"), &json!("retired")));
    let active = site.call("DELETE", &format!("/api/v1/hosts/{second}"), None).await;
    assert_eq!((active.status, active.code().as_str()), (StatusCode::CONFLICT, "HOST_ACTIVE"));
    assert_eq!(retire().await, StatusCode::OK);
    let gone = site.call("POST", "/api/v1/hosts/web-1/token", None).await;
    assert_eq!((gone.status, gone.code().as_str()), (StatusCode::CONFLICT, "HOST_RETIRED"));
    assert!(gone.json()["error"].as_str().unwrap().contains("`fleetward host add web-1`"), "{gone:?}");
    let both = site.call("DELETE", "/api/v1/hosts/web-1", None).await;
    assert_eq!((both.status, both.code().as_str()), (StatusCode::CONFLICT, "HOST_AMBIGUOUS"));
    let told = both.json()["error"].as_str().unwrap().to_owned();
    assert!(told.contains(&first) && told.contains(&second), "{told}");
    for path in [format!("/api/v1/hosts/{first}"), "/api/v1/hosts/web-1".to_owned()] {
        assert_eq!(site.call("DELETE", &path, None).await.status, StatusCode::NO_CONTENT, "{path}");
    }
    assert_eq!(site.call("DELETE", "/api/v1/hosts/web-1", None).await.code(), "HOST_NOT_FOUND");
    assert_eq!(site.get("/api/v1/hosts?lifecycle=all").await["items"], json!([]));
    let audit = site.get("/api/v1/audit?action=host.deleted").await;
    assert_eq!(audit["items"][0]["details"]["id"], json!(second), "{audit}");
}

#[tokio::test]
async fn text_that_hides_itself_is_refused() {
    let site = TestSite::new().await;
    for (kind, provider) in
        [("V\u{202e}PS", ""), ("VM", "Exam\u{2066}ple"), ("VM", "Exa\u{200b}mple"), ("V\u{1b}M", "")]
    {
        let body = json!({ "name": "web-1", "type": kind, "provider": provider });
        assert_eq!(
            site.call("POST", "/api/v1/hosts", Some(body)).await.code(),
            "INVALID_FIELD",
            "{kind:?} {provider:?}"
        );
    }
    let body = json!({ "name": "web-1", "type": "VM", "provider": "Häuser 株式会社" });
    assert_eq!(site.call("POST", "/api/v1/hosts", Some(body)).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn hosts_are_filtered_sorted_and_paged() {
    let site = TestSite::new().await;
    for (name, kind, tags) in [
        ("db-1", "VM", vec!["prod"]),
        ("web-1", "VPS", vec!["prod", "web"]),
        ("web-2", "VPS", vec!["web"]),
        ("web-3", "VPS", vec![]),
    ] {
        let body = json!({ "name": name, "type": kind, "tags": tags });
        assert_eq!(site.call("POST", "/api/v1/hosts", Some(body)).await.status, StatusCode::CREATED);
    }
    for (query, expected) in [
        ("", vec!["db-1", "web-1", "web-2", "web-3"]),
        ("?sort=-name", vec!["web-3", "web-2", "web-1", "db-1"]),
        ("?type=VM", vec!["db-1"]),
        ("?tag=prod,web", vec!["web-1"]),
        ("?search=WEB-", vec!["web-1", "web-2", "web-3"]),
        ("?on=tag%3Aweb%20%26%20!web-2", vec!["web-1"]),
        ("?on=web-*&sort=-name&tag=web", vec!["web-2", "web-1"]),
        ("?status=online", vec![]),
        ("?enrolment=pending&limit=1000", vec!["db-1", "web-1", "web-2", "web-3"]),
    ] {
        let page = site.get(&format!("/api/v1/hosts{query}")).await;
        let names: Vec<&str> =
            page["items"].as_array().unwrap().iter().map(|host| host["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{query}");
    }
    for (query, code) in [
        ("sort=colour", "INVALID_PARAMETER"),
        ("lifecycle=gone", "INVALID_PARAMETER"),
        ("tag=a%20b", "INVALID_PARAMETER"),
        ("on=tag%3A(", "INVALID_TARGETS"),
        ("on=nobody", "UNKNOWN_TARGETS"),
        ("on=tag%3Anothing", "NO_TARGETS"),
    ] {
        assert_eq!(site.call("GET", &format!("/api/v1/hosts?{query}"), None).await.code(), code, "{query}");
    }
    // An expression that chooses nothing of the first pages.
    let mut path = "/api/v1/hosts?limit=1&on=web-2".to_owned();
    let page = site.get(&path).await;
    assert_eq!(page["items"][0]["name"], "web-2");
    path = format!("{path}&cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!(site.get(&path).await["items"], json!([]));
    let preview = site.call("POST", "/api/v1/targets/preview", Some(json!({ "on": "tag:web" }))).await.json();
    assert_eq!(
        (&preview["not_enrolled"], &preview["online"], &preview["hosts"][1]["name"]),
        (&json!(2), &json!(0), &json!("web-2"))
    );
}

#[tokio::test]
async fn no_host_is_called_by_a_word_of_target_expressions() {
    let site = TestSite::new().await;
    for name in ["all", "not", "and", "or"] {
        let answer = site.call("POST", "/api/v1/hosts", Some(json!({ "name": name, "type": "VM" }))).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, "RESERVED_NAME"));
    }
}

#[tokio::test]
async fn two_machines_with_one_identity_are_shown_with_the_remedy_until_it_is_over() {
    use fleetward_domain::fleet::twin::{Machine, OVER_AFTER, Twins};
    use fleetward_protocol::id::{BootId, JournalId};
    use uuid::Uuid;

    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    let now = site.app.now();
    let machine = |address: &str, boot| Machine {
        boot: BootId::from_uuid(Uuid::from_u128(boot)),
        journal: JournalId::from_uuid(Uuid::nil()),
        address: address.parse().unwrap(),
        first_seen: now,
        last_seen: now,
    };
    let machines = [machine("192.0.2.1", 1), machine("2001:db8::2", 2)];
    let twins = Twins { machines, since: now, at: now, changes: 3 };
    let id = site.get("/api/v1/hosts/web-1").await["id"].as_str().unwrap().parse().unwrap();
    let mut tx = site.app.store().write().await.unwrap();
    assert!(fleetward_store::fleet::host::update_twins(&mut tx, id, &twins).await.unwrap());
    tx.commit().await.unwrap();

    for host in [
        site.get("/api/v1/hosts/web-1").await,
        site.get("/api/v1/hosts").await["items"].as_array().unwrap()[0].clone(),
    ] {
        let shown = &host["duplicate_identity"];
        assert_eq!((&shown["changes"], &shown["machines"][1]["address"]), (&json!(3), &json!("2001:db8::2")));
        assert_eq!(shown["machines"][0]["boot_id"], machines[0].boot.to_string());
        assert!(shown["remedy"].as_str().unwrap().contains("`fleetward host token web-1`"), "{shown}");
    }
    site.clock.advance(OVER_AFTER);
    assert_eq!(site.get("/api/v1/hosts/web-1").await.get("duplicate_identity"), None);
}
