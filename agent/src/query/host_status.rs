//! Shows how the host is. What it cannot find out is left out: the rest is worth knowing.

use std::time::Duration;

use fleetward_protocol::query::host_status::{HostStatus, HostStatusItem};
use fleetward_protocol::text::{List, Text, Word};

use super::Agent;
use super::look::Look;
use super::packages::Updates;
use super::teller::{Stop, Teller};
use crate::config::Paths;
use crate::platform::apt::wanted::{self, RebootWanted};
use crate::platform::health::{self, Resource};
use crate::platform::systemd::units::Units;
use crate::platform::{clock, facts, files};
use crate::status;

/// How long systemd and apt are waited for. Both are asked at the same time.
const PATIENCE: Duration = Duration::from_secs(30);

impl Look for HostStatus {
    async fn look(&self, _follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let (state, updates) = tokio::join!(
            tokio::time::timeout(PATIENCE, async { Units::connect().await?.read_state().await }),
            tokio::time::timeout(PATIENCE, Updates::read()),
        );
        let (system, failed_units) = state.ok().and_then(Result::ok).unwrap_or_default();
        let updates = updates.ok().and_then(Result::ok);
        teller
            .item(&HostStatusItem {
                system: system.map(Text::of),
                failed_units,
                updates: updates.map(|updates| updates.pending),
                security_updates: updates.map(|updates| updates.security),
                ..agent(teller.agent(), host())
            })
            .await
    }
}

fn host() -> HostStatusItem {
    let facts = facts::read();
    let RebootWanted { is_wanted, packages } = wanted::read_reboot();
    HostStatusItem {
        hostname: facts.hostname,
        os_name: facts.os_name,
        kernel: facts.kernel,
        virtualisation: facts.virtualisation,
        up_since: (facts.uptime_s > 0).then(|| clock::now() - Duration::from_secs(facts.uptime_s)),
        uptime_s: facts.uptime_s,
        cpus: facts.cpus,
        load: facts.load,
        cpu_pressure: health::read_pressure(Resource::Cpu),
        memory_pressure: health::read_pressure(Resource::Memory),
        io_pressure: health::read_pressure(Resource::Io),
        memory_total: facts.memory_total,
        memory_available: facts.memory_available,
        swap_total: facts.swap_total,
        swap_used: health::read_swap_used(),
        time_synchronised: clock::read_is_synchronised(),
        reboot_required: is_wanted,
        reboot_packages: List::of(packages.iter().map(Text::of)),
        ..HostStatusItem::default()
    }
}

/// The same with what there is to know of the agent.
fn agent(agent: &Agent, host: HostStatusItem) -> HostStatusItem {
    let paths = Paths { state: agent.state.clone(), ..Paths::default() };
    // Whoever looks for the report of another one finds none.
    let report = status::read_report(&paths).filter(|report| report.pid == agent.pid);
    let since = report.as_ref().and_then(|report| report.since_ms);
    HostStatusItem {
        agent_version: Word::of(crate::VERSION),
        agent_uptime_s: health::read_age(agent.pid).map(|age| age.as_secs()),
        agent_memory: health::read_memory(agent.pid),
        agent_controller: report.and_then(|report| report.controller).map(Text::of),
        agent_connected_since: since.map(fleetward_protocol::time::Timestamp::from_millis),
        agent_journal: health::read_size(&paths.journal()),
        agent_free: files::read_free_space(&paths.state).ok(),
        ..host
    }
}
