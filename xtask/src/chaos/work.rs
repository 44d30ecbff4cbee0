//! Operators: they ask for operations and stop some of them again, whatever happens to the controller meanwhile.

use std::time::Instant;

use super::Chaos;
use super::diary::{Span, now};
use super::plan::{Call, Request};
use super::script::SILENCE;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was taken.
    Taken,
    /// The controller answered no, in these words.
    Refused(String),
    /// No answer came: it may have been taken or not.
    Unknown(String),
}

/// A request that was made.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// The operation's reason, by which it is found again.
    pub(super) reason: String,
    /// What was asked for.
    pub(super) call: Call,
    /// From the request to its answer.
    pub(super) span: Span,
    /// The answer.
    pub(super) answer: Answer,
}

/// An operation that is to be stopped.
struct Stop {
    number: String,
    at: Instant,
}

/// Makes an operator's requests, one after the other, until the time is over.
pub(super) fn drive(chaos: &Chaos, operator: usize, requests: impl Iterator<Item = Request>) {
    let mut stops: Vec<Stop> = Vec::new();
    for (count, request) in requests.enumerate() {
        if chaos.ending.wait(request.after) {
            break;
        }
        carry_out_stops(chaos, &mut stops);
        let reason = format!("chaos {operator} {count}");
        let on: Vec<String> = request.hosts.iter().map(|host| format!("h{}", host + 1)).collect();
        if let (_, Some(number)) = ask(chaos, request.call, &on.join("|"), &reason)
            && let Some(after) = request.stop_after
        {
            stops.push(Stop { number, at: Instant::now() + after });
        }
    }
}

/// Asks for an operation; gives its number if it was taken.
pub(super) fn ask(chaos: &Chaos, call: Call, on: &str, reason: &str) -> (Answer, Option<String>) {
    let mut arguments: Vec<String> = Vec::new();
    match call {
        Call::Scripts(scripts) => {
            arguments.push("run".into());
            arguments.extend(scripts.iter().map(|script| script.name().to_owned()));
            arguments.extend(["--env".into(), format!("{SILENCE}={}", chaos.silence.as_secs())]);
        }
        Call::Typed(action) => {
            arguments.extend(["do".into(), action.kind().into()]);
            arguments.extend(action.params());
        }
    }
    let how = ["--on", on, "--reason", reason, "--timeout", call.timeout()];
    let how = how.iter().chain(&["--detach", "--yes", "--output", "json"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(how.copied()).collect();
    let from = now();
    let answer = chaos.fleet.exec(&arguments);
    let span = Span { from, until: now() };
    let (answer, number) = match answer {
        Err(problem) => (Answer::Unknown(format!("{problem:#}")), None),
        Ok(finished) => {
            let said = finished.error_text();
            match finished.status.code() {
                Some(0) => {
                    let operation: Option<serde_json::Value> = serde_json::from_str(&finished.text()).ok();
                    let number =
                        operation.and_then(|operation| Some(operation["number"].as_str()?.to_owned()));
                    (Answer::Taken, number)
                }
                // The last: the CLI asked again, and the controller does not know how far the first request came.
                _ if ["cannot reach", "does not answer", "idempotency key has no answer"]
                    .iter()
                    .any(|unknown| said.contains(unknown)) =>
                {
                    (Answer::Unknown(said), None)
                }
                _ => (Answer::Refused(said), None),
            }
        }
    };
    chaos.diary.note(&format!(
        "{reason}: {} on {on}: {} {answer:?}",
        call,
        number.as_deref().unwrap_or_default()
    ));
    chaos.asked(Asked { reason: reason.to_owned(), call, span, answer: answer.clone() });
    (answer, number)
}

/// Stops what is due. A stop whose answer did not come is asked for again.
fn carry_out_stops(chaos: &Chaos, stops: &mut Vec<Stop>) {
    stops.retain(|stop| {
        if stop.at > Instant::now() {
            return true;
        }
        // It may be carried out though the answer gets lost.
        chaos.stopped(&stop.number);
        let answer = chaos.fleet.exec(&["op", "stop", &stop.number]);
        let done = answer.as_ref().is_ok_and(|finished| finished.status.code() != Some(4));
        chaos.diary.note(&format!("stop {}: {}", stop.number, if done { "answered" } else { "no answer" }));
        !done
    });
}
