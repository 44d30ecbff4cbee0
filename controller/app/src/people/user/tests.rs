//! Staying logged in for exactly a day, and changing the password.

use super::*;
use crate::people::access::Read;
use crate::people::login::{Login, LoginError, login};
use crate::testing::TestApp;

const NEW: &str = "correct horse battery";

fn admin() -> UserName {
    "admin".parse().unwrap()
}

async fn try_to(controller: &TestApp, password: &str) -> Result<Login, LoginError> {
    login(controller.app(), &admin(), password, "test", None).await
}

#[tokio::test]
async fn p1_p3_a_login_lasts_a_day_and_a_one_time_password_one_change() {
    let controller = TestApp::start().await;
    let one_time = controller.one_time_password().await;
    let login = try_to(&controller, &one_time).await.unwrap();
    assert!(login.caller.must_change_password);
    login.caller.clone().permit::<Read>().unwrap_err();
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
async fn a_password_is_changed_whatever_others_guess_and_own_guesses_are_counted() {
    let controller = TestApp::start().await;
    let one_time = controller.one_time_password().await;
    let login = try_to(&controller, &one_time).await.unwrap();
    let other = try_to(&controller, &one_time).await.unwrap();
    // Somebody at the very same address locks the name.
    for _ in 0..5 {
        assert!(matches!(try_to(&controller, "guess").await, Err(LoginError::Wrong)));
    }
    assert!(matches!(try_to(&controller, &one_time).await, Err(LoginError::Locked(_))));
    let app = controller.app();
    change_password(app, &login.caller, &one_time, NEW).await.unwrap();
    // The other login has ended, and with it its word.
    let ended = change_password(app, &other.caller, NEW, "yet another good one").await;
    assert!(matches!(ended, Err(PasswordError::Ended)), "{ended:?}");
    // Whoever holds a login guesses no better than a stranger.
    for _ in 0..5 {
        let wrong = change_password(app, &login.caller, "guess", "yet another good one").await;
        assert!(matches!(wrong, Err(PasswordError::WrongCurrent)), "{wrong:?}");
    }
    let locked = change_password(app, &login.caller, NEW, "yet another good one").await;
    assert!(matches!(locked, Err(PasswordError::Locked(_))), "{locked:?}");
    assert!(controller.has_audited("user.password_refused").await);
    controller.clock.advance(Duration::from_secs(300));
    change_password(app, &login.caller, NEW, "yet another good one").await.unwrap();
}
