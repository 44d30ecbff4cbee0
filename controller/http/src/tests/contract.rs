//! What scripts declare, held against what is asked, and what is told of it.

use axum::http::StatusCode;
use fleetward_app::work::order::Orders;
use fleetward_domain::fleet::contract::{FreeArguments, Variable};
use fleetward_domain::fleet::inventory::Flag;
use fleetward_domain::people::permission::Role;
use fleetward_protocol::action::Action;
use fleetward_protocol::order::{Authority, Order};
use fleetward_store::Scope;
use fleetward_store::fleet::script;
use fleetward_store::people::tenant;
use fleetward_store::testing;
use fleetward_store::work::{operation, step};
use serde_json::{Value, json};

use super::site::TestSite;

const CREATE: &str = "/api/v1/operations";
const PREVIEW: &str = "/api/v1/targets/preview";

/// A script `deploy` that declares flags, variables and users.
async fn declare(site: &TestSite) {
    site.script("deploy").await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    let scope = Scope::of(tenant::DEFAULT);
    let mut tx = site.app.store().write().await.unwrap();
    let mut row = script::get(&mut tx, &scope, &"deploy".parse().unwrap()).await.unwrap();
    let variable = |name: &str, secret| Variable {
        name: name.to_owned(),
        description: String::new(),
        required: false,
        secret,
    };
    row.flags = vec![
        Flag { flag: "--dry-run".to_owned(), requires_value: false },
        Flag { flag: "--keep".to_owned(), requires_value: true },
    ];
    row.free_arguments = FreeArguments::None;
    row.environment = vec![variable("VERSION", false), variable("API_TOKEN", true)];
    row.user = Some("www-data".parse().unwrap());
    row.users = vec!["postgres".parse().unwrap()];
    script::update(&mut tx, &row).await.unwrap();
    tx.commit().await.unwrap();
}

fn deploy(arguments: &[&str]) -> Value {
    json!([{ "name": "deploy", "arguments": arguments }])
}

#[tokio::test]
async fn declared_flags_are_checked_before_the_first_host() {
    let site = TestSite::new().await;
    declare(&site).await;
    for (arguments, flag) in [
        (&[][..], "--keep"),
        (&["--keep="], "--keep"),
        (&["--keep=7", "--dryrun"], "--dryrun"),
        (&["--keep=7", "--dry-run=yes"], "--dry-run"),
    ] {
        for path in [CREATE, PREVIEW] {
            let body = json!({ "scripts": deploy(arguments), "on": "all" });
            let refused = site.call("POST", path, Some(body)).await;
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (StatusCode::BAD_REQUEST, "INVALID_ARGUMENTS"),
                "{path} {arguments:?}"
            );
            let refused = refused.json();
            assert_eq!(refused["details"]["flag"], flag, "{refused}");
            assert_eq!(refused["details"]["usage"], "deploy [--dry-run] --keep=VALUE");
            assert!(refused["error"].as_str().unwrap().contains("--keep=VALUE"), "{refused}");
        }
    }
    assert_eq!(site.get(CREATE).await["items"], json!([]));
    let taken =
        site.call("POST", CREATE, Some(json!({ "scripts": deploy(&["--keep=7"]), "on": "all" }))).await;
    assert_eq!(taken.status, StatusCode::CREATED, "{taken:?}");
    // A script that declares nothing takes anything.
    let any = json!([{ "name": "baseline", "arguments": ["-x", "--y=z", "w"] }]);
    let taken = site.call("POST", CREATE, Some(json!({ "scripts": any, "on": "all" }))).await;
    assert_eq!(taken.status, StatusCode::CREATED, "{taken:?}");
}

#[tokio::test]
async fn variables_and_users_are_declared_or_take_a_permission_of_their_own() {
    let site = TestSite::new().await;
    declare(&site).await;
    let operator = site.login_as("olga", Role::Operator).await;
    let asked = |environment: Value, user: Value| json!({ "scripts": deploy(&["--keep=7"]), "on": "all", "environment": environment, "user": user });
    for user in [json!(null), json!("www-data"), json!("postgres")] {
        let body = asked(json!({ "VERSION": "7", "API_TOKEN": "x" }), user);
        let taken = site.call_as(&operator, "POST", CREATE, Some(body)).await;
        assert_eq!(taken.status, StatusCode::CREATED, "{taken:?}");
    }
    for (environment, user, named) in
        [(json!({ "COLOUR": "red" }), json!(null), "`COLOUR`"), (json!({}), json!("root"), "`root`")]
    {
        for path in [CREATE, PREVIEW] {
            let refused =
                site.call_as(&operator, "POST", path, Some(asked(environment.clone(), user.clone()))).await;
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (StatusCode::FORBIDDEN, "NOT_DECLARED"),
                "{path}"
            );
            let refused = refused.json();
            assert_eq!(refused["details"]["permission"], "override");
            let message = refused["error"].as_str().unwrap();
            assert!(message.contains(named) && message.contains("permission `override`"), "{message}");
        }
        // An administrator has the permission, and is on record.
        let taken = site.call("POST", CREATE, Some(asked(environment, user))).await;
        assert_eq!(taken.status, StatusCode::CREATED, "{taken:?}");
        let event = &site.get("/api/v1/audit?limit=1").await["items"][0];
        assert!(event["details"]["undeclared"].to_string().contains(named), "{event}");
    }
    // What is code to bash or the loader is nobody's to give.
    for name in ["BASH_ENV", "LD_PRELOAD", "PATH", "PS4", "FLEETWARD_RUN_ID"] {
        for path in [CREATE, PREVIEW] {
            let refused = site.call("POST", path, Some(asked(json!({ name: "x" }), json!(null)))).await;
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (StatusCode::BAD_REQUEST, "INVALID_ACTION")
            );
            assert!(refused.json()["error"].as_str().unwrap().contains(name));
        }
    }
}

#[tokio::test]
async fn all_that_was_asked_is_shown_and_secrets_stay_sealed() {
    shown_and_sealed(TestSite::new().await).await;
    let name = "all_that_was_asked_is_shown_and_secrets_stay_sealed";
    if let Some(store) = testing::postgres(name).await {
        shown_and_sealed(TestSite::on(store).await).await;
    }
}

async fn shown_and_sealed(site: TestSite) {
    declare(&site).await;
    let body = json!({
        "scripts": deploy(&["--keep=7"]), "on": "all", "user": "postgres", "directory": "/srv",
        "environment": { "VERSION": "seven", "API_TOKEN": "s3cr3t-token", "COLOUR": "unsaid-red" },
    });
    let created = site.call("POST", CREATE, Some(body)).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let created = created.json();
    let event = site.get("/api/v1/audit?limit=1").await["items"][0].clone();
    for (of, shown) in [("operation", &created), ("audit", &event["details"])] {
        let params = &shown["steps"][0]["params"];
        let environment = &params["environment"];
        assert_eq!(environment["VERSION"], "seven", "{of}");
        for hidden in ["API_TOKEN", "COLOUR"] {
            assert_eq!(environment[hidden]["digest"].as_str().unwrap().len(), 64, "{of}");
        }
        assert_eq!(params["undeclared"], json!(["the environment variable `COLOUR`"]), "{of}");
        assert_eq!((&params["directory"], &params["user"]), (&json!("/srv"), &json!("postgres")), "{of}");
        assert_eq!(params["arguments"], json!(["--keep=7"]), "{of}");
        let text = shown.to_string();
        assert!(!text.contains("s3cr3t") && !text.contains("unsaid"), "{text}");
    }
    let id = created["id"].as_str().unwrap().parse().unwrap();
    let mut conn = site.app.store().read().await.unwrap();
    let sealed = step::list_sealed(&mut conn, id).await.unwrap();
    assert_eq!(sealed.len(), 1);
    for bytes in sealed.iter().chain([&operation::get_plan(&mut conn, id).await.unwrap()]) {
        assert!(!bytes.windows(6).any(|bytes| bytes == b"s3cr3t" || bytes == b"unsaid"));
    }
    // The order is made from it all the same, and is the same each time.
    let run = fleetward_store::work::run::list_all(&mut conn, id).await.unwrap().remove(0);
    let mut orders = Vec::new();
    for _ in 0..2 {
        let loaded = Orders::load(&mut conn, site.app.secrets(), id).await.unwrap();
        let proof = fleetward_store::work::run::get_proof(&mut conn, run.id).await.unwrap();
        orders.push(loaded.prepare(id, &run.client_id, run.step, &proof).unwrap().order);
    }
    assert_eq!(orders[0], orders[1]);
    let sent = Order::open(&orders[0]).unwrap();
    assert_eq!((sent.run, sent.operation, &sent.client), (run.id, id, &run.client_id));
    let Authority::Run(action) = sent.authority else { panic!("{sent:?}") };
    let Ok(Action::Script(sent)) = Action::parse(&action) else { panic!("{action:?}") };
    assert_eq!(sent.environment["API_TOKEN"], "s3cr3t-token");
    assert_eq!(sent.environment.len(), 3);
}

/// Several scripts are given the same: what is a secret of one is shown of none.
#[tokio::test]
async fn what_one_step_hides_no_other_shows() {
    let site = TestSite::new().await;
    declare(&site).await;
    let scope = Scope::of(tenant::DEFAULT);
    let mut tx = site.app.store().write().await.unwrap();
    let mut row = script::get(&mut tx, &scope, &"baseline".parse().unwrap()).await.unwrap();
    let public = |name: &str| Variable {
        name: name.to_owned(),
        description: String::new(),
        required: false,
        secret: false,
    };
    row.environment = vec![public("API_TOKEN"), public("VERSION")];
    script::update(&mut tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    let body = json!({
        "scripts": [{ "name": "baseline" }, { "name": "deploy", "arguments": ["--keep=7"] }], "on": "all",
        "environment": { "VERSION": "seven", "API_TOKEN": "s3cr3t-token" },
    });
    let created = site.call("POST", CREATE, Some(body)).await.json();
    for step in 0..2 {
        let environment = &created["steps"][step]["params"]["environment"];
        assert_eq!(
            (&environment["VERSION"], environment["API_TOKEN"]["digest"].is_string()),
            (&json!("seven"), true),
            "{created}"
        );
    }
}

#[tokio::test]
async fn hosts_that_are_not_enrolled_can_be_left_out() {
    let site = TestSite::new().await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    site.call("POST", "/api/v1/hosts", Some(json!({ "name": "new-1", "type": "VM" }))).await;
    let ask = |on: &str, skip: bool| json!({ "scripts": [{ "name": "baseline" }], "on": on, "skip_not_enrolled": skip });
    let refused = site.call("POST", CREATE, Some(ask("all", false))).await;
    assert_eq!(refused.code(), "HOST_NOT_ENROLLED");
    let message = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(message.contains("--skip-not-enrolled") && message.contains("new-1 (pending)"), "{message}");
    // Offline, as all are here, is no reason to be left out.
    let taken = site.call("POST", CREATE, Some(ask("all", true))).await;
    assert_eq!(taken.status, StatusCode::CREATED, "{taken:?}");
    assert_eq!((&taken.json()["hosts"], &taken.json()["left_out"]), (&json!(1), &json!(1)));
    // P13: nobody is left.
    assert_eq!(site.call("POST", CREATE, Some(ask("new-1", true))).await.code(), "HOST_NOT_ENROLLED");
    let pending = site.call("POST", PREVIEW, Some(json!({ "on": "enrolment:pending" }))).await.json();
    assert_eq!(pending["hosts"].as_array().unwrap().len(), 1);
    let refused = site.call("POST", PREVIEW, Some(json!({ "on": "all & !status:ofline" }))).await;
    assert_eq!(refused.code(), "INVALID_TARGETS");
    assert!(refused.json()["error"].as_str().unwrap().contains("did you mean `offline`"));
}

#[tokio::test]
async fn ranges_of_a_rollout_are_in_the_error() {
    let site = TestSite::new().await;
    site.script("baseline").await;
    site.enrolled_host("web-1").await;
    let ask = async |rollout: Value| {
        let body = json!({ "scripts": [{ "name": "baseline" }], "on": "all", "rollout": rollout });
        site.call("POST", CREATE, Some(body)).await
    };
    for (rollout, part) in [
        (json!({ "batch": "150%" }), "from 0% to 100%"),
        (json!({ "batch": "0" }), "1 or more, or 1% to 100%"),
        (json!({ "canary": "0" }), "1 or more, or 1% to 100%"),
        (json!({ "concurrency": 0 }), "between 1 and 10000"),
        (json!({ "concurrency": 10001 }), "between 1 and 10000"),
        (json!({ "max_failures": "101%" }), "from 0% to 100%"),
    ] {
        let refused = ask(rollout.clone()).await;
        let message = refused.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(part), "{rollout}: {message}");
    }
    let taken = ask(json!({ "max_failures": "0" })).await;
    assert_eq!(taken.status, StatusCode::CREATED, "{taken:?}");
    assert_eq!(taken.json()["rollout"]["max_failures"], "0");
}
