//! The kind `daemon-reload`, with a real message bus and a systemd of our own on it.

use fleetward_protocol::action::daemon_reload::{DaemonReload, DaemonReloadReport};
use fleetward_protocol::action::{ActionRequest, Preview};
use fleetward_protocol::order::Authority;
use fleetward_protocol::run::Outcome;

use crate::host::{Request, boot, script};
use crate::systemd::{World, machine};

fn asking() -> Request {
    let typed = Some(ActionRequest::new(&DaemonReload {}).unwrap());
    Request { typed, content: String::new(), ..script("") }
}

#[tokio::test]
async fn systemd_reads_its_files_again_and_says_why_if_it_does_not() {
    let Some((machine, _bus, world, _)) = machine("reading all files again", World::default()) else {
        return;
    };
    let life = machine.start(boot(1));
    let rehearsal = Request { authority: Authority::Rehearse, ..asking() };
    let end = life.finish(&rehearsal).await;
    let output = life.output(rehearsal.run, &end);
    let preview: Preview = serde_json::from_value(output.report.unwrap()).unwrap();
    assert_eq!(preview.changes[0].what.as_str(), "daemon-reload");
    assert!(world.borrow().asked.is_empty(), "it was a dry run");

    let request = asking();
    let end = life.finish(&request).await;
    let output = life.output(request.run, &end);
    assert_eq!(end.outcome, Outcome::Exited(0));
    let report: DaemonReloadReport = serde_json::from_value(output.report.unwrap()).unwrap();
    assert!(report.changed && world.borrow().asked == ["Reload"]);

    world.send_modify(|world| world.refuses_reload = true);
    let request = asking();
    let end = life.finish(&request).await;
    let output = life.output(request.run, &end);
    assert_eq!(end.outcome, Outcome::Exited(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("not now") && said.contains("systemctl daemon-reload"), "{said}");
}
