//! Logging in, being locked out, and staying logged in for exactly a day.

use super::*;
use crate::testing::TestController;

const NEW: &str = "correct horse battery";

async fn reset(controller: &TestController) -> String {
    let mut tx = controller.app().store().write().await.unwrap();
    let password = reset_password(&mut tx, &admin(), controller.clock.now()).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    password
}

fn admin() -> UserName {
    "admin".parse().unwrap()
}

async fn try_to(controller: &TestController, password: &str) -> Result<Login, LoginError> {
    login(controller.app(), &admin(), password, "test", None).await
}

#[tokio::test]
async fn p1_p3_a_login_lasts_a_day_and_a_one_time_password_one_change() {
    let controller = TestController::start().await;
    let one_time = reset(&controller).await;
    let login = try_to(&controller, &one_time).await.unwrap();
    assert!(login.caller.must_change_password);
    login.caller.clone().permit(fleetward_domain::permission::Permission::Read).unwrap_err();
    let change = |current: &'static str, new: &'static str| {
        change_password(controller.app(), &login.caller, current, new)
    };
    assert!(matches!(change("short", "tiny").await, Err(PasswordError::Unacceptable(_))));
    assert!(matches!(change("wrong", NEW).await, Err(PasswordError::WrongCurrent)));
    change_password(controller.app(), &login.caller, &one_time, NEW).await.unwrap();
    assert!(matches!(try_to(&controller, &one_time).await, Err(LoginError::Wrong)));

    let app = controller.app();
    let who = |token: String| async move { authenticate(app, &token, None).await.map(|who| who.name) };
    assert!(matches!(who("fws_nonsense".to_owned()).await, Err(NotAuthenticated::Invalid)));
    assert!(matches!(who(String::new()).await, Err(NotAuthenticated::Invalid)));
    assert_eq!(who(login.token.clone()).await.unwrap(), admin());
    controller.clock.advance(Duration::from_secs(86_399));
    assert_eq!(who(login.token.clone()).await.unwrap(), admin());
    controller.clock.advance(Duration::from_secs(1));
    assert!(matches!(who(login.token.clone()).await, Err(NotAuthenticated::Invalid)));
}

#[tokio::test]
async fn p2_five_failures_lock_for_five_minutes_even_when_they_come_at_once() {
    let controller = TestController::start().await;
    let password = reset(&controller).await;
    let guesses = (0..8).map(|_| try_to(&controller, "guess"));
    let mut refusals = [0, 0];
    for result in join_all(guesses).await {
        match result {
            Err(LoginError::Wrong) => refusals[0] += 1,
            Err(LoginError::Locked(_)) => refusals[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refusals, [5, 3]);
    assert!(matches!(try_to(&controller, &password).await, Err(LoginError::Locked(_))), "even the right one");
    assert!(controller.has_audited("login.locked").await);
    assert!(controller.has_audited("login.refused").await);
    controller.clock.advance(Duration::from_secs(300));
    try_to(&controller, &password).await.unwrap();
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
