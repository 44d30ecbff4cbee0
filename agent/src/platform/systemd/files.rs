//! Where units stand in the boot: the links that enable, disable and mask them.

use fleetward_protocol::action::unit::UnitName;
use fleetward_protocol::text::{Line, Text, Word};

use super::{MANAGER, PATH, Systemd, SystemdError, ask, call};

/// What can be done with the links of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Make those that its `[Install]` section asks for.
    Enable,
    /// Remove those.
    Disable,
    /// Make one that lets nobody start it.
    Mask,
    /// Remove that.
    Unmask,
}

/// A link that was made or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `symlink` or `unlink`.
    pub change: Word,
    /// Where it stands, or stood.
    pub path: Line,
    /// Where it leads; nothing where it was removed.
    pub target: Line,
}

/// What became of the links.
#[derive(Debug)]
pub struct Linked {
    /// Those that were made or removed.
    pub links: Vec<Link>,
    /// Whether the unit says where in the boot it belongs; one that does not cannot be enabled.
    pub says_where: bool,
    /// Why systemd did not read its files again, if it did not.
    pub not_reloaded: Option<SystemdError>,
}

impl Linked {
    /// Links that were made before the host restarted: which ones is not known any more, and systemd has read all its files
    /// since.
    #[must_use]
    pub const fn before_a_restart() -> Self {
        Self { links: Vec::new(), says_where: true, not_reloaded: None }
    }
}

impl Systemd {
    /// Makes or removes links of a unit for this and every later boot, and has systemd read its files again. Links that are
    /// as wanted are left alone.
    ///
    /// # Errors
    /// If systemd refuses it, or cannot be asked.
    pub fn set_links(&self, unit: &UnitName, links: Links) -> Result<Linked, SystemdError> {
        type Changes = Vec<(String, String, String)>;
        let (files, now_only, force) = ([unit.as_str()], false, false);
        self.runtime.block_on(async {
            let connection = &self.connection;
            let (says_where, changes): (bool, Changes) = match links {
                Links::Enable => {
                    ask(connection, PATH, MANAGER, "EnableUnitFiles", &(&files[..], now_only, force)).await?
                }
                Links::Mask => {
                    let (changes,) =
                        ask(connection, PATH, MANAGER, "MaskUnitFiles", &(&files[..], now_only, force))
                            .await?;
                    (true, changes)
                }
                Links::Disable | Links::Unmask => {
                    let method = if links == Links::Disable { "DisableUnitFiles" } else { "UnmaskUnitFiles" };
                    let (changes,) = ask(connection, PATH, MANAGER, method, &(&files[..], now_only)).await?;
                    (true, changes)
                }
            };
            // The links are as they are, whatever becomes of this.
            let not_reloaded = match changes.is_empty() {
                true => None,
                false => call(connection, PATH, MANAGER, "Reload", &()).await.err(),
            };
            let link = |(change, path, target): (String, String, String)| Link {
                change: Text::of(change),
                path: Text::of(path),
                target: Text::of(target),
            };
            Ok(Linked { links: changes.into_iter().map(link).collect(), says_where, not_reloaded })
        })
    }
}
