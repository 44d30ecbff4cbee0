//! Where units stand in the boot: the links that enable, disable and mask them.

use std::collections::HashSet;
use std::path::Path;

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
    /// as wanted are left alone. Enabled under a name to `keep` (`Alias=` in its file), it would be found in the place of another
    /// unit: then its links are removed again.
    ///
    /// # Errors
    /// If systemd refuses it, or cannot be asked; [`SystemdError::Replaces`].
    pub fn set_links(
        &self,
        unit: &UnitName,
        links: Links,
        keep: &HashSet<String>,
    ) -> Result<Linked, SystemdError> {
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
            if links == Links::Enable
                && let Some(name) = changes.iter().find_map(|(_, path, _)| replaced(path, unit, keep))
            {
                // Before systemd reads it, and before the next boot does.
                let undone: Result<(Changes,), _> =
                    ask(connection, PATH, MANAGER, "DisableUnitFiles", &(&files[..], now_only)).await;
                return Err(SystemdError::Replaces { name: Text::of(name), undone: undone.is_ok() });
            }
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

/// The name under which a link has the unit found, if that is another one's to keep.
fn replaced(link: &str, unit: &UnitName, keep: &HashSet<String>) -> Option<String> {
    let link = Path::new(link);
    let name = link.file_name()?.to_str()?;
    // What stands in `a.target.wants` and the like says who starts it, and not what it is called.
    let is_name = link.parent()?.extension().is_none();
    (is_name && name != unit.as_str() && keep.contains(name)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_name_replaces_a_unit() {
        let keep = ["a.service", "x.service"].map(str::to_owned).into();
        let replaced = |link: &str| replaced(link, &"x.service".parse().unwrap(), &keep);
        assert_eq!(replaced("/etc/systemd/system/a.service").as_deref(), Some("a.service"));
        assert_eq!(replaced("/etc/systemd/system/multi-user.target.wants/a.service"), None);
        assert_eq!(replaced("/etc/systemd/system/x.service"), None);
        assert_eq!(replaced("/etc/systemd/system/b.service"), None);
    }
}
