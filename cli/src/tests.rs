//! What a failing command says, whoever answered it.

use clap::Parser as _;

use super::*;
use crate::client::double::{Step, answer, serve};

/// What the user reads after a command that fails, where `steps` answer it.
async fn failure_of(line: &str, steps: Vec<Step>) -> Failure {
    let (address, _requests) = serve(vec![steps]).await;
    let globals = format!("fleetward --quiet --token secret --controller {address} {line}");
    dispatch(Cli::try_parse_from(globals.split(' ')).unwrap()).await.expect_err(line)
}

/// Each of these words arrives where the API promises another kind of text.
#[tokio::test]
async fn nothing_that_a_hostile_server_answers_acts_on_the_terminal() {
    let evil = r"\u001b]0;PWN\u0007\u202e\u009b31m\r\b\n";
    let dull = |character: char| character == '\n' || !character.is_control() && character != '\u{202e}';
    for (line, body) in [
        ("whoami", format!(r#"{{"username":"{evil}","grants":[],"must_change_password":false}}"#)),
        (
            "whoami",
            format!(
                r#"{{"username":"ann","grants":[{{"role":"{evil}","tenant":"x"}}],"must_change_password":false}}"#
            ),
        ),
        ("host list", format!(r#"{{"items":[{{"name":"{evil}"}}]}}"#)),
        ("host show web-1", format!(r#"{{"tags":["{evil}"]}}"#)),
        ("audit list", format!(r#"{{"items":[{{"at":"{evil}"}}]}}"#)),
        ("op show OP-1", format!(r#"{{"status":"{evil}"}}"#)),
        ("op stop OP-1", format!(r#"{{"{evil}":1"#)),
        ("host show web-1", "\u{1b}]0;PWN\u{7}\u{9b}".to_owned()),
    ] {
        let failure = failure_of(line, vec![answer("200 OK", &body)]).await;
        let said = told(&failure);
        assert!(said.chars().all(dull), "{line}: {said:?}");
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
    }
    let refusal =
        format!(r#"{{"error":"{evil}","code":"X","details":{{}},"timestamp":"2026-01-02T03:04:05.000Z"}}"#);
    let failure = failure_of("host list", vec![answer("400 Bad Request", &refusal)]).await;
    assert!(told(&failure).chars().all(dull), "{:?}", told(&failure));
    let causes = Failure::Other(anyhow::anyhow!("\u{1b}[2J\u{9b}").context("a\rb\u{202e}"));
    assert_eq!(told(&causes), "error: a␍b<U+202E>: ␛[2J<U+009B>");
}

#[tokio::test]
async fn a_long_word_of_the_server_is_not_repeated_whole() {
    let body =
        format!(r#"{{"username":"{}","grants":[],"must_change_password":false}}"#, "x y".repeat(100_000));
    let said = told(&failure_of("whoami", vec![answer("200 OK", &body)]).await);
    assert!(said.len() < 1000, "{}", said.len());
}

#[tokio::test]
async fn an_endless_answer_is_an_error_and_not_an_end_of_the_memory() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n".to_owned();
    let failure = failure_of("host list", vec![Step::Endless(head, " ".repeat(1 << 20))]).await;
    let said = told(&failure);
    assert!(said.contains("its answer is longer than 64 MiB"), "{said}");
    assert_eq!(failure.exit_code(), 4);
}

#[tokio::test]
async fn a_list_without_end_is_an_error() {
    let page = || answer("200 OK", r#"{"items":[],"next_cursor":"a"}"#);
    let said = told(&failure_of("host list", vec![page(), page()]).await);
    assert!(said.contains("an empty page before its end"), "{said}");
}

#[test]
fn who_is_not_there_may_be_at_the_usual_port() {
    let unreachable = |url: &str| {
        let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        told(&Failure::Unreachable { url: url.to_owned(), source })
    };
    let said = unreachable("https://ctl.example.com");
    assert!(said.contains("fleetward login https://ctl.example.com:7444"), "{said}");
    let said = unreachable("https://[2001:db8::1]");
    assert!(said.contains("https://[2001:db8::1]:7444"), "{said}");
    assert!(!unreachable("https://ctl.example.com:7444").contains("login"), "the port is right");
}

#[test]
fn a_no_is_not_an_error() {
    assert_eq!(told(&Failure::Declined), "Nothing was done.");
    assert_eq!(Failure::Declined.exit_code(), 1);
}
