//! Everything known of one host.

use fleetward_api::fleet::host::{DuplicateIdentity, Enrolment, Host, Lifecycle, Source};
use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::name::Tag;

use super::latency;
use crate::render::size::bytes;
use crate::render::table::{Sheet, Tone};
use crate::render::time::span;
use crate::render::{Out, words};

/// The sheet of `host show`.
pub(super) fn sheet(host: &Host, out: &Out) -> String {
    let mut sheet = Sheet::default();
    let (status, tone) = words::host_status(host);
    // Since when it is on- or offline says nothing of when it was retired, revoked or added.
    let is_of_link = host.lifecycle == Lifecycle::Active && host.enrolment == Enrolment::Enrolled;
    let since =
        host.status_since.filter(|_| is_of_link).map(|time| format!(" since {}", out.clock.at_and_ago(time)));
    let tags: Vec<&str> = host.tags.iter().map(Tag::as_str).collect();
    sheet.row("Name", host.name.as_str());
    sheet.row("ID", host.id.to_string());
    sheet.toned(out, "Status", format!("{status}{}", since.unwrap_or_default()), tone);
    sheet.row("Type", &host.kind);
    sheet.row("Provider", &host.provider);
    sheet.row("Tags", tags.join(" "));
    sheet.row("Tenant", host.tenant.as_str());
    sheet.row("Client ID", host.client_id.as_str());
    sheet.row("Enrolment", words::enrolment(host.enrolment));
    sheet.row(
        "Comes from",
        match host.source {
            Source::Git => "the inventory repository",
            Source::Api => "the API",
            Source::Agent => "its own enrolment",
        },
    );
    sheet.row("Added", out.clock.at(host.created_at));
    sheet.row("Last seen", host.last_seen.map(|time| out.clock.at_and_ago(time)).unwrap_or_default());
    sheet.row("Latency", host.latency_ms.map(latency).unwrap_or_default());
    if let Some(skew) = host.clock_skew_ms.filter(|skew| skew.unsigned_abs() >= 1000) {
        let direction = if skew > 0 { "ahead of" } else { "behind" };
        let text = format!("{} {direction} the controller's", span(skew.unsigned_abs()));
        sheet.toned(out, "Clock", text, Tone::Warn);
    }
    sheet.row("Agent", host.agent_version.as_deref().unwrap_or_default());
    if let Some(notice) = &host.notice {
        sheet.toned(out, "Notice", notice, Tone::Warn);
    }
    if let Some(duplicate) = &host.duplicate_identity {
        duplicate_rows(&mut sheet, duplicate, out);
    }
    if let Some(facts) = &host.facts {
        fact_rows(&mut sheet, facts, out);
    }
    if let Some(upkeep) = &host.upkeep {
        upkeep_rows(&mut sheet, upkeep, out);
    }
    if let Some(ssh) = &host.ssh {
        let jump = ssh.proxy_jump.as_ref().map(|host| format!(" through {host}")).unwrap_or_default();
        sheet.row("SSH", format!("{}@{}:{}{jump}", ssh.user, ssh.address, ssh.port));
    }
    for (key, value) in &host.metadata {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        sheet.row("Metadata", format!("{key} = {value}"));
    }
    sheet.finish()
}

/// Both machines that use the host's identity, and what to do about it.
fn duplicate_rows(sheet: &mut Sheet, duplicate: &DuplicateIdentity, out: &Out) {
    let what = format!(
        "two machines use this host's identity: they have taken over from each other {} ×, last {}",
        duplicate.changes,
        out.clock.ago(duplicate.at)
    );
    sheet.toned(out, "Duplicate", what, Tone::Bad);
    for machine in &duplicate.machines {
        let text = format!(
            "{}, boot {}, journal {}, first seen {}, last {}",
            machine.address,
            machine.boot_id,
            machine.journal_id,
            out.clock.at_and_ago(machine.first_seen),
            out.clock.at_and_ago(machine.last_seen)
        );
        sheet.toned(out, "Machine", text, Tone::Bad);
    }
    sheet.row("Remedy", &duplicate.remedy);
}

fn fact_rows(sheet: &mut Sheet, facts: &Facts, out: &Out) {
    sheet.row("Host name", &facts.hostname);
    sheet.row("System", &facts.os_name);
    sheet.row("Kernel", format!("{} {}", facts.kernel, facts.arch));
    sheet.row("Virtualisation", &facts.virtualisation);
    sheet.row("CPU", format!("{} × {}", facts.cpus, facts.cpu_model).trim_end_matches(" × "));
    sheet.row(
        "Memory",
        format!("{} available of {}", bytes(facts.memory_available), bytes(facts.memory_total)),
    );
    if facts.swap_total > 0 {
        sheet.row("Swap", bytes(facts.swap_total));
    }
    for disk in &facts.disks {
        let text = format!(
            "{} available of {} on {} ({})",
            bytes(disk.available),
            bytes(disk.total),
            disk.mount,
            disk.file_system
        );
        // Below a twentieth a disk is as good as full.
        let tone = if disk.available < disk.total / 20 { Tone::Warn } else { Tone::Plain };
        sheet.toned(out, "Disk", text, tone);
    }
    sheet.row("Addresses", facts.addresses.join(" "));
    let [one, five, fifteen] = facts.load.map(|hundredths| f64::from(hundredths) / 100.0);
    sheet.row("Load", format!("{one:.2} {five:.2} {fifteen:.2}"));
    sheet.row("Up for", span(facts.uptime_s.saturating_mul(1000)));
    if facts.reboot_required {
        sheet.toned(out, "Reboot", "required by a package update", Tone::Warn);
    }
}

fn upkeep_rows(sheet: &mut Sheet, upkeep: &Upkeep, out: &Out) {
    match upkeep.time_synchronised {
        Some(false) => sheet.toned(out, "Time", "nothing keeps its clock right", Tone::Warn),
        Some(true) => sheet.row("Time", "synchronised"),
        None => {}
    }
    match (upkeep.updates, upkeep.security_updates.unwrap_or(0)) {
        (None, _) => {}
        (Some(updates), 0) => sheet.row("Updates", updates.to_string()),
        (Some(updates), security) => {
            sheet.toned(out, "Updates", format!("{updates}, {security} of them for security"), Tone::Warn);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    /// A host with this lifecycle and enrolment, offline since ten.
    fn sheet_of(lifecycle: &str, enrolment: &str) -> String {
        let host: Host = serde_json::from_value(serde_json::json!({
            "id": "01890000-0000-7000-8000-000000000001",
            "name": "web-1", "tenant": "default",
            "client_id": "FLEET-00000000-0000-4000-8000-000000000001",
            "type": "VM", "provider": "", "tags": [], "source": "api", "lifecycle": lifecycle,
            "enrolment": enrolment, "status": "offline", "status_since": "2026-01-01T10:00:00Z",
            "created_at": "2026-01-01T09:00:00Z",
        }))
        .unwrap();
        sheet(
            &host,
            &Out::new(&Cli::parse_from(["fleetward", "version", "--utc", "--color", "never"]).globals),
        )
    }

    #[test]
    fn since_when_a_host_is_offline_is_not_since_when_it_is_something_else() {
        let since = |lifecycle, enrolment| sheet_of(lifecycle, enrolment).contains("since");
        assert!(since("active", "enrolled"));
        assert!(!since("active", "revoked") && !since("retired", "enrolled"));
    }

    #[test]
    fn two_machines_with_one_identity_are_shown_in_list_and_sheet() {
        let machine = |address: &str, boot: &str| {
            serde_json::json!({
                "address": address, "boot_id": boot, "journal_id": "j",
                "first_seen": "2026-01-01T10:00:00Z", "last_seen": "2026-01-01T10:05:00Z",
            })
        };
        let host: Host = serde_json::from_value(serde_json::json!({
            "id": "01890000-0000-7000-8000-000000000001",
            "name": "web-1", "tenant": "default",
            "client_id": "FLEET-00000000-0000-4000-8000-000000000001",
            "type": "VM", "provider": "", "tags": [], "source": "api", "lifecycle": "active",
            "enrolment": "enrolled", "status": "online", "created_at": "2026-01-01T09:00:00Z",
            "duplicate_identity": {
                "machines": [machine("192.0.2.1", "boot-a"), machine("2001:db8::2", "boot-b")],
                "since": "2026-01-01T10:00:00Z", "at": "2026-01-01T10:05:00Z", "changes": 5,
                "remedy": "stop the agent on the machine that is to go",
            },
        }))
        .unwrap();
        let cli = Cli::parse_from(["fleetward", "version", "--utc", "--color", "never"]);
        let out = Out::new(&cli.globals);
        let shown = sheet(&host, &out);
        for part in [
            "192.0.2.1, boot boot-a",
            "2001:db8::2, boot boot-b",
            "5 ×",
            "stop the agent",
            "online, duplicate",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(super::super::table(&[host], &out).contains("online, duplicate"));
    }
}
