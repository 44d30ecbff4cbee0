//! A repeated request is answered as the first one, and not carried out again.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::site::{Answer, TestSite};

async fn post(site: &TestSite, token: &str, path: &str, key: &str, body: &Value) -> Answer {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(Body::from(body.to_string()));
    Answer::read(site.send(request.unwrap()).await).await
}

#[tokio::test]
async fn the_same_key_adds_one_host_and_shows_its_token_again() {
    let site = TestSite::new().await;
    let path = "/api/v1/hosts";
    let body = json!({ "name": "web-1", "type": "VM" });
    let first = post(&site, &site.token, path, "key-1", &body).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let again = post(&site, &site.token, path, "key-1", &body).await;
    assert_eq!((again.status, &again.bytes), (first.status, &first.bytes));
    assert_eq!(
        (&again.headers["idempotency-replayed"], &again.headers["content-type"]),
        (&"true".parse().unwrap(), &"application/json".parse().unwrap())
    );

    let other = json!({ "name": "web-2", "type": "VM" });
    let reused = post(&site, &site.token, path, "key-1", &other).await;
    assert_eq!(
        (reused.status, reused.code().as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED")
    );
    // Another user's key is another key.
    let bob = site.login_as("bob", fleetward_domain::people::permission::Role::Admin).await;
    assert_eq!(post(&site, &bob, path, "key-1", &body).await.code(), "HOST_TAKEN");
    // What was refused is refused again, without being tried.
    assert_eq!(post(&site, &bob, path, "key-1", &body).await.headers["idempotency-replayed"], "true");
    assert_eq!(site.get("/api/v1/hosts").await["items"].as_array().unwrap().len(), 1);
    for key in ["", "two words", &"k".repeat(256)] {
        assert_eq!(post(&site, &site.token, path, key, &body).await.code(), "INVALID_IDEMPOTENCY_KEY");
    }
    assert_eq!(post(&site, "fws_forged", path, "key-2", &body).await.code(), "INVALID_CREDENTIAL");

    site.clock.advance(std::time::Duration::from_secs(24 * 60 * 60));
    let carol = site.login_as("carol", fleetward_domain::people::permission::Role::Admin).await;
    assert_eq!(post(&site, &carol, path, "key-1", &other).await.status, StatusCode::CREATED);
}

/// What is read may be read again: its answers would only fill the disk.
#[tokio::test]
async fn what_changes_nothing_keeps_no_answer() {
    let site = TestSite::new().await;
    site.enrolled_host("web-1").await;
    for (path, body) in [
        ("/api/v1/tables/query", json!({ "table": "hosts" })),
        ("/api/v1/targets/preview", json!({ "on": "all" })),
    ] {
        for _ in 0..2 {
            let answer = post(&site, &site.token, path, "key-1", &body).await;
            assert_ne!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
            assert!(!answer.headers.contains_key("idempotency-replayed"), "{path}: {answer:?}");
        }
    }
    let mut conn = site.app.store().read().await.unwrap();
    let user =
        fleetward_store::people::user::find(&mut conn, &"ada".parse().unwrap()).await.unwrap().unwrap().id;
    let (living, _) =
        fleetward_store::people::idempotency::living(&mut conn, user, site.clock.now()).await.unwrap();
    assert_eq!(living, 0);
}

/// A user's keys and their answers take a bounded place.
#[tokio::test]
async fn keys_and_answers_that_are_kept_are_bounded() {
    use fleetward_app::people::idempotency::{LIFETIME, MAX_KEPT, MAX_KEYS};
    use fleetward_protocol::digest::Digest;
    use fleetward_store::people::idempotency::{self, Answer};

    let site = TestSite::new().await;
    let now = site.clock.now();
    let mut tx = site.app.store().write().await.unwrap();
    let user =
        fleetward_store::people::user::find(&mut tx, &"ada".parse().unwrap()).await.unwrap().unwrap().id;
    for number in 0..MAX_KEYS - 1 {
        let (key, digest) = (format!("old-{number}"), Digest::of(b""));
        idempotency::insert(&mut tx, user, &key, &digest, now + LIFETIME, now).await.unwrap();
    }
    tx.commit().await.unwrap();
    let path = "/api/v1/hosts";
    let body = |name: &str| json!({ "name": name, "type": "VM" });
    assert_eq!(post(&site, &site.token, path, "last", &body("web-1")).await.status, StatusCode::CREATED);
    let refused = post(&site, &site.token, path, "too-many", &body("web-2")).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_IDEMPOTENCY_KEYS")
    );
    assert_eq!(refused.headers["retry-after"], LIFETIME.as_secs().to_string().as_str());
    // Keys that are known are still answered, and another user has keys of their own.
    let again = post(&site, &site.token, path, "last", &body("web-1")).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let bob = site.login_as("bob", fleetward_domain::people::permission::Role::Admin).await;
    assert_eq!(post(&site, &bob, path, "first", &body("web-2")).await.status, StatusCode::CREATED);

    // Of a large answer the status is kept.
    let mut tx = site.app.store().write().await.unwrap();
    let bob_id =
        fleetward_store::people::user::find(&mut tx, &"bob".parse().unwrap()).await.unwrap().unwrap().id;
    tx.commit().await.unwrap();
    let caller = fleetward_app::people::access::Caller {
        user: bob_id,
        name: "bob".parse().unwrap(),
        session: fleetward_protocol::id::SessionId::from_uuid(uuid::Uuid::nil()),
        ends_at: None,
        grants: fleetward_domain::people::permission::Grants::new(Vec::new()),
        must_change_password: false,
        remote: None,
    };
    let digest = Digest::of(b"request");
    fleetward_app::people::idempotency::begin(&site.app, &caller, "large", &digest).await.unwrap();
    let large = vec![b'x'; MAX_KEPT + 1];
    fleetward_app::people::idempotency::finish(&site.app, &caller, "large", 201, &large).await.unwrap();
    let repeated = fleetward_app::people::idempotency::begin(&site.app, &caller, "large", &digest).await;
    assert!(
        matches!(
            repeated,
            Err(fleetward_app::people::idempotency::IdempotencyError::NotKept { status: 201 })
        ),
        "{repeated:?}"
    );
    let mut tx = site.app.store().write().await.unwrap();
    let claim = idempotency::insert(&mut tx, bob_id, "large", &digest, now + LIFETIME, now).await.unwrap();
    assert_eq!(claim, idempotency::Claim::Answered(Answer { status: 201, body: None }));
}

/// Whoever reads a body, with a key or without, reads it for a limited time, and a trickle does not prolong it.
#[tokio::test]
async fn no_body_is_waited_for_without_end() {
    const FOREVER: Duration = Duration::from_secs(600);
    let site = TestSite::new().await;
    for (path, key) in [
        ("/api/v1/hosts", Some("key-1")),
        ("/api/v1/hosts", None),
        ("/api/v1/targets/preview", Some("key-2")),
        ("/api/v1/auth/login", None),
    ] {
        for trickles in [false, true] {
            let mut request = Request::post(path)
                .header("authorization", format!("Bearer {}", site.token))
                .header("content-type", "application/json");
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            let body = Body::from_stream(futures_util::stream::unfold(None, move |begun| async move {
                // Time is virtual from where the body is awaited: the database is not.
                let begun = begun.unwrap_or_else(|| {
                    tokio::time::pause();
                    Instant::now()
                });
                tokio::time::advance(if trickles { Duration::from_secs(1) } else { FOREVER }).await;
                (begun.elapsed() < FOREVER)
                    .then(|| (Ok::<_, std::io::Error>(axum::body::Bytes::from_static(b" ")), Some(begun)))
            }));
            let answer = Answer::read(site.send(request.body(body).unwrap()).await).await;
            tokio::time::resume();
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (StatusCode::REQUEST_TIMEOUT, "BODY_TOO_SLOW")
            );
        }
    }
}

#[tokio::test]
async fn parallel_requests_with_one_key_start_one_operation() {
    let site = TestSite::new().await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    let body = json!({ "scripts": [{ "name": "baseline" }], "on": "all" });
    // An operation's key is its id: everybody is answered with the same one, however it came to be.
    let millis = u64::try_from(site.app.now().as_millis()).unwrap();
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid().to_string();
    let ask = || post(&site, &site.token, "/api/v1/operations", &id, &body);
    let answers = futures_util::future::join_all([ask(), ask(), ask(), ask()]).await;
    for answer in answers {
        assert_eq!((answer.status, &answer.json()["id"]), (StatusCode::CREATED, &json!(id)));
    }
    let refused = post(&site, &site.token, "/api/v1/operations", "key", &body).await;
    assert_eq!(refused.code(), "INVALID_IDEMPOTENCY_KEY");
    assert_eq!(site.get("/api/v1/operations").await["items"].as_array().unwrap().len(), 1);
}
