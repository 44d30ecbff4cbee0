//! Answers that last end with the login that asked for them.

use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::FromRequestParts as _;
use axum::http::{Request, StatusCode};
use fleetward_app::people::ending::Ending;
use fleetward_domain::people::permission::Role;
use fleetward_protocol::id::{RunId, UserId};
use fleetward_protocol::output::Stream;
use fleetward_store::people::user;
use futures_util::StreamExt as _;
use serde_json::json;

use super::site::{TestSite, written};
use crate::caller::Allowed;
use crate::lasting::Unread;
use fleetward_app::people::access::Read;

/// Far less than the time after which a login is looked at again by itself.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn open(site: &TestSite, token: &str, path: &str) -> BodyDataStream {
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    let response = site.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.into_body().into_data_stream()
}

/// Waits for the end of a stream; whether it ended as if nothing followed.
async fn end(mut stream: BodyDataStream) -> bool {
    let rest = async {
        while let Some(piece) = stream.next().await {
            if piece.is_err() {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(AT_ONCE, rest).await.expect("the stream ends at once")
}

async fn paths(site: &TestSite) -> [String; 3] {
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    let operation = site.operation("all").await["id"].as_str().unwrap().to_owned();
    let runs = site.get(&format!("/api/v1/operations/{operation}/runs")).await;
    let run: RunId = runs["items"][0]["id"].as_str().unwrap().parse().unwrap();
    // More than is read ahead of a client.
    let line = vec![b'x'; 60 << 10];
    let (output, _) = written(operation.parse().unwrap(), run, 0, &vec![(Stream::Stdout, &line[..]); 20]);
    site.commit(vec![output]).await;
    [
        "/api/v1/events".to_owned(),
        format!("/api/v1/operations/{operation}/events"),
        format!("/api/v1/runs/{run}/output"),
    ]
}

async fn user_of(site: &TestSite, name: &str) -> UserId {
    let mut conn = site.app.store().read().await.unwrap();
    user::find(&mut conn, &name.parse().unwrap()).await.unwrap().unwrap().id
}

#[tokio::test]
async fn every_stream_ends_at_once_with_the_logout() {
    let site = TestSite::new().await;
    let [fleet, operation, output] = paths(&site).await;
    let bob = site.login_as("bob", Role::Operator).await;
    let streams = [open(&site, &bob, &fleet).await, open(&site, &bob, &operation).await];
    let download = open(&site, &bob, &output).await;
    let mut other = open(&site, &site.token, &fleet).await;
    assert_eq!(site.call_as(&bob, "POST", "/api/v1/auth/logout", None).await.status, StatusCode::NO_CONTENT);
    for stream in streams {
        assert!(end(stream).await);
    }
    assert!(!end(download).await, "a part is not taken for the whole");
    // Somebody else's goes on.
    site.enrolled_host("web-2").await;
    assert!(other.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_stream_ends_at_once_when_its_login_is_ended_from_another_one() {
    let site = TestSite::new().await;
    let id = site.get("/api/v1/auth/sessions").await["items"][0]["id"].as_str().unwrap().to_owned();
    let stream = open(&site, &site.token, "/api/v1/events").await;
    let answer = site.call("DELETE", &format!("/api/v1/auth/sessions/{id}"), None).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(end(stream).await);
}

#[tokio::test]
async fn other_streams_end_at_once_when_the_password_is_changed() {
    let site = TestSite::new().await;
    let mut tx = site.app.store().write().await.unwrap();
    let name = "grace".parse().unwrap();
    let password = fleetward_app::people::user::insert_admin(
        &mut tx,
        &name,
        fleetward_store::people::tenant::DEFAULT,
        site.app.now(),
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let log_in = async |password: &str| {
        let body = json!({ "username": "grace", "password": password });
        let answer = site.call_as("", "POST", "/api/v1/auth/login", Some(body)).await;
        answer.json()["token"].as_str().unwrap().to_owned()
    };
    let change = async |token: &str, current: &str, new: &str| {
        let body = json!({ "current": current, "new": new });
        let answer = site.call_as(token, "POST", "/api/v1/auth/password", Some(body)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    };
    let first = log_in(&password).await;
    change(&first, &password, "correct horse battery").await;
    let second = log_in("correct horse battery").await;
    let stream = open(&site, &second, "/api/v1/events").await;
    let mut own = open(&site, &first, "/api/v1/events").await;
    change(&first, "correct horse battery", "battery horse correct").await;
    assert!(end(stream).await);
    site.enrolled_host("web-1").await;
    assert!(own.next().await.unwrap().is_ok(), "the login that changed it goes on");
}

/// What ended in the store between the request's own look and the stream's beginning, or while nobody could be told.
#[tokio::test]
async fn a_stream_looks_for_itself() {
    let site = TestSite::new().await;
    let ada = user_of(&site, "ada").await;
    let request = Request::get("/").header("authorization", format!("Bearer {}", site.token));
    let (mut parts, _) = request.body(()).unwrap().into_parts();
    let looked = Allowed::<Read>::from_request_parts(&mut parts, &site.site).await.unwrap();
    let mut tx = site.app.store().write().await.unwrap();
    user::update_disabled(&mut tx, ada, Some(site.app.now()), site.app.now()).await.unwrap();
    tx.commit().await.unwrap();
    let mut stream =
        pin!(looked.lasting().cut(site.site.clone(), futures_util::stream::pending::<()>(), Unread::Waits));
    let cut = tokio::time::timeout(AT_ONCE, stream.next()).await.expect("the stream ends at once");
    assert!(matches!(cut, Some(Err(_))), "{cut:?}");
    // Whoever may have missed an announcement looks, and goes on if all is well.
    let bob = site.login_as("bob", Role::Viewer).await;
    let mut stream = open(&site, &bob, "/api/v1/events").await;
    for _ in 0..1000 {
        site.app.endings().announce(Ending::AllBut(ada, None));
    }
    site.app.fleet().announce(fleetward_app::fleet::online::FleetEvent::Host {
        tenant: fleetward_store::people::tenant::DEFAULT,
        host: fleetward_protocol::id::HostId::from_uuid(uuid::Uuid::nil()),
    });
    let quiet = tokio::time::timeout(Duration::from_millis(1), stream.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test]
async fn a_stream_ends_when_its_logins_time_is_over() {
    let site = TestSite::new().await;
    site.clock.advance(Duration::from_millis(24 * 60 * 60 * 1000 - 50));
    let stream = open(&site, &site.token, "/api/v1/events").await;
    site.clock.advance(Duration::from_millis(50));
    assert!(end(stream).await);
}

/// More clients than the store has connections ask for an answer, read a little and then nothing.
#[tokio::test]
async fn clients_that_stop_reading_keep_no_connection_of_the_store() {
    const CLIENTS: usize = 40;
    let site = TestSite::new().await;
    let paths = paths(&site).await;
    let mut stuck = Vec::new();
    for path in &paths {
        for _ in 0..CLIENTS {
            stuck.push(open(&site, &site.token, path).await);
        }
    }
    // Something to tell, for those who wait for it.
    site.enrolled_host("web-2").await;
    for stream in &mut stuck {
        // Asks once, and takes what is there; what is not is never waited for.
        drop(futures_util::poll!(stream.next()));
    }
    let other = tokio::time::timeout(AT_ONCE, site.get("/api/v1/hosts/web-1"));
    assert_eq!(other.await.expect("the store answers")["name"], "web-1");
}
