//! All commands have one way to their settings.

use std::fs;
use std::path::Path;

use fleetward_app::clock::Clock;
use fleetward_app::testing::Log;

use super::*;
use crate::running::Running;

fn execute(arguments: &[&str]) -> anyhow::Result<()> {
    Cli::try_parse_from([&["fleetward-controller"], arguments].concat()).unwrap().execute()
}

/// A configuration file that says where everything is.
fn written(directory: &Path) -> String {
    let file = directory.join("controller.toml");
    let data = directory.join("data");
    let database = directory.join("elsewhere.db");
    let text = format!(
        "data = '{}'\ndatabase = 'sqlite:{}'\nname = 'ctl.example.com'\n[http]\nlisten = '127.0.0.1:0'\n\
         plain_loopback = true\n[link]\nlisten = '127.0.0.1:0'\n",
        data.display(),
        database.display()
    );
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn init_and_every_later_command_open_the_database_of_the_configuration_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path());
    execute(&["init", "--config", &file]).unwrap();
    assert!(directory.path().join("elsewhere.db").exists());
    assert!(!directory.path().join("data/fleetward.db").exists());
    execute(&["user", "reset-password", "admin", "--config", &file]).unwrap();
    execute(&["user", "add", "bob", "--config", &file]).unwrap();
    execute(&["audit", "verify", "--config", &file]).unwrap();
    execute(&["accept-keys", "--config", &file]).unwrap();
    execute(&["check-config", "--config", &file]).unwrap();
    let again = execute(&["init", "--config", &file]).unwrap_err().to_string();
    assert!(again.contains("exists already"), "{again}");
    let nobody = execute(&["user", "reset-password", "carol", "--config", &file]).unwrap_err().to_string();
    assert!(nobody.contains("user add carol"), "{nobody}");
}

/// It is `init` that makes one, and a file that only holds nothing would keep it from that.
#[test]
fn a_command_that_needs_a_database_makes_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path());
    for command in [&["user", "add", "bob"][..], &["audit", "verify"], &["accept-keys"]] {
        let told = execute(&[command, &["--config", &file]].concat()).unwrap_err().to_string();
        assert!(told.contains("elsewhere.db") && told.contains("init"), "{told}");
    }
    assert!(!directory.path().join("elsewhere.db").exists());
    execute(&["init", "--config", &file]).unwrap();
}

#[test]
fn init_without_a_name_says_how_to_give_one() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").display().to_string();
    let told = execute(&["init", "--data", &data]).unwrap_err().to_string();
    assert!(told.contains("--name"), "{told}");
    assert!(!Path::new(&data).exists());
    for name in ["https://ctl.example.com", "a b"] {
        Cli::try_parse_from(["fleetward-controller", "init", "--name", name]).unwrap_err();
    }
}

/// What the unit's `RestartPreventExitStatus` goes by.
#[test]
fn what_no_further_start_mends_has_an_exit_code_of_its_own() {
    let unit = include_str!("../../../systemd/fleetward-controller.service");
    assert!(unit.contains(&format!("\nRestartPreventExitStatus={}\n", serve::EX_CONFIG)));
    assert!(unit.contains("\nType=notify\n") && !unit.contains("\nCondition"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("controller.toml");
    let name = file.display().to_string();
    fs::write(&file, "[link]\nlisten = 'x'\n").unwrap();
    assert!(serve::is_for_good(&execute(&["serve", "--config", &name]).unwrap_err()));
    let data = directory.path().join("data").display().to_string();
    fs::write(&file, format!("data = '{data}'\n")).unwrap();
    let error = execute(&["serve", "--config", &name]).unwrap_err();
    assert!(serve::is_for_good(&error) && format!("{error:#}").contains("init"), "{error:#}");
    let missing = fleetward_pki::PkiError::Missing(data.into());
    let start = crate::running::StartError::Pki(missing);
    assert!(serve::is_for_good(&start.into()));
    assert!(!serve::is_for_good(&anyhow::anyhow!("the network is down")));
}

#[test]
fn every_command_takes_the_same_settings() {
    for command in [
        &["serve"][..],
        &["check-config"],
        &["init"],
        &["accept-keys"],
        &["audit", "verify"],
        &["user", "add", "bob"],
    ] {
        let settings = [
            "--config",
            "/c",
            "--data",
            "/d",
            "--database",
            "sqlite:/x",
            "--name",
            "x",
            "--http-listen",
            "[::1]:1",
            "--link-listen",
            "[::1]:2",
            "--http-plain-loopback",
        ];
        Cli::try_parse_from([&["fleetward-controller"], command, &settings].concat()).unwrap();
    }
}

#[test]
fn a_controller_whose_database_has_no_user_says_so_and_how_to_make_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path());
    execute(&["init", "--config", &file]).unwrap();
    let other = format!("sqlite:{}", directory.path().join("other.db").display());
    let said = |more: &[&str]| {
        let arguments = [&["fleetward-controller", "check-config", "--config", &file], more].concat();
        let Command::CheckConfig(settings) = Cli::try_parse_from(arguments).unwrap().command else {
            unreachable!()
        };
        let log = Log::default();
        tracing::subscriber::with_default(log.subscriber(), || {
            block_on(async {
                let running = Running::start(settings.load().unwrap(), Clock::System).await.unwrap();
                running.shutdown().await;
            })
            .unwrap();
        });
        log.take("controller.has_no_user")
    };
    assert!(said(&[]).is_empty());
    let told = said(&["--database", &other]);
    assert!(told[0]["fields"]["remedy"].as_str().unwrap().contains("user add"), "{told:?}");
}
