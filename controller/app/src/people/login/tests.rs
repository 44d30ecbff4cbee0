//! Logging in: who is locked, who is not, and what strangers learn and cost.

use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::testing::TestApp;

/// Where the user works.
const HOME: &str = "192.0.2.1";

fn admin() -> UserName {
    "admin".parse().unwrap()
}

async fn try_as(controller: &TestApp, name: &str, password: &str, from: &str) -> Result<Login, LoginError> {
    let from: IpAddr = from.parse().unwrap();
    login(controller.app(), &name.parse().unwrap(), password, "test", Some(from)).await
}

async fn try_from(controller: &TestApp, password: &str, from: &str) -> Result<Login, LoginError> {
    try_as(controller, "admin", password, from).await
}

fn address(number: u32) -> String {
    std::net::Ipv4Addr::from(0xC633_6400 + number).to_string()
}

#[tokio::test]
async fn p2_five_failures_lock_for_five_minutes_even_when_they_come_at_once() {
    let controller = TestApp::start().await;
    let password = controller.one_time_password().await;
    let guesses = (0..8).map(|_| try_from(&controller, "guess", HOME));
    let mut refusals = [0, 0];
    for result in join_all(guesses).await {
        match result {
            Err(LoginError::Wrong) => refusals[0] += 1,
            Err(LoginError::Locked(_)) => refusals[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refusals, [5, 3]);
    let locked = try_from(&controller, &password, HOME).await;
    assert!(matches!(locked, Err(LoginError::Locked(_))), "even the right one");
    assert!(controller.has_audited("login.locked").await);
    assert!(controller.has_audited("login.refused").await);
    controller.clock.advance(Duration::from_secs(300));
    try_from(&controller, &password, HOME).await.unwrap();
}

/// Against a model of names and addresses: what is locked is a name for an address, whether there is such a user or not,
/// after five wrong passwords within five minutes, for five minutes; nobody else feels it.
#[test]
fn p2_a_name_is_locked_for_the_address_that_guessed_and_for_nobody_else() {
    use proptest::prelude::*;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (controller, password) = runtime.block_on(async {
        let controller = TestApp::start().await;
        let password = controller.one_time_password().await;
        (controller, password)
    });
    let steps = prop::collection::vec((0usize..2, 0u32..2, 0u64..100, prop::bool::weighted(0.1)), 1..12);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(100));
    let ran = runner.run(&steps, |steps| {
        runtime.block_on(async {
            // Longer than anything is remembered.
            controller.clock.advance(Duration::from_secs(3600));
            let mut model = std::collections::HashMap::<(usize, u32), (Vec<u64>, u64)>::new();
            let mut second = 1000;
            for (name, from, gap, right) in steps {
                controller.clock.advance(Duration::from_secs(gap));
                second += gap;
                let (failures, locked_until) = model.entry((name, from)).or_default();
                let said = if right { password.as_str() } else { "guess" };
                let result = try_as(&controller, ["admin", "nobody"][name], said, &address(from)).await;
                if second < *locked_until {
                    prop_assert!(matches!(result, Err(LoginError::Locked(_))), "{:?}", result);
                    continue;
                }
                if right && name == 0 {
                    prop_assert!(result.is_ok(), "{:?}", result);
                    failures.clear();
                    continue;
                }
                prop_assert!(matches!(result, Err(LoginError::Wrong)), "{:?}", result);
                failures.push(second);
                failures.retain(|&then| second - then < 300);
                if failures.len() >= 5 {
                    failures.clear();
                    *locked_until = second + 300;
                }
            }
            Ok(())
        })
    });
    ran.unwrap();
}

/// What locked `admin` out for ever: a few wrong passwords now and then, from anywhere.
#[tokio::test]
async fn strangers_lock_nobody_out() {
    let controller = TestApp::start().await;
    let password = controller.one_time_password().await;
    try_from(&controller, &password, HOME).await.unwrap();
    // From one address, and then from so many that the name is guessed at as often as all strangers may.
    for _ in 0..5 {
        assert!(matches!(try_from(&controller, "guess", &address(0)).await, Err(LoginError::Wrong)));
    }
    assert!(matches!(try_from(&controller, "guess", &address(0)).await, Err(LoginError::Locked(_))));
    let mut limited = false;
    for number in 1..80 {
        match try_from(&controller, "guess", &address(number)).await {
            Err(LoginError::Wrong) => {}
            Err(LoginError::TooMany(_)) => limited = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(limited, "a name is not guessed at without end from ever new addresses");
    let stranger = try_from(&controller, &password, "203.0.113.9").await;
    assert!(matches!(stranger, Err(LoginError::TooMany(_))), "{stranger:?}");
    // From where the user logged in before they log in.
    try_from(&controller, &password, HOME).await.unwrap();
}

#[tokio::test]
async fn one_address_is_limited_whatever_names_it_tries() {
    let controller = TestApp::start().await;
    let mut wrong = 0;
    for number in 0..40 {
        match try_as(&controller, &format!("user{number}"), "guess", HOME).await {
            Err(LoginError::Wrong) => wrong += 1,
            Err(LoginError::TooMany(too_many)) => assert_eq!(too_many.retry_after, Duration::from_secs(2)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(wrong, controller.app().settings().logins_per_minute);
}

/// Strangers who fill their queue are told to come again; the queue of who is known is another one.
#[tokio::test]
async fn a_crowd_of_strangers_does_not_make_a_known_user_wait() {
    let controller = TestApp::start().await;
    let password = controller.one_time_password().await;
    try_from(&controller, &password, HOME).await.unwrap();
    // Computations that take until they are told to end.
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = std::sync::Arc::new(std::sync::Mutex::new(ended));
    let app = controller.app().clone();
    let crowd: Vec<_> = (0..80)
        .map(|_| {
            let (app, ended) = (app.clone(), std::sync::Arc::clone(&ended));
            tokio::spawn(async move {
                let work = move || {
                    let _ = ended.lock().unwrap().recv();
                };
                app.passwords().compute(Standing::Stranger, work).await
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let one_more = try_from(&controller, &password, "203.0.113.9").await;
    assert!(matches!(one_more, Err(LoginError::Hash(NotComputed::Busy { .. }))), "{one_more:?}");
    let unknown = try_as(&controller, "nobody", "guess", "203.0.113.10").await;
    assert!(matches!(unknown, Err(LoginError::Hash(NotComputed::Busy { .. }))), "{unknown:?}");
    try_from(&controller, &password, HOME).await.unwrap();
    drop(end);
    let mut busy = 0;
    for one in crowd {
        busy += usize::from(matches!(one.await.unwrap(), Err(NotComputed::Busy { .. })));
    }
    assert!(busy >= 60, "{busy}");
    assert!(try_from(&controller, &password, "203.0.113.9").await.is_ok());
}

#[tokio::test]
async fn a_disabled_user_is_as_unknown_as_nobody() {
    let controller = TestApp::start().await;
    let password = controller.one_time_password().await;
    let mut tx = controller.app().store().write().await.unwrap();
    let id = user::find(&mut tx, &admin()).await.unwrap().unwrap().id;
    let now = controller.clock.now();
    user::update_disabled(&mut tx, id, Some(now), now).await.unwrap();
    tx.commit().await.unwrap();
    for _ in 0..5 {
        assert!(matches!(try_from(&controller, &password, HOME).await, Err(LoginError::Wrong)));
    }
    assert!(matches!(try_from(&controller, &password, HOME).await, Err(LoginError::Locked(_))));
}

#[tokio::test]
async fn where_a_user_logged_in_is_remembered_within_bounds() {
    let controller = TestApp::start().await;
    let password = controller.one_time_password().await;
    for number in 0..20 {
        try_from(&controller, &password, &address(number)).await.unwrap();
    }
    let mut conn = controller.app().store().read().await.unwrap();
    let known = user::find(&mut conn, &admin()).await.unwrap().unwrap().known_parties;
    assert_eq!(known.len(), MAX_KNOWN);
    assert_eq!(known.last().unwrap().to_string(), address(19));
    drop(conn);
    // A new one-time password is for when somebody else may have been there.
    controller.one_time_password().await;
    let mut conn = controller.app().store().read().await.unwrap();
    assert!(user::find(&mut conn, &admin()).await.unwrap().unwrap().known_parties.is_empty());
}

/// Hundreds of refusals are a handful of rows and lines, and their number; also when it is written before it is due.
#[tokio::test]
async fn a_flood_of_refusals_is_a_handful_of_rows_and_none_is_lost() {
    let log = crate::testing::Log::default();
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let controller = TestApp::start().await;
    let before = controller.audited("login.refused").await.len();
    for _ in 0..300 {
        try_from(&controller, "guess", HOME).await.unwrap_err();
    }
    assert_eq!(controller.audited("login.refused").await.len() - before, 10);
    assert_eq!(log.take("login.refused").len(), 10);
    controller.clock.advance(Duration::from_secs(60));
    refusal::write_due(controller.app()).await;
    let rows = controller.audited("login.refused").await;
    assert_eq!(rows.len() - before, 11);
    let sum = &rows.last().unwrap().event;
    assert_eq!(sum.details["text"], "290 more in this minute");
    assert_eq!((sum.subject.as_str(), sum.details["more"].as_u64()), (HOME, Some(290)));
    // What nobody had time to write is written at the end.
    for _ in 0..47 {
        try_from(&controller, "guess", "192.0.2.77").await.unwrap_err();
    }
    refusal::write_all(controller.app()).await;
    let rows = controller.audited("login.refused").await;
    assert_eq!(rows.last().unwrap().event.details["more"], 37);
}

/// All results, of futures that run at the same time.
async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, result) in &mut pending {
            if result.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        if pending.iter().all(|(_, result)| result.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, result)| result).collect()
}
