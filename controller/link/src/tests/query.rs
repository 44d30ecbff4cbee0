//! Queries, and hosts that answer them as they should and otherwise.

use fleetward_app::people::access::ReadOutput;
use std::time::Duration;

use fleetward_app::fleet::target::NotEnrolledHosts;
use fleetward_app::work::query::{self, Answer, Answers, Asked, QueryError, State};

use fleetward_protocol::action::{ActionRequest, Contract as _};
use fleetward_protocol::message::{
    AgentMessage, ControllerMessage, OpenQuery, QueryItem, QueryUp, StreamKind,
};
use fleetward_protocol::order::{Authority, Order};
use fleetward_protocol::query::units::Units;
use fleetward_protocol::query::{Contract, MAX_ITEM};
use fleetward_protocol::run::Refusal;
use fleetward_protocol::text::{List, Text};
use fleetward_protocol::wire::{MAX_QUERY_FRAME, close};
use fleetward_store::testing::{allow_audit, refuse_audit};
use quinn::SendStream;
use tokio::time::timeout;

use super::controller::TestController;
use super::host::Session;
use super::{SOON, enrolled};
use crate::frame::{self, Frames};

fn asked(on: &str, follow: bool) -> Asked {
    Asked {
        kind: "units".to_owned(),
        params: serde_json::Map::new(),
        on: on.to_owned(),
        not_enrolled: NotEnrolledHosts::LeaveOut,
        follow,
    }
}

async fn ask(controller: &TestController, on: &str, follow: bool) -> Answers {
    let permit = controller.permit::<ReadOutput>();
    query::ask(controller.app(), &permit, asked(on, follow)).await.unwrap()
}

async fn next(answers: &mut Answers) -> Answer {
    timeout(6 * SOON, answers.next()).await.expect("it is told within a minute").expect("it is not the end")
}

/// The host's side of a query's stream.
struct QueryStream {
    open: OpenQuery,
    send: SendStream,
    frames: Frames,
}

async fn accept(session: &Session) -> QueryStream {
    let (send, mut frames) = timeout(SOON, session.accept_stream(StreamKind::Query)).await.unwrap();
    let open = frames.next().await.unwrap().unwrap();
    QueryStream { open, send, frames }
}

impl QueryStream {
    async fn say(&mut self, said: &QueryUp) {
        // A controller that gave the stream up is seen in what it tells.
        let _ = frame::send(&mut self.send, said, MAX_QUERY_FRAME).await;
    }
}

fn item(key: &str, json: &str) -> QueryItem {
    QueryItem { key: Text::of(key), item: json.parse().unwrap() }
}

fn items(items: impl IntoIterator<Item = QueryItem>) -> QueryUp {
    QueryUp::Items(List::of(items))
}

fn told_state(told: Answer) -> (State, String) {
    match told {
        Answer::Host { state, detail, .. } => (state, detail.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn hosts_tell_what_they_have_and_who_is_not_there_is_told() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let (_, _) = enrolled(&controller, "web-2").await;
    controller.add_host("web-3").await;
    let session = host.connect().await;
    let mut answers = ask(&controller, "all", false).await;
    let mut stream = accept(&session).await;

    // An order like a run's: for this host, by this person, in time, for a query.
    let order = Order::open(&stream.open.order).unwrap();
    assert_eq!((&order.client, order.issuer.as_str()), (&host.client, "admin"));
    assert_eq!(order.limits.timeout_ms, 30_000);
    assert!(order.wait(Duration::from_millis(stream.open.remaining_ms)).is_some());
    let request = ActionRequest { kind: "units".to_owned(), params: "{}".to_owned() };
    assert_eq!(order.authority, Authority::Query(request));
    assert!(!stream.open.follow);

    stream.say(&items([item("a.service", r#"{"active":"failed"}"#), item("b.service", "{}")])).await;
    stream.say(&QueryUp::Complete).await;
    stream.say(&QueryUp::Ended).await;
    let (mut states, mut seen) = (Vec::new(), Vec::new());
    let end = loop {
        match next(&mut answers).await {
            Answer::Items { host, items } => {
                assert_eq!(host.as_str(), "web-1");
                seen.extend(items.into_iter().map(|(key, fields)| format!("{key} {}", fields.len())));
            }
            Answer::Host { host, state, detail } => states.push((host.to_string(), state, detail.is_some())),
            Answer::Gone { .. } => panic!("nothing is gone"),
            end @ Answer::End { .. } => break end,
        }
    };
    assert_eq!(seen, ["a.service 1", "b.service 0"]);
    states.sort_by(|one, other| one.0.cmp(&other.0));
    // The test's clock stands still: this controller has just started.
    let expected = [("web-1", State::Ended, false), ("web-2", State::Offline, true)];
    assert_eq!(states, expected.map(|(name, state, detail)| (name.to_owned(), state, detail)));
    assert_eq!(end, Answer::End { hosts: 2, left_out: 1, answered: 1, cut: None });
    assert_eq!(answers.next().await, None);
    // Once, and with what was asked.
    let audited = controller.audited("query.asked").await;
    assert_eq!(audited.len(), 1);
    let event = &audited[0].event;
    assert_eq!((event.actor.as_str(), event.subject.as_str()), ("admin", "units"));
    assert_eq!((&event.details["on"], &event.details["hosts"]), (&"all".into(), &2.into()));
    assert_eq!(event.details["left_out"], 1);
    assert_eq!((&event.details["params"], &event.details["follow"]), (&serde_json::json!({}), &false.into()));
}

#[tokio::test]
async fn what_changes_is_told_until_nobody_listens() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    let mut answers = ask(&controller, "web-1", true).await;
    let mut stream = accept(&session).await;
    assert!(stream.open.follow);
    stream.say(&QueryUp::Complete).await;
    assert_eq!(told_state(next(&mut answers).await), (State::Complete, String::new()));
    stream.say(&items([item("a", "{}")])).await;
    let told = Answer::Items { host: name.clone(), items: vec![(Text::of("a"), serde_json::Map::new())] };
    assert_eq!(next(&mut answers).await, told);
    stream.say(&QueryUp::Gone(List::of([Text::of("a")]))).await;
    assert_eq!(next(&mut answers).await, Answer::Gone { host: name, keys: vec![Text::of("a")] });
    drop(answers);
    // The controller's direction ends: so does the query on the host.
    let end = timeout(SOON, stream.frames.next::<OpenQuery>()).await.unwrap();
    assert!(matches!(end, Ok(None)), "{end:?}");
    assert!(session.connection.close_reason().is_none());
}

#[tokio::test]
async fn a_host_that_leaves_is_told_and_the_others_go_on() {
    let controller = TestController::start().await;
    let (_, one) = enrolled(&controller, "web-1").await;
    let (_, other) = enrolled(&controller, "web-2").await;
    let (one, other) = (one.connect().await, other.connect().await);
    let mut answers = ask(&controller, "all", true).await;
    let mut leaving = accept(&one).await;
    let mut staying = accept(&other).await;
    for stream in [&mut leaving, &mut staying] {
        stream.say(&QueryUp::Complete).await;
        assert_eq!(told_state(next(&mut answers).await).0, State::Complete);
    }
    one.connection.close(0u8.into(), b"cut");
    let (state, detail) = told_state(next(&mut answers).await);
    assert!(state == State::Failed && detail.contains("lost; ask again"), "{detail}");
    staying.say(&items([item("a", "{}")])).await;
    assert!(matches!(next(&mut answers).await, Answer::Items { .. }));
    staying.say(&QueryUp::Ended).await;
    assert_eq!(told_state(next(&mut answers).await).0, State::Ended);
    assert_eq!(next(&mut answers).await, Answer::End { hosts: 2, left_out: 0, answered: 1, cut: None });
}

/// Whatever a host says, what is told is bounded and printable, the answer ends with a reason, and the session goes on.
#[tokio::test]
async fn a_host_that_says_what_it_may_not_is_not_heard_any_longer() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    let deep = format!("{}{}", "{\"a\":".repeat(20) + "{", "}".repeat(21));
    let cases: Vec<(Vec<QueryUp>, &str)> = vec![
        (vec![items([item("a", "[1]")])], "`a` what cannot be shown: it is not an object"),
        (vec![items([item("a", "{")])], "it is not JSON"),
        (vec![items([item("a", &deep)])], "nested deeper"),
        (vec![items([item("a", "{\"x\":\"\\u001b[2J\"}")])], "not printable"),
        (vec![QueryUp::Gone(List::of([Text::of("a")]))], "what it may not now"),
        (vec![QueryUp::Complete, QueryUp::Complete], "what it may not now"),
        (vec![QueryUp::Ended], "what it may not now"),
        (vec![items([]), QueryUp::Refused(Refusal::NotYet)], "what it may not now"),
        (vec![QueryUp::Failed { detail: Text::of("no bus here") }], "no bus here"),
    ];
    for (said, told) in cases {
        let mut answers = ask(&controller, "web-1", true).await;
        let mut stream = accept(&session).await;
        for said in &said {
            stream.say(said).await;
        }
        let (state, detail) = last_state(&mut answers).await;
        assert!(state == State::Failed && detail.contains(told), "{said:?}: {detail}");
    }
    assert!(session.connection.close_reason().is_none());
}

/// The state of the only host with which its answer ends.
async fn last_state(answers: &mut Answers) -> (State, String) {
    let mut last = None;
    loop {
        match next(answers).await {
            Answer::End { hosts: 1, .. } => return last.expect("a host's end is told before the whole"),
            told @ Answer::Host { .. } => last = Some(told_state(told)),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_host_that_says_too_much_or_no_message_at_all_is_not_heard_any_longer() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let (mut session, mut seq) = (host.connect().await, 0);
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_ITEM - 8));
    let (most, bytes) = (<Units as Contract>::MAX_ITEMS, <Units as Contract>::MAX_BYTES);
    for (portion, times, told) in [
        // More items than there can be, more bytes, and nothing at all, over and over.
        (items((0..256).map(|_| item("a", "{}"))), most / 256 + 1, "16384 items"),
        (items((0..12).map(|_| item("a", &large))), bytes / (12 * MAX_ITEM) + 1, "bytes"),
        (items([]), most + 1, "16384 items"),
    ] {
        let mut answers = ask(&controller, "web-1", false).await;
        let mut stream = accept(&session).await;
        let flood = async {
            for said in 0..times {
                stream.say(&portion).await;
                if said % (times / 16 + 1) == 0 {
                    // The host is there all the while.
                    seq += 1;
                    session.say(&AgentMessage::Heartbeat { seq, clock: host.clock }).await;
                }
            }
        };
        let ((), (state, detail)) = tokio::join!(flood, last_state(&mut answers));
        assert!(state == State::Failed && detail.contains(told), "{detail}");
    }
    // A frame above the cap, bytes that are no message, and an end in the middle.
    for (bytes, told) in [
        (&[0xff, 0xff, 0xff, 0x7f][..], "could not be read"),
        (&[4, 0, 0, 0, 99, 0, 0, 0], "could not be read"),
        (&[4, 0], "in the middle"),
        (&[], "in the middle"),
    ] {
        let mut answers = ask(&controller, "web-1", false).await;
        let mut stream = accept(&session).await;
        stream.send.write_all(bytes).await.unwrap();
        stream.send.finish().unwrap();
        let (state, detail) = last_state(&mut answers).await;
        assert!(state == State::Failed && detail.contains(told), "{bytes:?}: {detail}");
    }
    let mut answers = ask(&controller, "web-1", false).await;
    let mut stream = accept(&session).await;
    stream.send.reset(7u8.into()).unwrap();
    let (state, detail) = last_state(&mut answers).await;
    assert!(state == State::Failed && detail.contains("ask again"), "{detail}");
    assert!(session.connection.close_reason().is_none());
}

#[tokio::test]
async fn nothing_is_asked_when_it_cannot_be_written_down_who_asked() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    refuse_audit(controller.app().store()).await;
    let permit = controller.permit::<ReadOutput>();
    let error = query::ask(controller.app(), &permit, asked("web-1", false)).await.unwrap_err();
    assert!(matches!(error, QueryError::Store(_)), "{error}");
    // The first query that the host hears of is the one after that.
    allow_audit(controller.app().store()).await;
    let mut answers = ask(&controller, "web-1", false).await;
    let mut stream = accept(&session).await;
    stream.say(&QueryUp::Complete).await;
    stream.say(&QueryUp::Ended).await;
    assert_eq!(told_state(next(&mut answers).await).0, State::Ended);
    let orders = controller.audited("query.asked").await.len();
    assert_eq!(orders, 1);
}

#[tokio::test]
async fn a_host_that_cannot_or_will_not_answer_says_so() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    for (refusal, told) in [
        (
            Refusal::Unsupported { kind: Text::of("units") },
            "does not know the kind `units`; update the agent",
        ),
        (Refusal::NotAllowed { rule: Text::of("policy.kinds") }, "own policy does not allow it"),
    ] {
        let mut answers = ask(&controller, "web-1", false).await;
        let mut stream = accept(&session).await;
        stream.say(&QueryUp::Refused(refusal)).await;
        let (state, detail) = last_state(&mut answers).await;
        assert!(state == State::Refused && detail.contains(told), "{detail}");
    }
    // Whoever is busy is asked again; whoever refuses is not.
    let mut answers = ask(&controller, "web-1", false).await;
    let mut stream = accept(&session).await;
    stream.say(&QueryUp::Refused(Refusal::Busy { detail: Text::of("8 queries") })).await;
    let (state, detail) = last_state(&mut answers).await;
    assert!(state == State::Failed && detail.contains("ask again later"), "{detail}");
    // An agent of before does not know such a stream.
    let mut answers = ask(&controller, "web-1", false).await;
    let mut stream = accept(&session).await;
    stream.send.reset(close::UNSUPPORTED.into()).unwrap();
    stream.frames.stop(close::UNSUPPORTED);
    let (state, detail) = last_state(&mut answers).await;
    assert!(state == State::Refused && detail.contains("does not answer queries; update it"), "{detail}");
}

/// A host that is silent is waited for as long as its kind says, and not longer.
#[tokio::test]
async fn a_host_that_is_silent_is_not_waited_for_for_ever() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let mut session = host.connect().await;
    let mut answers = ask(&controller, "web-1", true).await;
    let mut stream = accept(&session).await;
    stream.say(&items([item("a", "{}")])).await;
    assert!(matches!(next(&mut answers).await, Answer::Items { .. }));
    // The clock jumps from heartbeat to heartbeat: the host is there, and says nothing to this.
    for seq in 1..=23 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        session.say(&AgentMessage::Heartbeat { seq, clock: host.clock }).await;
        assert_eq!(session.hear().await, ControllerMessage::Heartbeat { seq });
    }
    let (state, detail) = last_state(&mut answers).await;
    assert!(state == State::Failed && detail.contains("within 45 s"), "{detail}");
    assert!(session.connection.close_reason().is_none());
}

/// Nothing is read from a host while nobody takes what it said.
#[tokio::test]
async fn a_reader_that_stops_stops_the_host() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let session = host.connect().await;
    let mut answers = ask(&controller, "web-1", false).await;
    let mut stream = accept(&session).await;
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_ITEM - 8));
    let portion = items((0..12).map(|_| item("a", &large)));
    let most = <Units as Contract>::MAX_BYTES / (12 * (MAX_ITEM + 1));
    let mut said = 0;
    // The transport's window and some messages are all that goes anywhere.
    while said < most && timeout(Duration::from_secs(1), stream.say(&portion)).await.is_ok() {
        said += 1;
    }
    assert!(said < most, "{said} portions went to nobody");
    let mut taken = 0;
    while let Answer::Items { .. } = next(&mut answers).await {
        taken += 1;
        if taken == said {
            break;
        }
    }
}

#[tokio::test]
async fn only_who_may_asks_only_what_there_is() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let _session = host.connect().await;
    let permit = controller.permit::<ReadOutput>();
    let refused = async |asked: Asked| query::ask(controller.app(), &permit, asked).await.unwrap_err();
    let error = refused(Asked { kind: "unitz".into(), ..asked("all", false) }).await;
    assert!(matches!(&error, QueryError::NoKind { nearest: Some("units"), .. }), "{error}");
    assert!(error.to_string().contains("did you mean `units`?"), "{error}");
    let unit = fleetward_protocol::action::unit::Unit::KIND;
    let error = refused(Asked { kind: unit.into(), ..asked("all", false) }).await;
    assert!(error.to_string().contains("`unit` changes something"), "{error}");
    let params = serde_json::Map::from_iter([("x".to_owned(), 1.into())]);
    assert!(matches!(refused(Asked { params, ..asked("all", false) }).await, QueryError::Invalid(_)));
    assert!(matches!(refused(asked("nobody", false)).await, QueryError::Select(_)));
    assert!(!controller.has_audited("query.asked").await);
    // Another tenant has no host of this name.
    let elsewhere = controller.permit_elsewhere::<ReadOutput>("other").await;
    let error = query::ask(controller.app(), &elsewhere, asked("web-1", false)).await.unwrap_err();
    assert!(matches!(error, QueryError::Select(_)), "{error}");
}

#[tokio::test]
async fn what_is_open_and_what_is_followed_is_bounded() {
    let controller = TestController::start().await;
    for number in 0..=query::MAX_FOLLOWED {
        controller.add_absent_host(&format!("web-{number}")).await;
    }
    let permit = controller.permit::<ReadOutput>();
    let error = query::ask(controller.app(), &permit, asked("all", true)).await.unwrap_err();
    assert!(error.to_string().contains("201 hosts are more than the 200"), "{error}");
    let mut answers = ask(&controller, "all", false).await;
    let mut offline = 0;
    while let Answer::Host { state: State::Offline, .. } = next(&mut answers).await {
        offline += 1;
    }
    assert_eq!(offline, 201);
    // Nobody takes what these tell: they stay open.
    let mut open = Vec::new();
    let error = loop {
        match query::ask(
            controller.app(),
            &permit,
            asked("web-0 | web-1 | web-2 | web-3 | web-4 | web-5 | web-6", false),
        )
        .await
        {
            Ok(answers) => open.push(answers),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, QueryError::OwnBusy) && open.len() == 16, "{error} {}", open.len());
    // A place comes back with the end of an answer.
    drop(open.pop());
    let mut error = None;
    for _ in 0..200 {
        tokio::task::yield_now().await;
        error = query::ask(controller.app(), &permit, asked("web-0", false)).await.err();
    }
    let error = error.unwrap();
    assert!(matches!(error, QueryError::TooOften(_)), "{error}");
    controller.clock.advance(Duration::from_secs(60));
    drop(open);
    while let Err(error) = query::ask(controller.app(), &permit, asked("web-0", false)).await {
        assert!(matches!(error, QueryError::OwnBusy), "{error}");
        tokio::task::yield_now().await;
    }
    assert!(controller.audited("query.asked").await.len() < 140, "nobody fills the audit log by asking");
}
