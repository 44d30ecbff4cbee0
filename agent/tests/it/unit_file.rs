//! The kind `unit-file`, with a real message bus and a systemd of our own on it.

use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::action::unit_file::{FileVerb, UnitFile, UnitFileReport};
use fleetward_protocol::event::StepState;
use fleetward_protocol::run::Outcome;

use crate::host::{Life, Machine, Output, Request, boot, script};
use crate::systemd::{Bus, Shared, World, machine};

/// A machine with a bus, and our systemd on it.
struct Site {
    life: Life,
    world: Shared,
    machine: Machine,
    _bus: Bus,
}

/// `None` where there can be none here.
fn site(test: &str) -> Option<Site> {
    let mut world = World::default();
    for (unit, file) in [
        ("web.service", "enabled"),
        ("off.service", "disabled"),
        ("static.service", "static"),
        ("stubborn.service", "disabled"),
        ("made.service", "generated"),
        ("also.service", "indirect"),
        ("today.service", "enabled-runtime"),
    ] {
        world.units.insert(unit.into(), ("loaded", "inactive".into(), 0));
        world.files.insert(unit.into(), file);
    }
    let (machine, bus, world, _) = machine(test, world)?;
    let life = machine.start(boot(1));
    Some(Site { life, world, machine, _bus: bus })
}

impl Site {
    async fn ask(&self, verb: FileVerb, unit: &str) -> (Outcome, Output) {
        let typed = ActionRequest::new(&UnitFile { unit: unit.parse().unwrap(), verb }).unwrap();
        let request = Request { typed: Some(typed), content: String::new(), ..script("") };
        let end = self.life.finish(&request).await;
        let output = self.life.output(request.run, &end);
        (end.outcome, output)
    }
}

fn report(output: &Output) -> UnitFileReport {
    serde_json::from_value(output.report.clone().expect("a report")).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_unit_is_enabled_and_masked_and_left_alone_the_second_time() {
    let Some(site) = site("enabling a unit") else { return };
    for (verb, before, after) in [
        (FileVerb::Enable, "disabled", "enabled"),
        (FileVerb::Mask, "enabled", "masked"),
        (FileVerb::Unmask, "masked", "disabled"),
    ] {
        let (outcome, output) = site.ask(verb, "off.service").await;
        assert_eq!((outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
        let told = report(&output);
        assert_eq!((told.changed, told.before.as_str(), told.after.as_str()), (true, before, after));
        assert!(text(&output.stdout).contains("symlink /etc/systemd/system/off.service"), "{output:?}");
        assert_eq!(told.links.len(), 1);
        let asked = site.world.borrow().asked.len();
        let (outcome, output) = site.ask(verb, "off.service").await;
        assert_eq!((outcome, report(&output).changed), (Outcome::Exited(0), false));
        assert_eq!(output.events.last().unwrap().state, StepState::Unchanged);
        assert_eq!(site.world.borrow().asked.len(), asked, "nothing was asked for");
    }
    let asked = site.world.borrow().asked.clone();
    assert_eq!(asked[..2], ["EnableUnitFiles off.service", "Reload"]);
}

#[tokio::test]
async fn what_cannot_be_is_told_before_anything_is_done() {
    let Some(site) = site("units that cannot be enabled") else { return };
    for (verb, unit, told) in [
        (FileVerb::Enable, "nothing.service", "there is no unit nothing.service"),
        (FileVerb::Disable, "made.service", "made by a program"),
        // The opposite of what is asked would last for good.
        (FileVerb::Disable, "today.service", "until the next boot"),
    ] {
        let (outcome, output) = site.ask(verb, unit).await;
        assert_eq!(outcome, Outcome::Exited(1));
        assert!(text(&output.stderr).contains(told), "{output:?}");
    }
    let (outcome, _) = site.ask(FileVerb::Mask, "web.service").await;
    assert_eq!(outcome, Outcome::Exited(0));
    let (outcome, output) = site.ask(FileVerb::Enable, "web.service").await;
    assert_eq!(outcome, Outcome::Exited(1));
    assert!(text(&output.stderr).contains("is masked"), "{output:?}");
    assert!(!site.world.borrow().asked.iter().any(|asked| asked.starts_with("Enable")));
}

#[tokio::test]
async fn a_unit_that_enables_others_is_enabled_when_they_are() {
    let Some(site) = site("a unit that names another one") else { return };
    let (outcome, output) = site.ask(FileVerb::Enable, "also.service").await;
    assert_eq!((outcome, report(&output).after.as_str()), (Outcome::Exited(0), "indirect"), "{output:?}");
}

/// The opposite verb restores nothing: it could change what was right.
#[tokio::test]
async fn what_does_not_come_out_as_asked_for_is_told_and_left() {
    let Some(site) = site("a unit that stays as it is") else { return };
    for (unit, told, changed) in [
        ("stubborn.service", "another file or link may be stronger", true),
        ("static.service", "no [Install] section", false),
    ] {
        let (outcome, output) = site.ask(FileVerb::Enable, unit).await;
        assert_eq!(outcome, Outcome::Exited(1), "{output:?}");
        assert!(text(&output.stderr).contains(told), "{output:?}");
        assert_eq!(report(&output).changed, changed, "{output:?}");
    }
    site.world.send_modify(|world| world.refuses_reload = true);
    let (outcome, output) = site.ask(FileVerb::Enable, "off.service").await;
    assert_eq!((outcome, report(&output).links.len()), (Outcome::Exited(1), 1));
    assert!(text(&output.stderr).contains("systemctl daemon-reload"), "{output:?}");
    let asked = site.world.borrow().asked.clone();
    assert!(!asked.iter().any(|asked| asked.starts_with("Disable")), "{asked:?}");
}

#[tokio::test]
async fn the_agents_own_unit_stays_in_the_boot() {
    let Some(site) = site("the agent's own unit") else { return };
    site.world.send_modify(|world| world.own = Some("web.service"));
    for verb in [FileVerb::Disable, FileVerb::Mask] {
        let (outcome, output) = site.ask(verb, "web.service").await;
        let stderr = text(&output.stderr);
        assert_eq!(outcome, Outcome::Exited(1));
        assert!(stderr.contains("the unit of this host's agent, and after the next boot"), "{stderr}");
        assert!(
            stderr.contains(&format!("run `systemctl {verb} web.service` on the host itself")),
            "{stderr}"
        );
    }
    // What it needs, and what starts it.
    site.world.send_modify(|world| {
        for (unit, active) in
            [("base.slice", "active"), ("multi.target", "active"), ("other.target", "inactive")]
        {
            world.units.insert(unit.into(), ("loaded", active.into(), 0));
            world.files.insert(unit.into(), "static");
        }
        world.dependencies.insert(("web.service", "Requires"), vec!["middle.socket"]);
        world.dependencies.insert(("middle.socket", "BindsTo"), vec!["base.slice"]);
        world.dependencies.insert(("web.service", "WantedBy"), vec!["multi.target", "other.target"]);
        world.dependencies.insert(("multi.target", "Requires"), vec!["early.target"]);
        world.dependencies.insert(("early.target", "Requires"), vec!["first.target"]);
        for unit in ["early.target", "first.target", "local-fs.target"] {
            world.units.insert(unit.into(), ("loaded", "active".into(), 0));
            world.files.insert(unit.into(), "static");
        }
        world.units.insert("thief.service".into(), ("loaded", "inactive".into(), 0));
        world.files.insert("thief.service".into(), "disabled");
        for unit in ["needed.service", "off.service"] {
            world.units.insert(unit.into(), ("loaded", "inactive".into(), 0));
            world.files.insert(unit.into(), "disabled");
        }
    });
    for (verb, unit, told) in [
        (
            FileVerb::Mask,
            "base.slice",
            "would not start without it (web.service needs middle.socket, which needs base.slice)",
        ),
        (FileVerb::Mask, "multi.target", "is started by it (multi.target starts web.service)"),
        (
            FileVerb::Mask,
            "first.target",
            "multi.target needs early.target, which needs first.target, and multi.target has a part in starting web.service",
        ),
        (FileVerb::Mask, "local-fs.target", "no host comes up as it should without it"),
        (FileVerb::Mask, "dbus.socket", "this host's agent asks systemd through it"),
        (FileVerb::Disable, "middle.socket", "would not start without it"),
    ] {
        let (outcome, output) = site.ask(verb, unit).await;
        let stderr = text(&output.stderr);
        assert_eq!(outcome, Outcome::Exited(1));
        assert!(stderr.contains(told), "{stderr}");
    }
    assert_eq!(site.world.borrow().asked, Vec::<String>::new());
    // Whose file says that it is called as the agent's unit is.
    let (outcome, output) = site.ask(FileVerb::Enable, "thief.service").await;
    let stderr = text(&output.stderr);
    assert_eq!(outcome, Outcome::Exited(1));
    assert!(
        stderr.contains("found as web.service") && stderr.contains("its links were removed again"),
        "{stderr}"
    );
    let asked = site.world.borrow().asked.clone();
    assert_eq!(asked, ["EnableUnitFiles thief.service", "DisableUnitFiles thief.service"]);
    // Whose file has the agent's unit need it: that is done, and said.
    for (unit, is_needed) in [("needed.service", true), ("off.service", false)] {
        let (outcome, output) = site.ask(FileVerb::Enable, unit).await;
        let stderr = text(&output.stderr);
        assert_eq!(outcome, Outcome::Exited(0), "{stderr}");
        assert_eq!(
            stderr.contains(&format!("web.service, the unit of this host's agent, needs {unit}")),
            is_needed,
            "{stderr}"
        );
    }
    let (outcome, _) = site.ask(FileVerb::Mask, "other.target").await;
    assert_eq!(outcome, Outcome::Exited(0), "what did not start it in this boot");
    let (outcome, _) = site.ask(FileVerb::Disable, "stubborn.service").await;
    assert_eq!(outcome, Outcome::Exited(0), "others are as before");
}

/// The links that enable a unit may be those of others.
#[tokio::test]
async fn nothing_is_enabled_that_the_owner_does_not_name() {
    let Some(site) = site("the owner's rule for what is enabled") else { return };
    let units = site.machine.path("etc/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    site.world.send_modify(|world| world.directory = Some(units.display().to_string()));
    let rules = "[policy.rules.unit-file]\nunits = ['off', 'web-*']\n";
    std::fs::write(site.machine.paths().config, rules).unwrap();
    for (install, told) in [
        ("Alias=web.service", "names web.service in its [Install] section (Alias=)"),
        ("Also=stubborn.service", "names stubborn.service in its [Install] section (Also=)"),
        ("RequiredBy=web.service", "names web.service in its [Install] section"),
    ] {
        std::fs::write(units.join("off.service"), format!("[Install]\n{install}\n")).unwrap();
        let (outcome, output) = site.ask(FileVerb::Enable, "off.service").await;
        let said = text(&output.stderr);
        assert_eq!(outcome, Outcome::Exited(1), "{install}");
        assert!(said.contains(told) && said.contains("policy.rules.unit-file.units"), "{said}");
    }
    assert!(site.world.borrow().asked.is_empty());
    std::fs::write(
        units.join("off.service"),
        "[Install]\nWantedBy=multi-user.target\nAlias=web-off.service\n",
    )
    .unwrap();
    let (outcome, output) = site.ask(FileVerb::Enable, "off.service").await;
    assert_eq!(outcome, Outcome::Exited(0), "{}", text(&output.stderr));
}
