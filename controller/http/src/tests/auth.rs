//! Logging in, staying logged in, and what a login is good for.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use fleetward_app::people::user;
use fleetward_domain::people::permission::Role;
use fleetward_store::people::tenant;
use proptest::prelude::*;
use serde_json::json;

use super::site::{Answer, TestSite};

const DAY: i64 = 24 * 60 * 60 * 1000;

async fn admin(site: &TestSite, name: &str) -> String {
    let mut tx = site.app.store().write().await.unwrap();
    let password =
        user::insert_admin(&mut tx, &name.parse().unwrap(), tenant::DEFAULT, site.app.now()).await.unwrap();
    tx.commit().await.unwrap();
    password
}

async fn login(site: &TestSite, name: &str, password: &str) -> Answer {
    let body = json!({ "username": name, "password": password }).to_string();
    let request = Request::post("/api/v1/auth/login").header("content-type", "application/json");
    Answer::read(site.send(request.body(Body::from(body)).unwrap()).await).await
}

#[tokio::test]
async fn a_one_time_password_is_good_for_its_change_only() {
    let site = TestSite::new().await;
    let password = admin(&site, "grace").await;
    let answer = login(&site, "grace", &password).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-fleetward_session=") && !cookie.contains("Domain"), "{cookie}");
    for part in ["HttpOnly", "SameSite=Strict", "Secure", "Max-Age=86400", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let body = answer.json();
    assert_eq!(body["user"]["must_change_password"], true);
    assert_eq!(body["user"]["grants"], json!([{ "tenant": "default", "role": "admin" }]));
    let token = body["token"].as_str().unwrap().to_owned();

    assert_eq!(site.call_as(&token, "GET", "/api/v1/auth/me", None).await.status, StatusCode::OK);
    for (verb, path) in
        [("GET", "/api/v1/hosts"), ("GET", "/api/v1/auth/sessions"), ("POST", "/api/v1/enrolment-tokens")]
    {
        let answer = site.call_as(&token, verb, path, None).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::FORBIDDEN, "PASSWORD_CHANGE_REQUIRED")
        );
    }

    let change = |current: &str, new: &str| json!({ "current": current, "new": new });
    for (body, code) in [
        (change("wrong password", "a long enough one"), "WRONG_PASSWORD"),
        (change(&password, "short"), "INVALID_PASSWORD"),
        (change(&password, &password), "INVALID_PASSWORD"),
    ] {
        assert_eq!(site.call_as(&token, "POST", "/api/v1/auth/password", Some(body)).await.code(), code);
    }
    let body = change(&password, "correct horse battery");
    let answer = site.call_as(&token, "POST", "/api/v1/auth/password", Some(body)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    assert_eq!(site.call_as(&token, "GET", "/api/v1/hosts", None).await.status, StatusCode::OK);

    assert_eq!(
        site.call_as(&token, "POST", "/api/v1/auth/logout", None).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(site.call_as(&token, "GET", "/api/v1/auth/me", None).await.code(), "INVALID_CREDENTIAL");
}

/// A page shows what its reader may do, and nothing that would be refused.
#[tokio::test]
async fn who_one_is_has_what_one_may_do() {
    let site = TestSite::new().await;
    for (role, permissions) in [
        (Role::Reporter, json!(["read"])),
        (Role::Viewer, json!(["read", "read_output"])),
        (Role::Operator, json!(["read", "read_output", "run"])),
    ] {
        let token = site.login_as(role.as_str(), role).await;
        let me = site.call_as(&token, "GET", "/api/v1/auth/me", None).await.json();
        assert_eq!(me["permissions"], permissions, "{role}");
        // Kinds have theirs in the same words.
        let kinds = site.get("/api/v1/kinds").await;
        let may = |kind: &str| {
            let kind = kinds["items"].as_array().unwrap().iter().find(|known| known["name"] == kind).unwrap();
            permissions.as_array().unwrap().contains(&kind["permission"])
        };
        assert_eq!((may("sites"), may("unit")), (role >= Role::Viewer, role >= Role::Operator), "{role}");
    }
}

#[tokio::test]
async fn five_failures_lock_for_five_minutes_and_tell_nothing_else() {
    let site = TestSite::new().await;
    let password = admin(&site, "grace").await;
    let unknown = login(&site, "nobody", "wrong").await;
    for _ in 0..5 {
        let wrong = login(&site, "grace", "wrong").await;
        assert_eq!((wrong.status, wrong.code().as_str()), (StatusCode::UNAUTHORIZED, "INVALID_CREDENTIALS"));
        assert_eq!(wrong.json()["error"], unknown.json()["error"]);
    }
    let locked = login(&site, "grace", &password).await;
    assert_eq!((locked.status, locked.code().as_str()), (StatusCode::FORBIDDEN, "ACCOUNT_LOCKED"));
    assert_eq!(locked.headers["retry-after"], "300");
    site.clock.advance(Duration::from_secs(300));
    assert_eq!(login(&site, "grace", &password).await.status, StatusCode::OK);
    // Security matters are where an administrator looks.
    let audit = site.get("/api/v1/audit?action=login.&subject=grace").await;
    let actions: Vec<&str> =
        audit["items"].as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect();
    let mut expected = vec!["login.succeeded", "login.refused", "login.refused", "login.locked"];
    expected.extend(["login.refused"; 4]);
    assert_eq!(actions, expected);
}

#[tokio::test]
async fn a_cookie_is_a_credential_and_a_foreign_page_cannot_use_it() {
    let site = TestSite::new().await;
    let cookie = format!("__Host-fleetward_session={}", site.token);
    let ask = |verb: &str, headers: &[(&str, &str)]| {
        let mut request =
            Request::builder().method(verb).uri("/api/v1/enrolment-tokens").header("cookie", &cookie);
        if verb == "GET" {
            request = request.uri("/api/v1/auth/me");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.header("host", "ctl.example.com").body(Body::empty()).unwrap()
    };
    let read = |response| Answer::read(response);
    assert_eq!(read(site.send(ask("GET", &[])).await).await.json()["username"], "ada");
    assert_eq!(read(site.send(ask("POST", &[])).await).await.code(), "CSRF_HEADER_MISSING");
    let csrf = ("x-fleetward-console", "1");
    let foreign = ask("POST", &[csrf, ("origin", "https://evil.example.com")]);
    assert_eq!(read(site.send(foreign).await).await.code(), "FOREIGN_ORIGIN");
    let own = ask("POST", &[csrf, ("origin", "https://ctl.example.com")]);
    assert_eq!(read(site.send(own).await).await.status, StatusCode::CREATED);
}

/// Browsers keep to TLS for a name, and are not told so for an address, which they could not keep to.
#[tokio::test]
async fn browsers_keep_to_tls_for_the_controllers_name() {
    let site = TestSite::new().await;
    for (host, wanted) in [
        ("ctl.example.com", true),
        ("ctl.example.com:7444", true),
        ("192.0.2.1:7444", false),
        ("[2001:db8::1]:7444", false),
        ("localhost:7444", false),
        ("not a name", false),
    ] {
        let request = Request::get("/").header("host", host).body(Body::empty()).unwrap();
        let answer = site.send(request).await;
        let hsts = answer.headers().get("strict-transport-security");
        assert_eq!(hsts.is_some(), wanted, "{host}: {hsts:?}");
        assert!(hsts.is_none_or(|hsts| !hsts.to_str().unwrap().contains("includeSubDomains")));
    }
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_owner() {
    let site = TestSite::new().await;
    let other = site.login_as("bob", fleetward_domain::people::permission::Role::Admin).await;
    let sessions = site.get("/api/v1/auth/sessions").await;
    assert_eq!(sessions["items"].as_array().unwrap().len(), 1);
    assert_eq!(sessions["items"][0]["current"], true);
    assert_eq!(site.get("/api/v1/auth/sessions?limit=1000").await["items"], sessions["items"]);
    let id = sessions["items"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/auth/sessions/{id}");
    assert_eq!(site.call_as(&other, "DELETE", &path, None).await.code(), "SESSION_NOT_FOUND");
    assert_eq!(site.call("DELETE", &path, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(site.call("GET", "/api/v1/auth/me", None).await.code(), "INVALID_CREDENTIAL");
}

fn block_on<T>(work: impl AsyncFnOnce(&TestSite) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let site = TestSite::new().await;
        work(&site).await
    })
}

#[test]
fn p1_a_token_is_good_for_exactly_24_hours() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(128));
    block_on(async |site| {
        // One site; each case is a login of its own, at a time of its own.
        for case in 0..128 {
            let offset = {
                let tree = (0i64..2 * DAY).new_tree(&mut runner).unwrap();
                match case {
                    0 => DAY - 1,
                    1 => DAY,
                    _ => proptest::strategy::ValueTree::current(&tree),
                }
            };
            let token = site
                .login_as(&format!("user{case}"), fleetward_domain::people::permission::Role::Viewer)
                .await;
            let before = site.call_as(&token, "GET", "/api/v1/auth/me", None).await;
            assert_eq!(before.status, StatusCode::OK);
            site.clock.advance(Duration::from_millis(offset.unsigned_abs()));
            let after = site.call_as(&token, "GET", "/api/v1/auth/me", None).await;
            assert_eq!(after.status == StatusCode::OK, offset < DAY, "offset {offset}: {after:?}");
            assert_eq!(after.status == StatusCode::UNAUTHORIZED, offset >= DAY, "offset {offset}: {after:?}");
        }
    });
}

#[test]
fn p3_a_malformed_token_is_answered_with_401() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(256));
    let strategy = prop_oneof![
        "[ -~]{0,60}",
        "fws_[A-Za-z0-9_-]{0,60}",
        "Bearer [ -~]{0,200}",
        Just("Bearer fws_ada2".to_owned()),
        Just("Bearer fws_ad".to_owned()),
        "(Basic|Digest|bearer|BEARER) fws_[a-z]{4,9}",
    ];
    block_on(async |site| {
        for _ in 0..256 {
            let value = proptest::strategy::ValueTree::current(&strategy.new_tree(&mut runner).unwrap());
            let request =
                Request::get("/api/v1/auth/me").header("authorization", &value).body(Body::empty()).unwrap();
            let answer = Answer::read(site.send(request).await).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{value}: {answer:?}");
            answer.code();
        }
    });
}

/// A full disk or a busy database keeps nobody from looking: a session's use is noted when it can be.
#[tokio::test]
async fn a_session_is_good_while_nothing_can_be_written() {
    let site = TestSite::new().await;
    site.clock.advance(std::time::Duration::from_secs(120));
    let writing = site.app.store().write().await.unwrap();
    let answer = tokio::time::timeout(std::time::Duration::from_secs(5), site.get("/api/v1/hosts"));
    assert_eq!(answer.await.expect("it is answered")["items"], json!([]));
    drop(writing);
}
