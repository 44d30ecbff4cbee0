//! What the log says of runs that failed.

use std::cell::Cell;

use fleetward_domain::run::RunEvent;
use fleetward_protocol::run::{LostCause, Outcome, Refusal};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::app::recorder::Change;
use crate::testing::{Log, TestController};

/// What a run ends with, and what the log says of it; nothing, if there is nothing to look at.
fn ends() -> impl Strategy<Value = (RunEvent, Option<String>)> {
    let lost = prop::sample::select(vec![
        (LostCause::Reboot, "lost: the host was rebooted or lost power"),
        (LostCause::SupervisorGone, "lost: the run's supervisor disappeared"),
    ]);
    prop_oneof![
        1 => Just((RunEvent::Finished(Outcome::Exited(0)), None)),
        1 => Just((RunEvent::Finished(Outcome::TimedOut), Some("timed out".to_owned()))),
        4 => (1..256_i32).prop_map(|code| {
            (RunEvent::Finished(Outcome::Exited(code)), Some(format!("failed with exit code {code}")))
        }),
        4 => (1..65_i32).prop_map(|signal| {
            (RunEvent::Finished(Outcome::Signalled(signal)), Some(format!("failed by signal {signal}")))
        }),
        4 => "[a-z]{1,20}".prop_map(|rule| {
            let refusal = Refusal::NotAllowed { rule };
            let told = format!("refused: {refusal:?}");
            (RunEvent::Refused(refusal), Some(told))
        }),
        2 => lost.prop_map(|(cause, told)| (RunEvent::Finished(Outcome::Lost(cause)), Some(told.to_owned()))),
    ]
}

/// Of every run that failed, and of no other, the log says when, in which operation, on which host and why.
#[test]
fn p35_failed_runs_are_logged_with_operation_target_and_reason() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let controller = runtime.block_on(async {
        let controller = TestController::start().await;
        controller.add_script("work", "#!/bin/bash\n").await;
        controller.add_absent_host("web-1").await;
        controller
    });
    let failures = Cell::new(0);
    TestRunner::new(ProptestConfig::with_cases(150))
        .run(&ends(), |(event, told)| {
            let (operation, run, client) = runtime.block_on(async {
                let (operation, run) = controller.handed_out("web-1").await;
                let change = Change { operation, run, event, known: None };
                controller.app().recorder().apply([change]).await.unwrap();
                let (_, runs) = controller.wait_for_end(operation).await;
                (operation, run, runs[0].client_id.clone())
            });
            let Some(told) = told else {
                prop_assert_eq!(log.take("run.failed").len(), 0);
                return Ok(());
            };
            failures.set(failures.get() + 1);
            // The end can be read as soon as it is committed; the dispatcher hears of it a moment later.
            let logged = runtime.block_on(async {
                let heard = async {
                    loop {
                        let logged = log.take("run.failed");
                        if !logged.is_empty() {
                            break logged;
                        }
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(std::time::Duration::from_secs(20), heard).await.expect("it is logged")
            });
            prop_assert_eq!(logged.len(), 1);
            let fields = &logged[0]["fields"];
            prop_assert_eq!(&fields["operation"], &operation.to_string());
            prop_assert_eq!(&fields["run"], &run.to_string());
            prop_assert_eq!(fields["client"].as_str(), Some(client.as_str()));
            prop_assert_eq!(fields["reason"].as_str(), Some(told.as_str()));
            Ok(())
        })
        .unwrap();
    assert!(failures.get() >= 100, "{failures:?}");
}
