//! Lists what is mounted, and how full it is.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use fleetward_protocol::path;
use fleetward_protocol::query::mounts::{MountItem, Mounts, percent};
use fleetward_protocol::text::Text;
use tokio::task::JoinSet;

use super::look::Look;
use super::teller::{Stop, Teller};
use crate::platform::mounts::{self, Mount, Unknown, Usage};

/// How long one may take to say how full it is.
const PATIENCE: Duration = Duration::from_secs(3);
/// So many are asked at the same time, each by a thread.
const AT_ONCE: usize = 64;

impl Look for Mounts {
    async fn look(&self, _follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let there = mounts::read().map_err(|error| {
            Stop::failed(format_args!(
                "/proc/self/mountinfo cannot be read: {error}; see whether /proc is mounted on the host"
            ))
        })?;
        let mut waiting = meant(self, there).into_iter();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < AT_ONCE
                && let Some(mount) = waiting.next()
            {
                asked.spawn(look_at(mount));
            }
            match asked.join_next().await {
                None => return Ok(()),
                Some(Ok((mount, usage))) => teller.item(&item(&mount, usage)).await?,
                Some(Err(error)) => return Err(Stop::failed(format_args!("{error}; ask again"))),
            }
        }
    }
}

/// Those that are asked about, in the order in which they are.
fn meant(asked: &Mounts, mut there: Vec<Mount>) -> Vec<Mount> {
    if !asked.all {
        let mut devices = HashSet::new();
        there.retain(|mount| mount.can_fill() && devices.insert(mount.device.clone()));
    }
    // Those that may hang keep nobody.
    there.sort_by_key(Mount::is_elsewhere);
    there
}

/// What takes no room is not asked how full it is; one of them (autofs) would mount something for it.
async fn look_at(mount: Mount) -> (Mount, Result<Usage, Unknown>) {
    let usage = match mount.is_view() {
        true => Err(Unknown::Refused),
        false => mounts::read_usage(mount.path.clone(), PATIENCE).await,
    };
    (mount, usage)
}

fn item(mount: &Mount, usage: Result<Usage, Unknown>) -> MountItem {
    let known = usage.ok();
    let (inodes, inodes_used) =
        (known.and_then(|known| known.inodes), known.and_then(|known| known.inodes_used));
    MountItem {
        mount: Text::of(path::shown(mount.path.as_os_str().as_bytes())),
        file_system: Text::of(&mount.file_system),
        source: Text::of(&mount.source),
        options: Text::of(mount.options.join(",")),
        read_only: mount.is_read_only(),
        size: known.map(|known| known.size),
        used: known.map(|known| known.used),
        available: known.map(|known| known.available),
        percent: known.and_then(|known| known.percent),
        inodes,
        inodes_used,
        inodes_percent: inodes_used.zip(inodes).and_then(|(used, of)| percent(used, of)),
        unresponsive: usage == Err(Unknown::Unresponsive),
        id: mount.id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: u64, device: &str, path: &str, file_system: &str) -> Mount {
        Mount {
            id,
            device: device.into(),
            path: path.into(),
            file_system: file_system.into(),
            source: "/dev/sda1".into(),
            options: vec!["rw".into()],
        }
    }

    #[test]
    fn each_file_system_is_asked_once_and_what_may_hang_last() {
        let there = || {
            vec![
                mount(1, "0:50", "/mnt/far", "nfs4"),
                mount(2, "8:1", "/", "ext4"),
                mount(3, "8:1", "/srv/bound", "ext4"),
                mount(4, "0:5", "/proc", "proc"),
            ]
        };
        let ids = |asked: &Mounts| meant(asked, there()).iter().map(|mount| mount.id).collect::<Vec<_>>();
        assert_eq!(ids(&Mounts::default()), [2, 1]);
        assert_eq!(ids(&Mounts { all: true }), [2, 3, 4, 1]);
    }

    /// Whoever may mount something chooses all of these.
    #[test]
    fn what_a_mount_is_called_looks_as_it_is() {
        let hostile = "a\u{1b}[2J\nb\u{202e}";
        let mount = Mount {
            source: hostile.into(),
            options: vec![hostile.into()],
            ..mount(1, "8:1", &format!("/{hostile}"), hostile)
        };
        let told = serde_json::to_string(&item(&mount, Err(Unknown::Refused))).unwrap();
        assert!(!told.contains("\\u001b") && !told.contains("\\n") && !told.contains('\u{202e}'), "{told}");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mount = mount(1, "8:1", "/", "ext4");
        let usage = Usage {
            size: 100,
            used: 50,
            available: 30,
            percent: Some(63),
            inodes: Some(10),
            inodes_used: Some(3),
        };
        let full = item(&mount, Ok(usage));
        assert_eq!(
            (full.size, full.used, full.available, full.percent),
            (Some(100), Some(50), Some(30), Some(63))
        );
        assert_eq!((full.inodes, full.inodes_used, full.inodes_percent), (Some(10), Some(3), Some(30)));
        assert!(!full.unresponsive && !full.read_only);
        for (why, unresponsive) in [(Unknown::Unresponsive, true), (Unknown::Refused, false)] {
            let item = item(&mount, Err(why));
            assert_eq!((item.size, item.inodes_percent, item.unresponsive), (None, None, unresponsive));
        }
    }
}
