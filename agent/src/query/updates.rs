//! Counts the updates that there are for this host: by a process of its own, as when somebody asks how the host is.

use fleetward_protocol::message::QueryUp;
use fleetward_protocol::query::host_status::{HostStatus, HostStatusItem};
use fleetward_protocol::query::{Contract as _, Query, read_item};
use fleetward_protocol::wire::{self, MAX_QUERY_FRAME};
use serde_json::Value;

use super::{Agent, Asked, LOOK, Queries, take};
use crate::platform::looker::Looker;

/// Updates of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Packages with a newer version.
    pub updates: u32,
    /// Those of them where a newer version fixes security.
    pub security: u32,
}

impl Queries {
    /// How many there are. None where the owner does not let the host be asked how it is, and where the host cannot tell.
    pub async fn count_updates(&self) -> Option<Counted> {
        let settings = self.runs.settings().ok()?;
        if settings.policy.kinds.as_ref().is_some_and(|kinds| !kinds.contains(HostStatus::KIND)) {
            return None;
        }
        let host = self.runs.host();
        let asked = Asked {
            request: Query::from(HostStatus {}).request().ok()?,
            follow: false,
            allowed: settings.policy.allowed(HostStatus::KIND),
            identity: None,
            agent: Agent { pid: std::process::id(), state: host.paths.state.clone() },
        };
        let input = wire::frame(&asked, MAX_QUERY_FRAME).ok()?;
        let looker = Looker::start(&host.supervisor, LOOK, &input, &host.places()).await.ok()?;
        tokio::time::timeout(HostStatus::DEFAULT_TIMEOUT, hear(looker)).await.ok()?
    }
}

async fn hear(mut looker: Looker) -> Option<Counted> {
    let mut said = Vec::new();
    loop {
        match take(&mut said).ok()? {
            Some(QueryUp::Items(items)) => {
                let item = Value::Object(read_item(&items.first()?.item).ok()?);
                let status: HostStatusItem = serde_json::from_value(item).ok()?;
                return Some(Counted { updates: status.updates?, security: status.security_updates? });
            }
            Some(_) => return None,
            None if looker.read(&mut said).await.ok()? == 0 => return None,
            None => {}
        }
    }
}
