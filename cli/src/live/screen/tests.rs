//! What stands on the screen, and in which words.

use clap::Parser as _;
use expect_test::expect;
use fleetward_api::work::run::RunState;

use super::absence::SETTLED;
use super::*;
use crate::args::Cli;

const HOSTS: [&str; 2] = ["web-1", "database-1"];

fn out(options: &str) -> Out {
    Out::new(&Cli::parse_from(["fleetward", "version", "--color", options]).globals)
}

fn run(host: &str, state: RunState, change: impl FnOnce(&mut Run)) -> Run {
    let index = HOSTS.iter().position(|name| *name == host).unwrap();
    let mut run = Run {
        id: format!("01890000-0000-7000-8000-00000000000{index}").parse().unwrap(),
        operation: "01890000-0000-7000-8000-00000000000a".parse().unwrap(),
        host: host.parse().unwrap(),
        step: 0,
        kind: "k".to_owned(),
        subject: "baseline".to_owned(),
        digest: "0".repeat(64).parse().unwrap(),
        state,
        state_detail: None,
        exit_code: None,
        signal: None,
        dispatched_at: None,
        started_at: None,
        ended_at: None,
        duration_ms: None,
        left: None,
        report: None,
        output_bytes: 0,
        output_dropped: 0,
        reattached: 0,
        seq: 1,
    };
    change(&mut run);
    run
}

fn event(name: &str, data: &impl serde::Serialize) -> ServerEvent {
    ServerEvent { name: name.to_owned(), data: serde_json::to_string(data).unwrap(), id: None }
}

fn wrote(host: &str, stream: OutputStream, text: &str) -> ServerEvent {
    let run = run(host, RunState::Running, |_| {});
    let at = "2026-01-02T03:04:05.678Z".parse().unwrap();
    let piece = OutputPiece {
        stream: Some(stream),
        at,
        text: Some(text.to_owned()),
        base64: None,
        dropped: None,
        step: None,
    };
    event("output", &OutputEvent { run: run.id, host: run.host, pieces: vec![piece] })
}

/// What would be written: `>` before lines for standard output, `#` before notes.
fn shown(out: &Out, events: &[ServerEvent]) -> String {
    let mut screen = Screen::new(out, Options::default(), HOSTS.into_iter(), Instant::now());
    for each in events {
        screen.event(each).unwrap();
    }
    let mut text = String::new();
    for (target, part) in &screen.pending.parts {
        let mark = if *target == Target::Output { '>' } else { '#' };
        for line in part.lines() {
            text.push_str(&format!("{mark} {}\n", line.escape_debug()));
        }
    }
    text
}

#[test]
fn output_stands_behind_its_host_and_ends_are_told_in_words() {
    let base64 = OutputPiece {
        stream: Some(OutputStream::Stdout),
        at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        text: None,
        base64: Some("/w==".to_owned()),
        dropped: None,
        step: None,
    };
    let gap = OutputPiece { stream: None, base64: None, dropped: Some(123 << 20), ..base64.clone() };
    let web = run("web-1", RunState::Running, |_| {});
    let events = [
        event(
            "run",
            &run("web-1", RunState::Queued, |run| run.state_detail = Some("waiting for host".into())),
        ),
        wrote("web-1", OutputStream::Stdout, "hel"),
        wrote("database-1", OutputStream::Stderr, "\x1b]0;pwned\x07 warning\n"),
        wrote("web-1", OutputStream::Stdout, "lo\n\nunfinished "),
        event("output", &OutputEvent { run: web.id, host: web.host, pieces: vec![base64, gap] }),
        event("run", &run("web-1", RunState::Running, |run| run.reattached = 1)),
        wrote("web-1", OutputStream::Stdout, "the end"),
        event(
            "run",
            &run("web-1", RunState::Failed, |run| {
                run.exit_code = Some(3);
                run.duration_ms = Some(1234);
                run.reattached = 1;
            }),
        ),
        event(
            "run",
            &run("database-1", RunState::Lost, |run| run.state_detail = Some("host was rebooted".into())),
        ),
        event("news", &"of a later version"),
    ];
    expect![[r#"
        > database-1 ! ␛]0;pwned␇ warning
        > web-1      | hello
        > web-1      |
        > web-1      | unfinished �
        > web-1       [… 123 MiB dropped by the output limit or a full disk …]
        # web-1      ↻ re-attached
        > web-1      | the end
        # web-1      ✗ failed: exit code 3 (1.2 s), re-attached
        # database-1 ✗ lost: host was rebooted
    "#]]
    .assert_eq(&shown(&out("never"), &events));
}

#[test]
fn a_host_keeps_its_colour_and_cannot_leave_its_own_behind() {
    let events = [wrote("web-1", OutputStream::Stdout, "\x1b[31mred\n\x1b[8mhidden\n")];
    expect![[r#"
        > \u{1b}[38;5;33mweb-1     \u{1b}[0m \u{1b}[2m|\u{1b}[0m \u{1b}[31mred\u{1b}[0m
        > \u{1b}[38;5;33mweb-1     \u{1b}[0m \u{1b}[2m|\u{1b}[0m hidden
    "#]]
    .assert_eq(&shown(&out("always"), &events));
}

#[test]
fn runs_are_described_in_words_that_a_person_understands() {
    let detail = |text: &str| {
        let text = text.to_owned();
        move |run: &mut Run| run.state_detail = Some(text)
    };
    for (run, text) in [
        (run("web-1", RunState::Queued, detail("waiting for host")), "waiting for host"),
        (run("web-1", RunState::Queued, |_| {}), "queued"),
        (run("web-1", RunState::Dispatched, |_| {}), "sent"),
        (run("web-1", RunState::Lost, detail("host was rebooted")), "lost: host was rebooted"),
        (run("web-1", RunState::Failed, |run| run.signal = Some(9)), "failed: ended by signal 9"),
        (run("web-1", RunState::Failed, detail("failed with exit code 3")), "failed with exit code 3"),
        (run("web-1", RunState::TimedOut, |_| {}), "timed out"),
        (run("web-1", RunState::Expired, detail("the deadline passed")), "expired: the deadline passed"),
    ] {
        assert_eq!(words::run(&run), text);
    }
    let remarks = |reattached, output_dropped| {
        words::run_remarks(&run("web-1", RunState::Running, |run| {
            (run.reattached, run.output_dropped) = (reattached, output_dropped);
        }))
    };
    assert_eq!(remarks(0, 0), "");
    assert_eq!(remarks(1, 0), "re-attached");
    assert_eq!(remarks(2, 5 << 20), "re-attached 2 times, 5.0 MiB of output dropped");
}

#[test]
fn runs_are_counted_where_they_stand_now() {
    let mut tally = Tally::default();
    tally.take(run("web-1", RunState::Queued, |run| run.state_detail = Some(words::WAITING.to_owned())));
    tally.take(run("database-1", RunState::Queued, |_| {}));
    assert_eq!(tally.words(), "1 waiting for host · 1 queued");
    tally.take(run("web-1", RunState::Running, |_| {}));
    tally.take(run("database-1", RunState::Expired, |_| {}));
    assert_eq!(tally.words(), "1 failed · 1 running");
    tally.take(run("web-1", RunState::Succeeded, |_| {}));
    assert_eq!((tally.ended(), tally.known(), tally.succeeded()), (2, 2, 1));
    assert_eq!(tally.failures().len(), 1);
}

fn host(name: &str, status: &str) -> Host {
    serde_json::from_value(serde_json::json!({
        "id": "01890000-0000-7000-8000-000000000001", "name": name, "tenant": "default",
        "client_id": "LINKOPS-00000000-0000-4000-8000-000000000007", "type": "VM", "provider": "", "tags": [],
        "source": "api", "lifecycle": "active", "enrolment": "enrolled", "status": status,
        "created_at": "2026-01-02T03:04:05.000Z", "last_seen": null,
    }))
    .unwrap()
}

#[test]
fn hosts_that_are_waited_for_are_named_once_and_only_when_no_other_is_at_work() {
    let out = out("never");
    let mut screen = Screen::new(&out, Options::default(), HOSTS.into_iter(), Instant::now());
    let waiting = |run: &mut Run| run.state_detail = Some(words::WAITING.to_owned());
    screen.event(&event("run", &run("web-1", RunState::Queued, waiting))).unwrap();
    screen.event(&event("run", &run("database-1", RunState::Running, |_| {}))).unwrap();
    let later = Instant::now() + SETTLED;
    assert!(screen.waits_for(Instant::now()).is_empty(), "it has not settled");
    assert_eq!(screen.waits_for(later).len(), 2);
    let said = |screen: &mut Screen<'_>, hosts: &[Host]| {
        screen.take_hosts(hosts);
        let text: String = screen.pending.parts.drain(..).map(|(_, part)| part).collect();
        text
    };
    let online = [host("web-1", "offline"), host("database-1", "online")];
    assert_eq!(said(&mut screen, &online), "");
    let away = [host("web-1", "offline"), host("database-1", "offline")];
    let text = said(&mut screen, &away);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("web-1      … waiting: offline; its run starts when it is back"), "{text}");
    assert!(
        text.contains("database-1 … waiting: offline; it may have its run, and only the host can tell"),
        "{text}"
    );
    assert_eq!(said(&mut screen, &away), "");
    assert!(screen.waits_for(later).is_empty(), "all is said");
}

fn operation(steps: &[&str], left_out: u32) -> Operation {
    let step = |subject: &&str| serde_json::json!({ "kind": "k", "subject": subject, "digest": "0".repeat(64), "params": {} });
    serde_json::from_value(serde_json::json!({
        "id": "01890000-0000-7000-8000-00000000000a", "number": "OP-1", "on": "all", "left_out": left_out,
        "rollout": {}, "steps": steps.iter().map(step).collect::<Vec<_>>(), "status": "running", "counts": [],
        "hosts": 2, "created_by": "ann", "created_at": "2026-01-02T03:04:05.000Z",
        "deadline": "2026-01-02T03:04:05.000Z", "seq": 1,
    }))
    .unwrap()
}

/// Runs are told before the operation itself is: how many steps it has is known from the beginning.
#[test]
fn ends_of_several_steps_name_the_step() {
    let out = out("never");
    let ended = event("run", &run("web-1", RunState::Succeeded, |_| {}));
    for (steps, told) in [
        (vec!["baseline"], "web-1      ✓ succeeded\n"),
        (vec!["baseline", "other"], "web-1      ✓ baseline: succeeded\n"),
    ] {
        let screen = Screen::new(&out, Options::default(), HOSTS.into_iter(), Instant::now());
        let mut screen = screen.of(operation(&steps, 0));
        screen.event(&ended).unwrap();
        let text: String = screen.pending.parts.drain(..).map(|(_, part)| part).collect();
        assert_eq!(text, told);
    }
}

#[test]
fn the_last_line_tells_how_many_hosts_were_left_out() {
    let out = out("never");
    let told = |left_out: u32| {
        let screen = Screen::new(&out, Options::default(), HOSTS.into_iter(), Instant::now());
        let mut operation = operation(&["baseline"], left_out);
        operation.status_detail = Some("1 run was cancelled: hosts that are offline are skipped".to_owned());
        operation.started_at = Some(operation.created_at);
        operation.ended_at = Some(operation.created_at);
        screen.last_line(&operation)
    };
    let detail = "; 1 run was cancelled: hosts that are offline are skipped";
    assert_eq!(told(0), format!("OP-1 running: 0 of 0 runs succeeded in 0 ms{detail}"));
    assert_eq!(
        told(2),
        format!("OP-1 running: 0 of 0 runs succeeded in 0 ms; 2 hosts not enrolled, left out{detail}")
    );
}
