//! Reboots the host, and tells what ran on it: through systemd-logind as `systemctl reboot` does, and through systemd itself
//! where there is no logind (org.freedesktop.login1(5), org.freedesktop.systemd1(5)).

use std::collections::HashMap;

use fleetward_protocol::text::{Line, Text, Word};
use serde::Serialize;
use zbus::{DynamicType, Message, OwnedObjectPath, OwnedVariant};

use super::{
    MANAGER, PATH, PROPERTIES, Systemd, SystemdError, UNIT, ask, body, interface, patiently, property,
};

pub(super) const LOGIN: &str = "org.freedesktop.login1";
pub(super) const LOGIN_PATH: &str = "/org/freedesktop/login1";
pub(super) const LOGIN_MANAGER: &str = "org.freedesktop.login1.Manager";
/// `SD_LOGIND_SKIP_INHIBITORS`.
const SKIP_INHIBITORS: u64 = 1 << 4;
/// Errors that say that nobody is there who could be asked.
const NOBODY: [&str; 5] =
    [".ServiceUnknown", ".NameHasNoOwner", ".Spawn.ServiceNotFound", ".NoSuchUnit", ".UnitMasked"];
/// The properties that name the units that have a unit started with them, at boot for one.
const STARTED_BY: [&str; 3] = ["WantedBy", "RequiredBy", "UpheldBy"];

/// Somebody has asked that the host does not go down now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inhibitor {
    /// Who and why, in words.
    pub words: Line,
    /// Whether the host has to stay up; otherwise it only waits a moment.
    pub blocks: bool,
}

/// How the whole of it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// `starting`, `running`, `degraded`, `stopping`, …
    pub state: Word,
    /// The services that are active and that a boot brings back, or that somebody has started for good.
    pub services: Vec<Word>,
    /// All services that are active, whatever started them.
    pub active: Vec<Word>,
    /// The units that failed.
    pub failed: Vec<Word>,
}

type Row = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

impl Systemd {
    /// Who has asked that the host does not go down now. Nobody, where there is no logind.
    ///
    /// # Errors
    /// If it does not tell.
    pub fn read_inhibitors(&self) -> Result<Vec<Inhibitor>, SystemdError> {
        let listed = self.runtime.block_on(self.call_login("ListInhibitors", &()));
        let listed = match listed {
            Err(error) if is_nobody(&error) => return Ok(Vec::new()),
            listed => listed?,
        };
        type Row = (String, String, String, String, u32, u32);
        let rows: Vec<Row> = body(&listed)?;
        let about_us = rows.into_iter().filter(|(what, ..)| what.split(':').any(|what| what == "shutdown"));
        let inhibitor = |(_, who, why, mode, _, pid): Row| Inhibitor {
            words: Text::of(format_args!("{who} (process {pid}): {why}")),
            // `block-weak` gives way to whoever is root.
            blocks: mode == "block",
        };
        Ok(about_us.map(inhibitor).collect())
    }

    /// How the host is now.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_system(&self) -> Result<System, SystemdError> {
        self.runtime.block_on(async {
            let state: Option<String> = property(&self.connection, PATH, MANAGER, "SystemState").await?;
            let (states, patterns): (&[&str], &[&str]) = (&[], &[]);
            let rows: Vec<Row> =
                ask(&self.connection, PATH, MANAGER, "ListUnitsByPatterns", &(states, patterns)).await?;
            let mut system = System {
                state: Text::of(state.unwrap_or_default()),
                services: Vec::new(),
                active: Vec::new(),
                failed: Vec::new(),
            };
            for (name, _, _, active, _, _, path, ..) in rows {
                match active.as_str() {
                    "failed" => system.failed.push(Text::of(&name)),
                    "active" | "reloading" | "refreshing" if name.ends_with(".service") => {
                        system.active.push(Text::of(&name));
                        if self.lasts(&name, path.as_str()).await? {
                            system.services.push(Text::of(&name));
                        }
                    }
                    _ => {}
                }
            }
            Ok(system)
        })
    }

    /// Whether a service that is active is to be so after a boot. One that starts when somebody needs it, and what belongs to a
    /// login, comes back when it does.
    async fn lasts(&self, name: &str, path: &str) -> Result<bool, SystemdError> {
        let properties: HashMap<String, OwnedVariant> =
            ask(&self.connection, path, PROPERTIES, "GetAll", &(UNIT,)).await?;
        let names = |property: &str| {
            let value = properties.get(property).and_then(|value| value.try_clone().ok());
            value.and_then(|value| Vec::<String>::try_from(value).ok()).unwrap_or_default()
        };
        let text = |property: &str| {
            let value = properties.get(property).and_then(|value| value.try_clone().ok());
            value.and_then(|value| String::try_from(value).ok()).unwrap_or_default()
        };
        let file = text("UnitFileState");
        if file == "transient" || name.starts_with("user@") || name.starts_with("user-runtime-dir@") {
            return Ok(false);
        }
        let has_starter = STARTED_BY
            .iter()
            .flat_map(|property| names(property))
            .any(|starter| starter.ends_with(".target") || starter.ends_with(".service"));
        if has_starter {
            return Ok(true);
        }
        let bus: Option<String> = property(&self.connection, path, &interface(name), "BusName").await?;
        let is_on_demand = !names("TriggeredBy").is_empty() || bus.is_some_and(|bus| !bus.is_empty());
        // What has a place in the boot and is active without it was started by hand, and would be missed.
        Ok(!is_on_demand
            && matches!(file.as_str(), "enabled" | "enabled-runtime" | "disabled" | "indirect" | "linked"))
    }

    /// Has the host reboot: everything is stopped in order. Whether nobody asked that it stays up is not looked at here.
    ///
    /// # Errors
    /// If that is refused.
    pub fn reboot(&self, force: bool) -> Result<(), SystemdError> {
        self.runtime.block_on(async {
            if force {
                match self.call_login("RebootWithFlags", &(SKIP_INHIBITORS,)).await {
                    Ok(_) => return Ok(()),
                    Err(error) if is_nobody(&error) => return self.start_reboot_target().await,
                    // Older than 257 it knows no such flag, and root was never kept by what blocks; older than 248 no flags.
                    Err(SystemdError::Refused { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            match self.call_login("Reboot", &(false,)).await {
                Err(error) if is_nobody(&error) => self.start_reboot_target().await,
                done => done.map(drop),
            }
        })
    }

    async fn start_reboot_target(&self) -> Result<(), SystemdError> {
        let arguments = ("reboot.target", "replace-irreversibly");
        let _: OwnedObjectPath = ask(&self.connection, PATH, MANAGER, "StartUnit", &arguments).await?;
        Ok(())
    }

    async fn call_login(
        &self,
        method: &str,
        arguments: &(impl Serialize + DynamicType),
    ) -> Result<Message, SystemdError> {
        patiently(self.connection.call_method(
            Some(LOGIN),
            LOGIN_PATH,
            Some(LOGIN_MANAGER),
            method,
            arguments,
        ))
        .await
    }
}

/// Whether nobody is there who could be asked.
pub(super) fn is_nobody(error: &SystemdError) -> bool {
    matches!(error, SystemdError::Refused { name, .. } if NOBODY.iter().any(|nobody| name.ends_with(nobody)))
}
