//! The kind `site` when something is cut off between the change and its effect: the host's power, nginx, or the run itself.

use std::fs;
use std::time::Duration;

use fleetward_agent::run::Opened;
use fleetward_protocol::event::StepState;
use fleetward_protocol::message::OpenRun;
use fleetward_protocol::run::{CancelCause, Outcome};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::host::{Output, boot, finished, written};
use crate::nginx::{Web, web_on};
use crate::resume::cut_power;
use crate::systemd::{Bus, Event, Shared, World, machine};

/// An nginx that is a unit of our systemd, whose jobs do not end: whoever waits for its reload stands behind the change.
pub(crate) struct Unit {
    pub(crate) web: Web,
    world: Shared,
    pub(crate) happens: mpsc::UnboundedSender<Event>,
    _bus: Bus,
}

/// `None` where there can be none here.
pub(crate) async fn unit(test: &str) -> Option<Unit> {
    crate::nginx::web(test)?;
    let (machine, _bus, world, happens) = machine(test, World::default())?;
    let unit = Unit { web: web_on(machine), world, happens, _bus };
    unit.web.done(&unit.web.site("one")).await;
    unit.web.start();
    unit.is("active", u32::try_from(unit.web.master().unwrap()).unwrap());
    Some(unit)
}

impl Unit {
    /// How the unit is from now on, and its main process.
    pub(crate) fn is(&self, active: &str, pid: u32) {
        self.world.send_modify(|world| {
            world.units.insert("nginx.service".into(), ("loaded", active.into(), pid));
        });
    }

    /// Begins the change; returns when systemd has the job to reload nginx.
    pub(crate) async fn begin(&self) -> crate::host::Request {
        self.begin_with(json!({})).await
    }

    /// The same, with more that is asked for.
    async fn begin_with(&self, more: Value) -> crate::host::Request {
        self.begin_within(more, 300).await
    }

    /// The same, with so many milliseconds to end when it is stopped.
    async fn begin_within(&self, more: Value, grace_ms: u64) -> crate::host::Request {
        let mut site = self.web.site("two");
        site.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut request = self.web.request(&site);
        request.limits.grace_ms = grace_ms;
        let mut progress = self.web.life.begin(&request).await;
        drop(self.world.subscribe().wait_for(|world| world.open == 1).await.unwrap());
        written(&mut progress, 1).await;
        assert!(self.file().contains("two"), "the change is in place");
        request
    }

    /// Waits until the run has said this.
    async fn says(&self, request: &crate::host::Request, words: &str) {
        let mut progress = self.web.life.resume(request.run).await;
        loop {
            let length = progress.borrow().output;
            let log = self.web.life.runs.read_output(request.run, 0, length.try_into().unwrap(), Vec::new());
            if String::from_utf8_lossy(&log.unwrap()).contains(words) {
                return;
            }
            written(&mut progress, length + 1).await;
        }
    }

    fn file(&self) -> String {
        fs::read_to_string(self.web.path("sites-available/shop")).unwrap()
    }

    pub(crate) async fn end(
        &self,
        request: &crate::host::Request,
        cancel: Option<CancelCause>,
    ) -> (Outcome, Output) {
        let open = OpenRun { run: request.run, offset: 0, started: true, cancel, dispatch: None };
        let Opened::Held(progress) = self.web.life.runs.open(open).await else { panic!("unknown") };
        let end = finished(progress).await;
        let output = self.web.life.output(request.run, &end);
        (end.outcome, output)
    }
}

fn report(output: &Output) -> Value {
    output.report.clone().expect("a report")
}

#[tokio::test]
async fn a_reload_goes_through_the_unit_whose_process_nginx_is() {
    let Some(unit) = unit("reloading through systemd").await else { return };
    let request = unit.begin().await;
    assert_eq!(unit.world.borrow().asked, ["ReloadUnit nginx.service replace"]);
    // What systemd starts to reload it does as much.
    assert!(unit.web.nginx(&["-s", "reload"]));
    unit.world.send_modify(|world| world.result = Some("done"));
    unit.happens.send(Event::JobDone).unwrap();
    let (outcome, output) = unit.end(&request, None).await;
    assert_eq!(outcome, Outcome::Exited(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(report(&output)["reloaded"], json!(true));
    assert_eq!(unit.web.body().as_deref(), Some("two"));
}

#[tokio::test]
async fn an_nginx_that_dies_before_it_reads_the_change_leaves_none_behind() {
    let Some(unit) = unit("an nginx that dies").await else { return };
    let request = unit.begin().await;
    unit.web.kill();
    unit.world.send_modify(|world| world.result = Some("done"));
    unit.happens.send(Event::JobDone).unwrap();
    let (outcome, output) = unit.end(&request, None).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Exited(2), "{said}");
    assert!(said.contains("nginx ran when this began, and does not any more"), "{said}");
    assert!(unit.file().contains("one"));
    assert_eq!(report(&output)["changed"], json!(false));
    assert!(output.events.iter().any(|event| event.state == StepState::Undone));
}

#[tokio::test]
async fn a_run_that_is_stopped_before_nginx_reads_the_change_puts_it_back() {
    let Some(unit) = unit("stopping a change of a site").await else { return };
    let request = unit.begin().await;
    unit.world.send_modify(|world| world.waits = true);
    // The job is taken back, and what nginx serves is what it served.
    let (outcome, output) = unit.end(&request, Some(CancelCause::Requested)).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(said.contains("stopped on request"), "{said}");
    assert_eq!(report(&output)["changed"], json!(false));
    assert!(unit.file().contains("one"), "{said}");
    assert_eq!(unit.web.body().as_deref(), Some("one"));
}

/// nginx does not come to start new workers; nobody has to wait until that is given up.
#[tokio::test]
async fn a_run_that_is_stopped_while_new_workers_are_waited_for_puts_the_change_back() {
    let Some(unit) = unit("stopping while workers are waited for").await else { return };
    let request = unit.begin_within(json!({}), 20_000).await;
    unit.world.send_modify(|world| world.result = Some("done"));
    // systemd says that it has reloaded nginx, which has not heard of it.
    unit.happens.send(Event::JobDone).unwrap();
    unit.says(&request, "its new workers are waited for").await;
    let asked = std::time::Instant::now();
    unit.web.life.runs.cancel(request.run, CancelCause::Requested);
    // It is heard at once: the old file is there again, and nginx is asked to read that.
    drop(unit.world.subscribe().wait_for(|world| world.asked.len() == 2).await.unwrap());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(unit.file().contains("one"));
    assert!(unit.web.nginx(&["-s", "reload"]));
    let (outcome, output) = unit.end(&request, None).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(said.contains("stopped on request before nginx had started new workers"), "{said}");
    assert_eq!(report(&output)["changed"], json!(false));
    assert!(output.events.iter().any(|event| event.state == StepState::Undone));
    assert_eq!(unit.web.body().as_deref(), Some("one"));
}

/// What the site passes requests on to takes them, and answers none: the probe is not waited for until its end.
#[tokio::test]
async fn a_run_that_is_stopped_while_its_probe_hangs_puts_the_change_back() {
    let Some(web) = crate::nginx::web("stopping a probe that hangs") else { return };
    web.start();
    web.done(&web.site("one")).await;
    let behind = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut site = web.site("");
    let upstream = json!({ "server": behind.local_addr().unwrap().to_string() });
    site["locations"] = json!([{ "path": "/", "proxy": { "upstreams": [upstream] } }]);
    site["probe"] = json!({ "path": "/" });
    let mut request = web.request(&site);
    request.limits.grace_ms = 20_000;
    let progress = web.life.begin(&request).await;
    let _connected = behind.accept().await.unwrap();
    let asked = std::time::Instant::now();
    web.life.runs.cancel(request.run, CancelCause::Requested);
    let end = finished(progress).await;
    let output = web.life.output(request.run, &end);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(end.outcome, Outcome::Cancelled, "{said}");
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
    assert!(said.contains("stopped on request before shop.example.com/ was answered"), "{said}");
    assert!(output.events.iter().any(|event| event.state == StepState::Undone));
    assert!(fs::read_to_string(web.path("sites-available/shop")).unwrap().contains("one"));
    assert_eq!(web.body().as_deref(), Some("one"));
}

/// nginx itself does not come to an end of its test, as when the names of servers are not answered.
#[tokio::test]
async fn a_run_that_is_stopped_while_nginx_tests_what_is_in_place_puts_it_back() {
    let Some(web) = crate::nginx::web("stopping a test that hangs") else { return };
    // Where the sites are included from afar, nothing is tested beside: the first test is that in place.
    fs::write(web.path("files/all"), "include sites-enabled/*;\n").unwrap();
    web.configure("include files/all;");
    web.start();
    web.done(&web.site("one")).await;
    nix::unistd::mkfifo(&web.path("files/endless"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let mut site = web.site("two");
    site["snippets"] = json!(["include files/endless;"]);
    let mut request = web.request(&site);
    request.limits.grace_ms = 20_000;
    let progress = web.life.begin(&request).await;
    let file = || fs::read_to_string(web.path("sites-available/shop")).unwrap();
    while !file().contains("two") {
        tokio::task::yield_now().await;
    }
    web.life.runs.cancel(request.run, CancelCause::Requested);
    let end = finished(progress).await;
    let output = web.life.output(request.run, &end);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(end.outcome, Outcome::Cancelled, "{said}");
    assert!(said.contains("stopped on request"), "{said}");
    assert!(file().contains("one"), "{said}");
    assert!(output.events.iter().any(|event| event.state == StepState::Undone));
    assert_eq!(web.body().as_deref(), Some("one"));
}

/// A stop that comes while a change is put back does not keep nginx from reading what was there.
#[tokio::test]
async fn a_run_that_is_stopped_while_it_puts_back_comes_to_the_end_of_that() {
    let Some(unit) = unit("stopping what is put back").await else { return };
    let request = unit.begin_within(json!({ "probe": { "status": 204 } }), 20_000).await;
    unit.world.send_modify(|world| world.waits = true);
    assert!(unit.web.nginx(&["-s", "reload"]));
    unit.happens.send(Event::JobDone).unwrap();
    // The probe is answered as it should not be: nginx is to read the old file.
    drop(unit.world.subscribe().wait_for(|world| world.asked.len() == 2).await.unwrap());
    assert!(unit.file().contains("one"));
    let process = process(&unit, &request);
    unit.web.life.runs.cancel(request.run, CancelCause::Requested);
    // It has the signal, or has heard it and left the job.
    while !has_signal(&process) && unit.world.borrow().asked.len() == 2 {
        tokio::task::yield_now().await;
    }
    assert!(unit.web.nginx(&["-s", "reload"]));
    unit.happens.send(Event::JobDone).unwrap();
    let (outcome, output) = unit.end(&request, None).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Cancelled, "{said}");
    let reload = "ReloadUnit nginx.service replace";
    assert_eq!(unit.world.borrow().asked, [reload, reload]);
    assert!(said.contains("and not with 204") && !said.contains("stopped"), "{said}");
    assert_eq!(report(&output)["changed"], json!(false));
    assert_eq!(unit.web.body().as_deref(), Some("one"));
}

/// The process that carries out a run.
fn process(unit: &Unit, request: &crate::host::Request) -> String {
    let supervisor = crate::resume::supervisor(&unit.web.life, request.run);
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
    children.split_ascii_whitespace().next().unwrap().to_owned()
}

/// Whether a process was sent SIGTERM, and has not heard it (proc_pid_status(5)).
fn has_signal(process: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let pending = pending.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(u64::MAX);
    pending & (1 << (nix::libc::SIGTERM - 1)) != 0
}

/// The next boot starts nginx with what is in place, and the run goes on with it.
#[tokio::test]
async fn a_host_that_loses_its_power_behind_the_change_goes_on_with_it() {
    let Some(mut unit) = unit("a power cut behind the change").await else { return };
    let request = unit.begin().await;
    cut_power(&unit.web.life, request.run);
    unit.web.kill();
    unit.world.send_modify(|world| (world.open, world.result) = (0, Some("done")));
    unit.web.start();
    assert_eq!(unit.web.body().as_deref(), Some("two"), "nginx comes up with the change");
    // In this boot nginx is reloaded by a signal.
    unit.world.send_modify(|world| {
        drop(world.units.insert("nginx.service".into(), ("loaded", "active".into(), 1)))
    });
    unit.web.life = unit.web.machine.start(boot(2));
    let (outcome, output) = unit.end(&request, None).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Exited(0), "{said}");
    let report = report(&output);
    assert_eq!(
        (&report["before"], &report["after"], &report["changed"]),
        (&json!("enabled"), &json!("enabled"), &json!(true))
    );
    assert_eq!(unit.web.body().as_deref(), Some("two"));
}

/// What does not work in the next boot is put back as it was before the first one.
#[tokio::test]
async fn what_fails_in_the_next_boot_is_put_back_as_it_was_before_the_first() {
    let Some(mut unit) = unit("a change that fails in the next boot").await else { return };
    let request = unit.begin().await;
    cut_power(&unit.web.life, request.run);
    unit.web.kill();
    // Somebody has broken the file meanwhile.
    fs::write(unit.web.path("sites-available/shop"), unit.file() + "no_such_directive;\n").unwrap();
    unit.world.send_modify(|world| (world.open, world.result) = (0, Some("done")));
    unit.web.life = unit.web.machine.start(boot(2));
    let (outcome, output) = unit.end(&request, None).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Exited(2), "{said}");
    assert!(said.contains("unknown directive") && said.contains("before the host restarted"), "{said}");
    let report = report(&output);
    assert_eq!(
        (&report["before"], &report["after"], &report["changed"], &report["running"]),
        (&json!("enabled"), &json!("enabled"), &json!(false), &json!(false))
    );
    assert!(unit.file().contains("one") && !unit.file().contains("no_such_directive"));
}

#[tokio::test]
async fn a_probe_that_fails_in_the_next_boot_puts_back_what_was_before_the_first() {
    let Some(mut unit) = unit("a probe in the next boot").await else { return };
    let request = unit.begin_with(json!({ "probe": { "status": 204 } })).await;
    cut_power(&unit.web.life, request.run);
    unit.web.kill();
    unit.world.send_modify(|world| {
        (world.open, world.result) = (0, Some("done"));
        world.units.insert("nginx.service".into(), ("loaded", "active".into(), 1));
    });
    unit.web.start();
    unit.web.life = unit.web.machine.start(boot(2));
    let (outcome, output) = unit.end(&request, None).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Exited(2), "{said}");
    assert!(said.contains("and not with 204"), "{said}");
    assert!(unit.file().contains("one"));
    assert_eq!(unit.web.body().as_deref(), Some("one"), "and nginx has read it again");
}

/// nginx is started if that is asked for; and stopped again where the site is not answered then.
#[tokio::test]
async fn a_stopped_nginx_is_started_if_that_is_asked_for() {
    for (status, code) in [(200, 0), (204, 2)] {
        let Some(unit) = unit("starting nginx").await else { return };
        unit.web.kill();
        unit.world.send_modify(|world| {
            world.units.insert("nginx.service".into(), ("loaded", "inactive".into(), 0));
        });
        let request = unit.begin_with(json!({ "start": true, "probe": { "status": status } })).await;
        assert_eq!(unit.world.borrow().asked, ["StartUnit nginx.service replace"]);
        unit.web.start();
        unit.world.send_modify(|world| {
            world.units.insert("nginx.service".into(), ("loaded", "active".into(), 1));
            world.result = Some("done");
        });
        unit.happens.send(Event::JobDone).unwrap();
        let (outcome, output) = unit.end(&request, None).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(outcome, Outcome::Exited(code), "{said}");
        let asked = unit.world.borrow().asked.clone();
        assert_eq!(asked.contains(&"StopUnit nginx.service replace".to_owned()), code == 2, "{asked:?}");
        assert_eq!(unit.file().contains("two"), code == 0);
        assert_eq!(report(&output)["running"], json!(true));
    }
}

/// Whoever restarts nginx between the change and its reload has started it with the change.
#[tokio::test]
async fn an_nginx_that_others_restarted_behind_the_change_reads_what_was_there() {
    let Some(unit) = unit("an nginx that others restart").await else { return };
    let request = unit.begin().await;
    unit.web.kill();
    unit.web.start();
    assert_eq!(unit.web.body().as_deref(), Some("two"), "it came up with the change");
    unit.world.send_modify(|world| world.result = Some("done"));
    unit.happens.send(Event::JobDone).unwrap();
    let (outcome, output) = unit.end(&request, None).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Exited(2), "{said}");
    assert!(unit.file().contains("one"));
    assert_eq!(unit.web.body().as_deref(), Some("one"), "and it has read what was there: {said}");
    assert_eq!(report(&output)["running"], json!(true));
}

/// The next boot has started nginx with the change before the run is stopped, which has not come to its own reload.
#[tokio::test]
async fn a_run_that_is_stopped_in_the_next_boot_has_nginx_read_what_was_there() {
    let Some(mut unit) = unit("stopping in the next boot").await else { return };
    let request = unit.begin_within(json!({}), 20_000).await;
    cut_power(&unit.web.life, request.run);
    unit.web.kill();
    unit.world.send_modify(|world| {
        (world.open, world.result) = (0, Some("done"));
        world.units.insert("nginx.service".into(), ("loaded", "active".into(), 1));
    });
    unit.web.start();
    assert_eq!(unit.web.body().as_deref(), Some("two"));
    // Its first look at the configuration lasts until somebody writes to this, and then there is an empty file.
    let (gate, held) = (unit.web.path("files/gate"), unit.web.path("files/held"));
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::hard_link(&gate, &held).unwrap();
    unit.web.configure("include files/gate;\n    include sites-enabled/*;");
    unit.web.life = unit.web.machine.start(boot(2));
    let open = OpenRun { run: request.run, offset: 0, started: true, cancel: None, dispatch: None };
    let Opened::Held(progress) = unit.web.life.runs.open(open).await else { panic!("unknown") };
    unit.says(&request, "taken up again").await;
    let process = process(&unit, &request);
    unit.web.life.runs.cancel(request.run, CancelCause::Requested);
    while !has_signal(&process) {
        tokio::task::yield_now().await;
    }
    fs::write(unit.web.path("files/empty"), "").unwrap();
    fs::rename(unit.web.path("files/empty"), &gate).unwrap();
    std::thread::spawn(move || drop(fs::File::options().write(true).open(held)));
    let end = finished(progress).await;
    let output = unit.web.life.output(request.run, &end);
    let outcome = end.outcome;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Cancelled, "{said}");
    assert_eq!((unit.file().contains("one"), unit.web.body().as_deref()), (true, Some("one")), "{said}");
}

/// The same, where others have broken the file since nginx read it.
#[tokio::test]
async fn a_file_that_is_broken_in_the_next_boot_is_put_back_and_read() {
    let Some(mut unit) = unit("a broken file in the next boot").await else { return };
    let request = unit.begin().await;
    cut_power(&unit.web.life, request.run);
    unit.web.kill();
    unit.world.send_modify(|world| {
        (world.open, world.result) = (0, Some("done"));
        world.units.insert("nginx.service".into(), ("loaded", "active".into(), 1));
    });
    unit.web.start();
    fs::write(unit.web.path("sites-available/shop"), unit.file() + "no_such_directive;\n").unwrap();
    unit.web.life = unit.web.machine.start(boot(2));
    let (outcome, output) = unit.end(&request, None).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Exited(2), "{said}");
    assert_eq!((unit.file().contains("one"), unit.web.body().as_deref()), (true, Some("one")), "{said}");
}

/// Its configuration names another file for its id than the one that it has written: it runs all the same.
#[tokio::test]
async fn an_nginx_whose_id_is_looked_for_elsewhere_is_found_by_its_unit() {
    let Some(unit) = unit("another file of the id").await else { return };
    let config = fs::read_to_string(unit.web.path("nginx.conf")).unwrap();
    let elsewhere = config.replace("pid nginx.pid;", "pid files/other.pid;");
    fs::write(unit.web.path("nginx.conf"), &elsewhere).unwrap();
    let mut site = unit.web.site("two");
    site["start"] = json!(true);
    let told = unit.web.done(&site).await;
    assert_eq!((&told["running"], &told["reloaded"]), (&json!(true), &json!(true)));
    assert_eq!(unit.web.body().as_deref(), Some("two"));
    assert_eq!(
        unit.world.borrow().asked,
        [""; 0],
        "it was not started, and what reloads it would not have found it"
    );
    // From the other file to the first one again, and it is not stopped when the site is not answered as it should be.
    fs::write(unit.web.path("nginx.conf"), &config).unwrap();
    let mut site = unit.web.site("three");
    (site["start"], site["probe"]) = (json!(true), json!({ "status": 204 }));
    let request = unit.web.request(&site);
    drop(unit.web.life.begin(&request).await);
    drop(unit.world.subscribe().wait_for(|world| world.open == 1).await.unwrap());
    assert!(unit.web.nginx(&["-s", "reload"]));
    unit.happens.send(Event::JobDone).unwrap();
    let (outcome, output) = unit.end(&request, None).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(outcome, Outcome::Exited(2), "{said}");
    assert!(said.contains("was answered with 200, and not with 204"), "{said}");
    assert_eq!(unit.world.borrow().asked, ["ReloadUnit nginx.service replace"]);
    assert_eq!(unit.web.body().as_deref(), Some("two"));
}
