//! The playbook in `ansible/`, run by a real ansible over a real ssh.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use xtask::{process, workspace};

use xtask::fleet::Fleet;
use xtask::package::built;

#[test]
fn the_playbook_enrols_a_host() -> Result<()> {
    ensure!(process::is_installed("ansible-playbook"), "ansible is missing: apt-get install ansible-core");
    let fleet = Fleet::up("ansible", 1)?;
    let host = fleet.lab.host("h1")?;
    let directory = tempfile::tempdir()?;
    let key = directory.path().join("key");
    process::succeed(
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key),
        Duration::from_secs(20),
    )?;
    host.accept_ssh(&key.with_extension("pub"))?;
    let inventory = directory.path().join("hosts.ini");
    fs::write(
        &inventory,
        format!(
            "h1 ansible_host={} ansible_user=root ansible_ssh_private_key_file={} \
             ansible_ssh_common_args='-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null' \
             ansible_python_interpreter=/usr/bin/python3\n",
            host.address(),
            key.display()
        ),
    )?;
    // The playbook calls `fleetward` here; this one knows where the operator is logged in.
    let cli = directory.path().join("fleetward");
    fs::write(
        &cli,
        format!(
            "#!/bin/sh\nexport XDG_CONFIG_HOME='{}'\nexec '{}' \"$@\"\n",
            fleet.config().display(),
            fleet.program().display()
        ),
    )?;
    fs::set_permissions(&cli, fs::Permissions::from_mode(0o755))?;

    let play = || -> Result<String> {
        let mut play = fleet.lab.operator_command("ansible-playbook");
        play.arg("-i").arg(&inventory).arg(workspace::root().join("ansible/enrol.yml"));
        play.arg("-e").arg(format!("fleetward_agent_deb={}", built("fleetward-agent")?.display()));
        play.args(["-e", "fleetward_controller=ctl.example.com:7443", "-e"]);
        play.arg(format!("fleetward_cli={}", cli.display()));
        play.env("ANSIBLE_LOCAL_TEMP", directory.path())
            .env("ANSIBLE_NOCOLOR", "1")
            .env("ANSIBLE_HOME", directory.path());
        process::succeed(&mut play, Duration::from_secs(180))
    };
    play()?;
    fleet.wait_status("h1", "online", Duration::from_secs(20))?;
    // A second time changes nothing.
    let again = play()?;
    ensure!(again.contains("changed=0"), "{again}");
    Ok(())
}
