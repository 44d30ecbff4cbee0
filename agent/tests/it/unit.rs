//! The kind `unit`, with a real message bus and a systemd of our own on it: what it does, what it tells, what it reports.

use fleetward_agent::run::Stage;
use fleetward_protocol::action::unit::{Unit, UnitReport, Verb};
use fleetward_protocol::action::{ActionRequest, Preview};
use fleetward_protocol::event::StepState;
use fleetward_protocol::message::Finished;
use fleetward_protocol::order::{Authority, Limits};
use fleetward_protocol::run::{CancelCause, Outcome, Refusal};
use tokio::sync::mpsc;

use crate::host::{Life, Machine, Output, Request, boot, finished, script, written};
use crate::systemd::{Bus, Event, Shared, World, machine};

/// A machine with a bus, and our systemd on it.
struct Site {
    machine: Machine,
    bus: Bus,
    world: Shared,
    /// Ends a job that does not end by itself.
    ends: mpsc::UnboundedSender<Event>,
}

/// `None` where there can be none here.
fn site(test: &str) -> Option<Site> {
    let mut world = World { result: Some("done"), ..World::default() };
    world.units.insert("web.service".into(), ("loaded", "active".into(), 40));
    world.units.insert("off.service".into(), ("loaded", "inactive".into(), 0));
    world.units.insert("masked.service".into(), ("masked", "inactive".into(), 0));
    let (machine, bus, world, ends) = machine(test, world)?;
    Some(Site { machine, bus, world, ends })
}

fn unit(verb: Verb, unit: &str) -> Request {
    asking(&at_once(verb, unit))
}

/// What does not wait for what becomes of it.
fn at_once(verb: Verb, unit: &str) -> Unit {
    Unit { settle_s: 0, ..Unit::new(unit.parse().unwrap(), verb) }
}

fn asking(unit: &Unit) -> Request {
    let typed = ActionRequest::new(unit).unwrap();
    Request { typed: Some(typed), content: String::new(), ..script("") }
}

fn report(output: &Output) -> UnitReport {
    serde_json::from_value(output.report.clone().expect("a report")).unwrap()
}

fn told(output: &Output) -> Vec<(String, StepState)> {
    output.events.iter().map(|event| (event.step.to_string(), event.state)).collect()
}

async fn done(life: &Life, request: &Request) -> (Finished, Output) {
    let end = life.finish(request).await;
    let output = life.output(request.run, &end);
    (end, output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_unit_is_restarted_step_by_step_and_reported() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("restarting a unit") else { return };
    let life = machine.start(boot(1));
    let request = unit(Verb::Restart, "web.service");
    let (end, output) = done(&life, &request).await;
    assert_eq!((end.outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
    let steps = ["check", "restart", "verify"];
    let wanted: Vec<_> = steps
        .into_iter()
        .flat_map(|step| [(step.to_owned(), StepState::Began), (step.to_owned(), StepState::Done)])
        .collect();
    assert_eq!(told(&output), wanted);
    assert_eq!(
        text(&output.stdout),
        "web.service is active (running), main process 40, enabled\nrestart web.service\n\
         web.service is active (running), main process 41, enabled\n"
    );
    let report = report(&output);
    assert!(report.changed);
    assert_eq!((report.before.main_pid, report.after.main_pid), (Some(40), Some(41)));
    assert_eq!((report.after.active.as_str(), report.after.result.as_deref()), ("active", Some("success")));
    assert_eq!(world.borrow().asked, ["RestartUnit web.service replace"]);
    // Words and events stand in the log as they were told, and the report is its end.
    let log = life.runs.read_output(request.run, 0, end.log_length.try_into().unwrap(), vec![]).unwrap();
    let streams: Vec<_> = fleetward_protocol::output::Records::new(&log)
        .map(|record| format!("{:?}", record.unwrap().stream))
        .collect();
    let wanted = "Event Stdout Event Event Stdout Event Event Stdout Event Report";
    assert_eq!(streams.join(" "), wanted);
    // What was done is in the step journal, durable; what was asked for is in no file.
    let files: Vec<_> = std::fs::read_dir(life.directory(request.run)).unwrap().flatten().collect();
    assert!(files.iter().any(|file| file.file_name() == "steps"), "{files:?}");
    assert!(files.iter().all(|file| file.file_name() != "script"), "{files:?}");
}

#[tokio::test]
async fn a_unit_that_is_as_wanted_is_not_touched() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("leaving a unit alone") else { return };
    let life = machine.start(boot(1));
    for (verb, name) in [(Verb::Start, "web.service"), (Verb::Stop, "off.service")] {
        let (end, output) = done(&life, &unit(verb, name)).await;
        assert_eq!(end.outcome, Outcome::Exited(0));
        assert!(text(&output.stdout).contains(&format!("unchanged: {name} is ")), "{output:?}");
        assert_eq!(told(&output).last().unwrap(), &(verb.to_string(), StepState::Unchanged));
        let report = report(&output);
        assert!(!report.changed && report.before == report.after);
    }
    assert_eq!(world.borrow().asked, Vec::<String>::new());
    let (end, output) = done(&life, &unit(Verb::Start, "off.service")).await;
    assert_eq!((end.outcome, report(&output).changed), (Outcome::Exited(0), true));
    let (end, output) = done(&life, &unit(Verb::Stop, "off.service")).await;
    assert_eq!((end.outcome, report(&output).after.active.as_str()), (Outcome::Exited(0), "inactive"));
    assert_eq!(world.borrow().asked.len(), 2);
}

#[tokio::test]
async fn what_goes_wrong_is_told_with_what_to_do_next() {
    let Some(Site { machine, bus, world, ends: _ends }) = site("a unit that fails") else { return };
    let life = machine.start(boot(1));
    for (name, parts) in [
        ("gone.service", ["there is no unit gone.service on this host", "systemctl list-unit-files"]),
        ("masked.service", ["masked.service is masked", "`fleetward unit unmask masked.service`"]),
        ("off.service", ["only an active unit can reload", "`reload-or-restart`"]),
    ] {
        let verb = if name == "off.service" { Verb::Reload } else { Verb::Start };
        let (end, output) = done(&life, &unit(verb, name)).await;
        assert_eq!(end.outcome, Outcome::Exited(1));
        let stderr = text(&output.stderr);
        assert!(parts.iter().all(|part| stderr.contains(part)), "{stderr}");
        assert_eq!(
            told(&output),
            [("check".to_owned(), StepState::Began), ("check".to_owned(), StepState::Failed)]
        );
        assert_eq!(output.report, None);
    }
    assert_eq!(world.borrow().asked, Vec::<String>::new());

    for (stopping, told) in
        [(false, "somebody asked systemd for something else"), (true, "the host is shutting down")]
    {
        world.send_modify(|world| (world.result, world.stopping) = (Some("canceled"), stopping));
        let (end, output) = done(&life, &unit(Verb::Start, "off.service")).await;
        assert_eq!(end.outcome, Outcome::Exited(1));
        assert!(text(&output.stderr).contains(told), "{output:?}");
    }

    world.send_modify(|world| world.result = Some("failed"));
    let (end, output) = done(&life, &unit(Verb::Restart, "web.service")).await;
    assert_eq!(end.outcome, Outcome::Exited(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("`restart web.service` failed: its process ended with an error (exit-code)\nsee `journalctl --unit=web.service`"),
        "{stderr}"
    );
    let report = report(&output);
    assert!(report.changed);
    assert_eq!((report.before.active.as_str(), report.after.active.as_str()), ("active", "failed"));
    assert_eq!(report.after.result.as_deref(), Some("exit-code"));

    drop(bus);
    let (end, output) = done(&life, &unit(Verb::Restart, "web.service")).await;
    let stderr = text(&output.stderr);
    assert_eq!(end.outcome, Outcome::Exited(1));
    assert!(
        stderr.contains("no connection to the message bus") && stderr.contains("systemctl status dbus"),
        "{stderr}"
    );
}

/// A job that does not end, stopped as soon as systemd has it.
async fn stopped(site: &Site) -> (Finished, Output) {
    site.world.send_modify(|world| world.result = None);
    let life = site.machine.start(boot(1));
    let limits = Limits { grace_ms: 20_000, ..script("").limits };
    let request = Request { limits, ..unit(Verb::Restart, "web.service") };
    let progress = life.begin(&request).await;
    drop(site.world.subscribe().wait_for(|world| world.open == 1).await.unwrap());
    life.runs.cancel(request.run, CancelCause::Requested);
    let end = finished(progress).await;
    let output = life.output(request.run, &end);
    assert_eq!(end.outcome, Outcome::Cancelled);
    (end, output)
}

#[tokio::test]
async fn whoever_waits_for_systemd_can_be_stopped() {
    let Some(site) = site("stopping a unit action") else { return };
    let (_, output) = stopped(&site).await;
    let stderr = text(&output.stderr);
    for told in [
        "stopped on request before systemd had come to the end of `restart web.service`",
        "systemd goes on with job 7 (restart web.service, running): see `systemctl list-jobs`",
        "systemctl status web.service",
    ] {
        assert!(stderr.contains(told), "{stderr}");
    }
    // What the unit was when it was left is told and reported, and that it is not at its end.
    assert!(text(&output.stdout).ends_with("web.service is active (running), main process 40, enabled\n"));
    let report = report(&output);
    let job = report.job.unwrap();
    assert_eq!((job.id, job.does.as_str(), job.state.as_str()), (7, "restart", "running"));
    assert!(report.changed && report.after.active.as_str() == "active");
    assert_eq!(site.world.borrow().asked, ["RestartUnit web.service replace"]);
}

#[tokio::test]
async fn a_job_that_systemd_has_not_begun_is_taken_back() {
    let Some(site) = site("taking a job back") else { return };
    site.world.send_modify(|world| world.waits = true);
    let (_, output) = stopped(&site).await;
    let stderr = text(&output.stderr);
    assert!(stderr.contains("before systemd had begun") && stderr.contains("was taken back"), "{stderr}");
    assert!(!report(&output).changed && report(&output).job.is_none());
    assert_eq!(site.world.borrow().asked, ["RestartUnit web.service replace", "CancelJob 7"]);
}

/// Asked for by somebody else, too, it is theirs.
#[tokio::test]
async fn a_job_that_was_there_before_is_left() {
    let Some(site) = site("leaving the job of another") else { return };
    site.world.send_modify(|world| (world.waits, world.had_job) = (true, true));
    let (_, output) = stopped(&site).await;
    let job = report(&output).job.unwrap();
    assert_eq!(job.state.as_str(), "waiting");
    assert_eq!(site.world.borrow().asked, ["RestartUnit web.service replace"]);
}

#[tokio::test]
async fn a_time_limit_is_told_as_one() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("a unit that takes too long") else {
        return;
    };
    world.send_modify(|world| world.result = None);
    let life = machine.start(boot(1));
    let limits = Limits { timeout_ms: 1_000, grace_ms: 20_000, ..script("").limits };
    let (end, output) = done(&life, &Request { limits, ..unit(Verb::Restart, "web.service") }).await;
    assert_eq!(end.outcome, Outcome::TimedOut);
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("stopped because the run's time limit passed before systemd had come to the end"),
        "{stderr}"
    );
    assert!(stderr.contains("systemd goes on with job 7") && !stderr.contains("on request"), "{stderr}");
}

#[tokio::test]
async fn a_file_that_systemd_has_not_read_again_is_told_and_read_when_asked() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("a changed unit file") else { return };
    world.send_modify(|world| world.changed.push("web.service"));
    let life = machine.start(boot(1));
    let (end, output) = done(&life, &unit(Verb::Restart, "web.service")).await;
    let stderr = text(&output.stderr);
    assert_eq!(end.outcome, Outcome::Exited(0));
    assert!(stderr.contains("the old one is used") && stderr.contains("`daemon_reload=true`"), "{stderr}");
    assert!(report(&output).needs_daemon_reload);

    let restart = Unit { daemon_reload: true, ..at_once(Verb::Restart, "web.service") };
    let (end, output) = done(&life, &asking(&restart)).await;
    assert_eq!((end.outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
    assert!(!report(&output).needs_daemon_reload);
    let restarted = "RestartUnit web.service replace";
    assert_eq!(world.borrow().asked, [restarted, "Reload", restarted]);

    world.send_modify(|world| world.refuses_reload = true);
    let (end, output) = done(&life, &asking(&restart)).await;
    let stderr = text(&output.stderr);
    assert_eq!(end.outcome, Outcome::Exited(1));
    assert!(stderr.contains("did not read its files again"), "{stderr}");
    assert_eq!(world.borrow().asked.len(), 4, "and the unit was left alone");
}

/// Found by what systemd says of the process that asks, whatever the unit is called.
#[tokio::test]
async fn the_agents_own_unit_is_not_stopped_and_can_be_restarted() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("the agent's own unit") else { return };
    world.send_modify(|world| {
        world.own = Some("web.service");
        world.aliases.insert("alias.service", "web.service");
        world.units.insert("base.target".into(), ("loaded", "active".into(), 0));
        world.dependencies.insert(("web.service", "Requires"), vec!["some.slice", "middle.socket"]);
        world.dependencies.insert(("middle.socket", "PartOf"), vec!["base.target"]);
        // Round in a circle: that ends, too.
        world.dependencies.insert(("base.target", "BindsTo"), vec!["middle.socket", "far.mount"]);
        world.dependencies.insert(("web.service", "Wants"), vec!["wanted.service"]);
        world.units.insert("wanted.service".into(), ("loaded", "active".into(), 0));
    });
    let life = machine.start(boot(1));
    for (name, told) in [
        ("web.service", "`stop web.service` is refused: it is the unit of this host's agent"),
        ("alias.service", "`stop alias.service` is refused"),
        (
            "base.target",
            "web.service, the unit of this host's agent, would be stopped with it (web.service needs middle.socket, \
             which needs base.target), and no controller could reach the host any more",
        ),
        ("far.mount", "which needs base.target, which needs far.mount)"),
        ("dbus.socket", "this host's agent asks systemd through it"),
    ] {
        let (end, output) = done(&life, &unit(Verb::Stop, name)).await;
        let stderr = text(&output.stderr);
        assert_eq!(end.outcome, Outcome::Exited(1));
        assert!(stderr.contains(told) && stderr.contains("on the host itself"), "{stderr}");
    }
    // Should it not start again, the agent would not either.
    for verb in [Verb::Restart, Verb::ReloadOrRestart] {
        let (end, output) = done(&life, &unit(verb, "base.target")).await;
        assert_eq!(end.outcome, Outcome::Exited(1));
        assert!(text(&output.stderr).contains("should the start fail, no controller"), "{output:?}");
    }
    // What it needs has ended, and may not start again.
    let (end, output) = done(&life, &unit(Verb::Restart, "web.service")).await;
    assert_eq!(end.outcome, Outcome::Exited(1));
    let told = "needs some.slice, which is not active; should its start fail, no controller";
    assert!(text(&output.stderr).contains(told), "{output:?}");
    assert_eq!(world.borrow().asked, Vec::<String>::new());
    world.send_modify(|world| {
        for name in ["some.slice", "middle.socket"] {
            world.units.insert(name.into(), ("loaded", "active".into(), 0));
        }
    });
    let (end, _) = done(&life, &unit(Verb::Restart, "web.service")).await;
    assert_eq!(end.outcome, Outcome::Exited(0));
    for name in ["off.service", "wanted.service"] {
        let (end, _) = done(&life, &unit(Verb::Stop, name)).await;
        assert_eq!(end.outcome, Outcome::Exited(0), "others are as before: {name}");
    }
}

/// What a start stops: by itself, or by what it starts.
#[tokio::test]
async fn what_cannot_be_active_together_with_the_agent_is_not_started() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("a conflict with the agent") else {
        return;
    };
    world.send_modify(|world| {
        world.own = Some("web.service");
        for (unit, active) in
            [("base.target", "active"), ("busy.service", "active"), ("late.service", "inactive")]
        {
            world.units.insert(unit.into(), ("loaded", active.into(), 0));
        }
        world.dependencies.insert(("web.service", "Requires"), vec!["base.target"]);
        world.dependencies.insert(("shut.target", "ConflictedBy"), vec!["other.service", "base.target"]);
        world.dependencies.insert(("off.service", "Wants"), vec!["busy.service", "late.service"]);
        world.dependencies.insert(("late.service", "Requires"), vec!["shut.target"]);
        // It is active, and so is web.service.
        world.dependencies.insert(("busy.service", "Conflicts"), vec!["web.service"]);
        world.dependencies.insert(("harmless.service", "Wants"), vec!["busy.service"]);
        world.units.insert("harmless.service".into(), ("loaded", "inactive".into(), 0));
        world.units.insert("soon.timer".into(), ("loaded", "inactive".into(), 0));
        world.dependencies.insert(("soon.timer", "Triggers"), vec!["late.service"]);
        world.units.insert("mute.service".into(), ("loaded", "inactive".into(), 0));
        world.dependencies.insert(("mute.service", "Conflicts"), vec!["dbus.socket"]);
    });
    let life = machine.start(boot(1));
    let (end, output) = done(&life, &unit(Verb::Start, "mute.service")).await;
    assert_eq!(end.outcome, Outcome::Exited(1));
    assert!(text(&output.stderr).contains("the message bus, through which"), "{output:?}");
    for (verb, name, told) in [
        (
            Verb::Start,
            "soon.timer",
            "(shut.target is started with it, and cannot be active together with base.target)",
        ),
        (Verb::Start, "shut.target", "(it cannot be active together with base.target)"),
        (
            Verb::ReloadOrRestart,
            "off.service",
            "(shut.target is started with it, and cannot be active together with base.target)",
        ),
    ] {
        let (end, output) = done(&life, &unit(verb, name)).await;
        let stderr = text(&output.stderr);
        assert_eq!(end.outcome, Outcome::Exited(1));
        assert!(stderr.contains("would be stopped by it") && stderr.contains(told), "{stderr}");
    }
    assert_eq!(world.borrow().asked, Vec::<String>::new());
    // More than are looked at: what is behind them is not known.
    world.send_modify(|world| {
        let many: Vec<&'static str> = (0..2100).map(|number| &*format!("m{number}.service").leak()).collect();
        for name in &many {
            world.units.insert((*name).into(), ("loaded", "inactive".into(), 0));
        }
        world.units.insert("many.target".into(), ("loaded", "inactive".into(), 0));
        world.dependencies.insert(("many.target", "Wants"), many);
    });
    let (end, output) = done(&life, &unit(Verb::Start, "many.target")).await;
    assert_eq!(end.outcome, Outcome::Exited(1));
    assert!(text(&output.stderr).contains("so many units hang together with it"), "{output:?}");
    assert_eq!(world.borrow().asked, Vec::<String>::new());
    let (end, _) = done(&life, &unit(Verb::Start, "harmless.service")).await;
    assert_eq!(end.outcome, Outcome::Exited(0));
}

/// A file that systemd has not read yet may say that the agent needs the unit.
#[tokio::test]
async fn what_the_agent_needs_is_looked_at_again_when_files_were_read() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("a dependency that is new") else {
        return;
    };
    world.send_modify(|world| {
        world.own = Some("web.service");
        world.units.insert("base.target".into(), ("loaded", "active".into(), 0));
        world.next_dependencies.insert(("web.service", "Requires"), vec!["base.target"]);
    });
    let life = machine.start(boot(1));
    let stop = Unit { daemon_reload: true, ..at_once(Verb::Stop, "base.target") };
    let (end, output) = done(&life, &asking(&stop)).await;
    let stderr = text(&output.stderr);
    assert_eq!(end.outcome, Outcome::Exited(1));
    assert!(stderr.contains("web.service needs base.target"), "{stderr}");
    assert_eq!(world.borrow().asked, ["Reload"]);
}

/// The agent goes away while systemd works. The action goes on, is not done twice, and all that it told arrives.
#[test]
fn an_agent_that_is_restarted_half_way_finds_all_that_was_told() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Some(Site { machine, bus: _bus, world, ends }) = site("restarting the agent") else { return };
    world.send_modify(|world| world.result = None);
    let request = unit(Verb::Restart, "web.service");
    let first = runtime();
    first.block_on(async {
        let life = machine.start(boot(1));
        let mut progress = life.begin(&request).await;
        drop(world.subscribe().wait_for(|world| world.open == 1).await.unwrap());
        written(&mut progress, 1).await;
    });
    drop(first);
    runtime().block_on(async {
        let life = machine.start(boot(1));
        let progress = life.resume(request.run).await;
        ends.send(Event::JobDone).unwrap();
        let end = finished(progress).await;
        let output = life.output(request.run, &end);
        assert_eq!((end.outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
        assert_eq!(told(&output).len(), 6);
        assert!(report(&output).changed);
        assert_eq!(world.borrow().asked, ["RestartUnit web.service replace"]);
        // And a controller that sends it again is answered from the journal.
        assert!(matches!(life.begin(&request).await.borrow().stage, Stage::Finished { .. }));
        assert_eq!(world.borrow().asked.len(), 1);
    });
}

#[tokio::test]
async fn the_owner_decides_about_typed_kinds_as_about_scripts() {
    let machine = Machine::new();
    std::fs::write(machine.paths().config, "[policy]\nkinds = ['script']").unwrap();
    let life = machine.start(boot(1));
    match life.refusal(&unit(Verb::Stop, "web.service")).await {
        Refusal::NotAllowed { rule } => assert_eq!(
            rule.as_str(),
            format!(
                "policy.kinds in {}, line 2, does not name `unit`; its owner can add it there, on the host",
                machine.paths().config.display()
            )
        ),
        refusal => panic!("{refusal:?}"),
    }
    std::fs::write(machine.paths().config, "[policy]\nkinds = ['unit']\nusers = ['nobody']").unwrap();
    assert!(matches!(life.refusal(&unit(Verb::Stop, "web.service")).await, Refusal::NotAllowed { .. }));
}

#[tokio::test]
async fn the_owner_decides_about_each_unit() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("the owner's rule") else { return };
    let file = machine.paths().config;
    std::fs::write(&file, "[policy]\n[policy.rules.unit]\nunits = ['web', 'app-*']\n").unwrap();
    let life = machine.start(boot(1));
    let (end, _) = done(&life, &unit(Verb::Restart, "web.service")).await;
    assert_eq!(end.outcome, Outcome::Exited(0));
    match life.refusal(&unit(Verb::Stop, "off.service")).await {
        Refusal::NotAllowed { rule } => assert_eq!(
            rule.as_str(),
            format!(
                "policy.rules.unit.units in {}, line 3, does not name `off.service`; its owner can add it there, on the host",
                file.display()
            )
        ),
        refusal => panic!("{refusal:?}"),
    }
    let rehearsal = Request { authority: Authority::Rehearse, ..unit(Verb::Stop, "off.service") };
    assert!(
        matches!(life.refusal(&rehearsal).await, Refusal::NotAllowed { .. }),
        "nor may anybody look what it would do"
    );
    // Another name is no other unit.
    world.send_modify(|world| {
        world.aliases.insert("app-alias.service", "off.service");
    });
    let (end, output) = done(&life, &unit(Verb::Stop, "app-alias.service")).await;
    let said = text(&output.stderr);
    assert_eq!(end.outcome, Outcome::Exited(1));
    assert!(
        said.contains("app-alias.service is another name of off.service, and policy.rules.unit.units"),
        "{said}"
    );
    assert_eq!(world.borrow().asked, ["RestartUnit web.service replace"]);
}

#[tokio::test]
async fn a_dry_run_tells_what_would_change_and_changes_nothing() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("a dry run") else { return };
    let life = machine.start(boot(1));
    let rehearsed = async |asked: &Unit| {
        let request = Request { authority: Authority::Rehearse, ..asking(asked) };
        let (end, output) = done(&life, &request).await;
        (end.outcome, output)
    };
    let asked = |verb, unit: &str, daemon_reload| Unit { daemon_reload, ..at_once(verb, unit) };
    for (asked, changes) in [
        (asked(Verb::Restart, "web.service", true), &["daemon-reload", "restart web.service"][..]),
        (asked(Verb::Stop, "web.service", false), &["stop web.service"]),
        (asked(Verb::Start, "web.service", false), &[]),
    ] {
        let (outcome, output) = rehearsed(&asked).await;
        assert_eq!(outcome, Outcome::Exited(0), "{}", text(&output.stderr));
        let preview: Preview = serde_json::from_value(output.report.clone().expect("a report")).unwrap();
        let found: Vec<&str> = preview.changes.iter().map(|change| change.what.as_str()).collect();
        assert_eq!(found, changes);
        let said = text(&output.stdout);
        let told = if changes.is_empty() { "unchanged: nothing would be done" } else { "would " };
        assert!(said.contains(told), "{said}");
    }
    // What could not be done is told as it would be.
    let (outcome, output) = rehearsed(&asked(Verb::Start, "masked.service", false)).await;
    assert!(outcome == Outcome::Exited(1) && text(&output.stderr).contains("is masked"), "{output:?}");
    assert!(world.borrow().asked.is_empty(), "{:?}", world.borrow().asked);
}

#[tokio::test]
async fn a_service_that_does_not_stay_up_has_failed() {
    for (active, pid) in [("failed", 0), ("active", 99)] {
        let Some(Site { machine, bus: _bus, world, ends }) = site("a service that dies") else { return };
        let life = machine.start(boot(1));
        let watched = Unit { settle_s: 300, ..at_once(Verb::Restart, "web.service") };
        let dies = async {
            drop(world.subscribe().wait_for(|world| world.watched).await.unwrap());
            ends.send(Event::Is("web.service", active, pid)).unwrap();
        };
        let request = asking(&watched);
        let ((end, output), ()) = tokio::join!(done(&life, &request), dies);
        assert_eq!(end.outcome, Outcome::Exited(1), "{active}");
        let said = text(&output.stderr);
        assert!(said.contains("did not stay up for 300 s"), "{said}");
        assert!(told(&output).contains(&("settle".into(), StepState::Failed)), "{:?}", told(&output));
        assert_eq!(report(&output).after.active.as_str(), active);
    }
}

#[tokio::test]
async fn a_service_that_stays_up_and_one_that_is_stopped_meanwhile_have_succeeded() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("a service that stays") else { return };
    let life = machine.start(boot(1));
    let watched = |settle_s| asking(&Unit { settle_s, ..at_once(Verb::Restart, "web.service") });
    let (end, output) = done(&life, &watched(1)).await;
    assert_eq!(end.outcome, Outcome::Exited(0), "{}", text(&output.stderr));
    assert!(told(&output).contains(&("settle".into(), StepState::Done)));
    world.send_modify(|world| world.watched = false);
    let limits = Limits { grace_ms: 20_000, ..script("").limits };
    let request = Request { limits, ..watched(300) };
    let progress = life.begin(&request).await;
    drop(world.subscribe().wait_for(|world| world.watched).await.unwrap());
    life.runs.cancel(request.run, CancelCause::Requested);
    let end = finished(progress).await;
    let output = life.output(request.run, &end);
    assert!(text(&output.stdout).contains("before web.service was up for 300 s"), "{output:?}");
    assert!(report(&output).changed, "it was restarted");
}

#[tokio::test]
async fn a_failed_unit_is_forgotten_to_have_failed() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("resetting a failed unit") else {
        return;
    };
    world.send_modify(|world| {
        world.units.insert("broken.service".into(), ("loaded", "failed".into(), 0));
    });
    let life = machine.start(boot(1));
    for (unit_name, changed) in
        [("broken.service", true), ("broken.service", false), ("masked.service", false)]
    {
        let (end, output) = done(&life, &unit(Verb::ResetFailed, unit_name)).await;
        assert_eq!((end.outcome, report(&output).changed), (Outcome::Exited(0), changed), "{unit_name}");
    }
    assert_eq!(world.borrow().asked, ["ResetFailedUnit broken.service"]);
}

/// systemd calls the job done all the same.
#[tokio::test]
async fn what_systemd_did_not_start_has_failed() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("a condition that is not met") else {
        return;
    };
    let life = machine.start(boot(1));
    for (unmet, result) in [("ConditionPathExists=/srv/app", "done"), ("AssertPathExists=/srv/app", "assert")]
    {
        world.send_modify(|world| {
            world.result = Some(result);
            world.unmet.insert("off.service", unmet);
        });
        // Whoever does not watch it, too.
        for settle_s in [0, 3] {
            let start = Unit { settle_s, ..at_once(Verb::Start, "off.service") };
            let (end, output) = done(&life, &asking(&start)).await;
            let said = text(&output.stderr);
            assert_eq!(end.outcome, Outcome::Exited(1), "{said}");
            assert!(said.contains("systemd did not start it") && said.contains(unmet), "{said}");
            assert_eq!(report(&output).after.active.as_str(), "inactive");
        }
    }
}

/// Whether it is seen running before it ends is chance: its type says what is right.
#[tokio::test]
async fn only_what_does_its_work_once_is_inactive_behind_it() {
    let Some(Site { machine, bus: _bus, world, ends }) = site("a service that ends at once") else { return };
    world.send_modify(|world| {
        world.units.insert("once.service".into(), ("loaded", "inactive".into(), 0));
        world.ends = vec!["once.service", "off.service"];
    });
    let life = machine.start(boot(1));
    for (name, settle_s, code, told) in [
        ("once.service", 3, 0, "has done its work and ended"),
        ("off.service", 3, 1, "did not stay up for 3 s: it ended without an error"),
        ("off.service", 0, 0, "has ended already, without an error"),
    ] {
        let start = Unit { settle_s, ..at_once(Verb::Start, name) };
        let (end, output) = done(&life, &asking(&start)).await;
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(end.outcome, Outcome::Exited(code), "{name}: {said}");
        assert!(said.contains(told), "{name}: {said}");
    }
    // The same, seen running first.
    world.send_modify(|world| world.ends.clear());
    let dies = async {
        drop(world.subscribe().wait_for(|world| world.watched).await.unwrap());
        ends.send(Event::Is("off.service", "inactive", 0)).unwrap();
    };
    let request = asking(&Unit { settle_s: 300, ..at_once(Verb::Start, "off.service") });
    let ((end, output), ()) = tokio::join!(done(&life, &request), dies);
    let said = text(&output.stderr);
    assert_eq!(end.outcome, Outcome::Exited(1), "{said}");
    assert!(said.contains("did not stay up for 300 s: it ended without an error"), "{said}");
}

#[tokio::test]
async fn a_service_that_stays_active_behind_its_end_has_stayed() {
    let Some(Site { machine, bus: _bus, world, ends }) = site("a service that is active behind its end")
    else {
        return;
    };
    let life = machine.start(boot(1));
    let exits = async {
        drop(world.subscribe().wait_for(|world| world.watched).await.unwrap());
        ends.send(Event::Is("web.service", "active", 0)).unwrap();
    };
    let request = asking(&Unit { settle_s: 1, ..at_once(Verb::Restart, "web.service") });
    let ((end, output), ()) = tokio::join!(done(&life, &request), exits);
    assert_eq!(end.outcome, Outcome::Exited(0), "{}", text(&output.stderr));
}

#[tokio::test]
async fn what_failed_and_has_no_file_any_more_can_be_forgotten() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("a failed unit without a file") else {
        return;
    };
    world.send_modify(|world| {
        world.units.insert("gone.service".into(), ("not-found", "failed".into(), 0));
    });
    let life = machine.start(boot(1));
    let (end, output) = done(&life, &unit(Verb::ResetFailed, "gone.service")).await;
    assert_eq!(end.outcome, Outcome::Exited(0), "{}", text(&output.stderr));
    assert!(report(&output).changed);
    let (end, _) = done(&life, &unit(Verb::ResetFailed, "gone.service")).await;
    assert_eq!(end.outcome, Outcome::Exited(1), "there is no such unit");
}
