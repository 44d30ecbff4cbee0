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
        let mut meant = mounts::read().map_err(|error| {
            Stop::failed(format_args!(
                "/proc/self/mountinfo cannot be read: {error}; see whether /proc is mounted on the host"
            ))
        })?;
        if !self.all {
            let mut devices = HashSet::new();
            meant.retain(|mount| mount.can_fill() && devices.insert(mount.device.clone()));
        }
        // Those that may hang keep nobody.
        meant.sort_by_key(Mount::is_elsewhere);
        let mut waiting = meant.into_iter();
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
