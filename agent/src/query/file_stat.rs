//! Shows what something at a path is like.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::time::UNIX_EPOCH;

use fleetward_protocol::file::FileMode;
use fleetward_protocol::path;
use fleetward_protocol::query::file_stat::{FileStat, StatItem};
use fleetward_protocol::text::{Text, Word};
use fleetward_protocol::time::Timestamp;
use nix::sys::stat::{major, minor};

use super::file::{confines, modified, time};
use super::look::Look;
use super::teller::{Stop, Teller};
use crate::platform::acl;
use crate::platform::confined::{Last, Links, Seen, read_link, type_of};
use crate::platform::users::Names;

impl Look for FileStat {
    async fn look(&self, _follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let last = if self.dereference { Last::Follow } else { Last::Keep };
        let seen = confines(teller.allowed()).look(self.path.as_path(), last, Links::Any)?;
        teller.item(&item(&seen)).await
    }
}

fn item(seen: &Seen) -> StatItem {
    let Seen { path, handle, metadata } = seen;
    let kind = metadata.file_type();
    let is_device = kind.is_char_device() || kind.is_block_device();
    let target = kind.is_symlink().then(|| read_link(handle).unwrap_or_default());
    let mut accounts = Names::default();
    StatItem {
        path: Text::of(path::shown(path.as_os_str().as_bytes())),
        kind: type_of(metadata),
        size: metadata.len(),
        // stat(2): in blocks of 512 bytes, whatever the file system's are.
        allocated: metadata.blocks().saturating_mul(512),
        mode: FileMode::of(metadata.mode()),
        owner: Text::of(accounts.user(metadata.uid())),
        group: Text::of(accounts.group(metadata.gid())),
        uid: metadata.uid(),
        gid: metadata.gid(),
        acl: (!kind.is_symlink()).then(|| acl::read_whether_listed(handle)).flatten(),
        modified: modified(metadata),
        changed: time(metadata.ctime(), metadata.ctime_nsec()),
        accessed: time(metadata.atime(), metadata.atime_nsec()),
        born: born(metadata),
        inode: metadata.ino(),
        links: metadata.nlink(),
        device: number(metadata.dev()),
        number: is_device.then(|| number(metadata.rdev())),
        target: target.map(|target| Text::of(path::shown(target.as_bytes()))),
    }
}

fn number(device: u64) -> Word {
    Text::of(format_args!("{}:{}", major(device), minor(device)))
}

fn born(metadata: &Metadata) -> Option<Timestamp> {
    let since = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(Timestamp::from_millis)
}
