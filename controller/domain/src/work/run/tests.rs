use fleetward_protocol::text::Text;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const DEADLINE: Timestamp = Timestamp::from_millis(1000);

fn journal(number: u128) -> JournalId {
    JournalId::from_uuid(Uuid::from_u128(number))
}

fn samples<T>(options: Vec<T>) -> impl Strategy<Value = T>
where
    T: Clone + fmt::Debug + 'static,
{
    prop::sample::select(options)
}

fn causes() -> Vec<Cause> {
    vec![
        Cause::Requested,
        Cause::Halted,
        Cause::HostRevoked,
        Cause::PreviousStepFailed,
        Cause::HostOffline,
        Cause::Unknown,
    ]
}

fn lost_causes() -> Vec<LostCause> {
    use LostCause::{HostGone, JournalGone, Reboot, SpoolUnreadable, SupervisorGone, Unknown};
    vec![Reboot, SupervisorGone, JournalGone, SpoolUnreadable, HostGone, Unknown]
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::ClientIdMissing,
        Refusal::ClientIdMismatch { found: Text::of("x") },
        Refusal::NotBash,
        Refusal::DeadlinePassed,
        Refusal::CancelledBeforeStart,
    ]
}

fn states() -> Vec<RunState> {
    let mut states = vec![RunState::Queued, RunState::Succeeded, RunState::TimedOut, RunState::Expired];
    for cancel in [None, Some(Cause::Requested), Some(Cause::Halted)] {
        let custody = Custody { journal: journal(1), cancel };
        states.extend([
            RunState::Dispatched(custody),
            RunState::Accepted(custody),
            RunState::Running(custody),
        ]);
    }
    states.extend([RunState::Failed(Failure::Exit(3)), RunState::Failed(Failure::Signal(9))]);
    states.extend(causes().into_iter().map(RunState::Cancelled));
    states.extend(refusals().into_iter().take(3).map(RunState::Refused));
    states.extend(lost_causes().into_iter().map(RunState::Lost));
    states
}

fn events() -> Vec<RunEvent> {
    let mut events = vec![
        RunEvent::Dispatched { journal: journal(1), deadline: DEADLINE },
        RunEvent::Dispatched { journal: journal(2), deadline: DEADLINE },
        RunEvent::Accepted,
        RunEvent::Started,
        RunEvent::Unknown,
        RunEvent::Held { journal: journal(1) },
        RunEvent::NotOrdered(Refusal::NotBash),
        RunEvent::Reconnected { journal: journal(1) },
        RunEvent::Reconnected { journal: journal(2) },
        RunEvent::Expire { deadline: DEADLINE },
        RunEvent::HostGone,
    ];
    let outcomes = [
        Outcome::Exited(0),
        Outcome::Exited(3),
        Outcome::Signalled(9),
        Outcome::TimedOut,
        Outcome::Cancelled,
    ];
    events.extend(outcomes.into_iter().map(RunEvent::Finished));
    events.extend(lost_causes().into_iter().map(|cause| RunEvent::Finished(Outcome::Lost(cause))));
    events.extend(refusals().into_iter().map(RunEvent::Refused));
    events.extend(causes().into_iter().map(RunEvent::Cancel));
    events
}

fn times() -> [Timestamp; 3] {
    [Timestamp::from_millis(0), Timestamp::from_millis(999), DEADLINE]
}

#[test]
fn the_table_is_exactly_what_apply_does() {
    let mut seen = BTreeSet::new();
    for state in states() {
        for event in events() {
            for now in times() {
                let Ok(next) = state.clone().apply(&event, now) else { continue };
                if next.status() != state.status() {
                    seen.insert((state.status(), event.name(), next.status()));
                }
            }
        }
    }
    assert_eq!(seen, TRANSITIONS.iter().copied().collect());
    assert_eq!(TRANSITIONS.len(), seen.len(), "a transition is listed twice");
}

#[test]
fn the_diagram_in_the_documentation_is_the_table() {
    const BEGIN: &str = "<!-- printed from the transition table by a test: change controller/domain/src/work/run.rs instead -->\n";
    const END: &str = "<!-- end of the printed part -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/run-life.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let printed = format!("{before}{BEGIN}\n{}\n{END}{after}", diagram());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, printed).unwrap();
    } else {
        assert_eq!(page, printed, "docs/run-life.md is out of date; run `cargo xtask bless`");
    }
}

fn diagram() -> String {
    let mut arrows: BTreeMap<(RunStatus, RunStatus), Vec<&str>> = BTreeMap::new();
    for (from, event, to) in TRANSITIONS {
        arrows.entry((*from, *to)).or_default().push(event);
    }
    let mut text = "```mermaid\nstateDiagram-v2\n    [*] --> queued\n".to_owned();
    for ((from, to), events) in arrows {
        writeln!(text, "    {from} --> {to}: {}", events.join(", ")).unwrap();
    }
    for status in RunStatus::ALL.into_iter().filter(|status| status.is_final()) {
        writeln!(text, "    {status} --> [*]").unwrap();
    }
    text + "```\n"
}

#[test]
fn every_name_reads_back() {
    for status in RunStatus::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
        assert_eq!(RunStatus::ALL[status as usize], status);
    }
    assert!("done".parse::<RunStatus>().is_err());
}

#[test]
fn a_cancel_that_loses_the_race_reports_what_really_happened() {
    let now = Timestamp::from_millis(0);
    let mut run = RunState::Queued;
    for event in [
        RunEvent::Dispatched { journal: journal(1), deadline: DEADLINE },
        RunEvent::Cancel(Cause::Requested),
        RunEvent::Accepted,
        RunEvent::Started,
    ] {
        run = run.apply(&event, now).unwrap();
    }
    assert_eq!(run.custody().unwrap().cancel, Some(Cause::Requested));
    let done = run.clone().apply(&RunEvent::Finished(Outcome::Exited(0)), now).unwrap();
    assert_eq!(done, RunState::Succeeded);
    assert_eq!(done.clone().apply(&RunEvent::Cancel(Cause::Halted), now), Ok(done));
    let stopped = run.apply(&RunEvent::Finished(Outcome::Cancelled), now).unwrap();
    assert_eq!(stopped, RunState::Cancelled(Cause::Requested));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens: handed out at most once and to one journal, a final state stays, and a repeated
    /// report changes nothing.
    #[test]
    fn a_run_is_handed_out_once_and_ends_once(
        story in prop::collection::vec((samples(events()), samples(times().to_vec())), 0..40)
    ) {
        let mut run = RunState::Queued;
        let mut handed_out_to = None;
        for (event, now) in story {
            let before = run.clone();
            let Ok(after) = run.clone().apply(&event, now) else {
                // A second hand-out is refused before anything is sent.
                if let RunEvent::Dispatched { journal, .. } = event {
                    prop_assert!(handed_out_to != Some(journal) || before.status() != RunStatus::Dispatched);
                }
                continue;
            };
            if let RunEvent::Dispatched { journal, deadline } = event {
                prop_assert!(handed_out_to.is_none_or(|to| to == journal), "handed to a second journal");
                prop_assert!(now < deadline || handed_out_to.is_some());
                handed_out_to = Some(journal);
            }
            if let (RunEvent::Held { journal }, RunState::Queued) = (&event, &before) {
                prop_assert_eq!(handed_out_to, None, "a hand-out that is known is not forgotten");
                handed_out_to = Some(*journal);
            }
            if before.status().is_final() {
                prop_assert_eq!(&after, &before);
            }
            prop_assert!(after.status() >= before.status() || after.status().is_final(), "a state went back");
            prop_assert_eq!(after.clone().apply(&event, now).ok(), Some(after.clone()), "not idempotent");
            run = after;
        }
    }
}
