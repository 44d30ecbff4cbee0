//! What is mounted (proc_pid_mountinfo(5)), and how full it is (statvfs(3)).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use fleetward_protocol::query::mounts::percent;
use nix::errno::Errno;
use nix::sys::statvfs::{Statvfs, statvfs};

/// The most of the list of mounts that is read.
const MAX_LIST: u64 = 16 << 20;
/// Views of the kernel: nothing in them takes room.
const VIEWS: [&str; 21] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];
/// Images, which are full from the beginning.
const IMAGES: [&str; 3] = ["erofs", "iso9660", "squashfs"];
/// Where `tmpfs` and the like hold what the system itself has there.
const SYSTEM: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];
/// What somebody else has to answer for: another machine, or a process.
const ELSEWHERE: [&str; 12] =
    ["9p", "afs", "ceph", "cifs", "glusterfs", "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "virtiofs"];

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number of it.
    pub id: u64,
    /// The device, `major:minor`.
    pub device: String,
    /// Where it is mounted.
    pub path: PathBuf,
    /// Its type.
    pub file_system: String,
    /// What is mounted.
    pub source: String,
    /// With which options: those of the mount, then those of the file system that are others.
    pub options: Vec<String>,
}

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that it has.
    pub size: u64,
    /// Bytes that are in use.
    pub used: u64,
    /// Bytes that users other than root can still use.
    pub available: u64,
    /// How full it is for them, in percent.
    pub percent: Option<u8>,
    /// Files that it can have; none where that has no limit.
    pub inodes: Option<u64>,
    /// Files that it has.
    pub inodes_used: Option<u64>,
}

/// Why it is not known how full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It does not answer.
    Unresponsive,
    /// It does not tell us.
    Refused,
}

impl Mount {
    /// Whether there is nothing in it that takes room.
    #[must_use]
    pub fn is_view(&self) -> bool {
        VIEWS.contains(&self.file_system.as_str())
    }

    /// Whether it can fill up, and is the host's own: no view, no image, nothing of a container, and not what the system itself
    /// has in memory.
    #[must_use]
    pub fn can_fill(&self) -> bool {
        let is_of_system =
            || SYSTEM.iter().any(|system| self.path.starts_with(system)) && self.path.as_os_str() != "/run";
        match self.file_system.as_str() {
            "tmpfs" | "ramfs" => !is_of_system(),
            // What containers have takes its room from what is below.
            "overlay" => self.path.as_os_str() == "/",
            file_system => !self.is_view() && !IMAGES.contains(&file_system),
        }
    }

    /// Whether somebody else answers for it, who may be gone.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        ELSEWHERE.contains(&self.file_system.as_str()) || self.file_system.starts_with("fuse")
    }

    /// Whether nothing can be written to it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }
}

/// What is mounted, in the order in which it was. What another mount at the same place hides is not among it.
///
/// # Errors
/// If the kernel does not tell.
pub fn read() -> io::Result<Vec<Mount>> {
    let mut list = Vec::new();
    File::open("/proc/self/mountinfo")?.take(MAX_LIST).read_to_end(&mut list)?;
    Ok(parse(&list))
}

pub(super) fn parse(list: &[u8]) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = list.split(|byte| *byte == b'\n').filter_map(parse_line).collect();
    let mut seen = std::collections::HashSet::new();
    // The last one is on top.
    mounts.reverse();
    mounts.retain(|mount| seen.insert(mount.path.clone()));
    mounts.reverse();
    mounts
}

// `ID PARENT MAJOR:MINOR ROOT MOUNT OPTIONS [FIELD…] - TYPE SOURCE OPTIONS`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    let id = text(fields.next()?).parse().ok()?;
    let device = text(fields.nth(1)?);
    let path = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let own = text(fields.next()?);
    fields.find(|field| *field == b"-")?;
    let (file_system, source) = (text(fields.next()?), text(fields.next()?));
    let shared = fields.next().map(text).unwrap_or_default();
    let mut options: Vec<String> = Vec::new();
    for option in own.split(',').chain(shared.split(',')).filter(|option| !option.is_empty()) {
        // `rw` of the file system says nothing of a mount that is `ro`.
        let is_said = options.iter().any(|said| said == option) || option == "rw" && !options.is_empty();
        if !is_said && !is_secret(option) {
            options.push(option.to_owned());
        }
    }
    path.is_absolute().then(|| Mount {
        id,
        device,
        path,
        file_system,
        source: without_password(source),
        options,
    })
}

/// Spaces and the like are `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.first_chunk::<3>().filter(|digits| {
            *first == b'\\' && digits[0] < b'4' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        });
        match digits {
            Some(digits) => {
                plain.push(digits.iter().fold(0, |byte: u8, digit| (byte << 3) | (digit - b'0')));
                rest = &behind[3..];
            }
            None => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

/// Whether an option may hold what nobody should see.
fn is_secret(option: &str) -> bool {
    let name = option.split('=').next().unwrap_or_default().to_ascii_lowercase();
    ["pass", "secret", "cred", "token", "key"].iter().any(|part| name.contains(part))
}

/// A source that is a URL without the password that it may have.
fn without_password(source: String) -> String {
    let Some((scheme, rest)) = source.split_once("://") else { return source };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((login, host)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}{}", rest.get(authority.len()..).unwrap_or_default())
        }
        None => source,
    }
}

/// How full the file system at this path is. One that hangs is not waited for longer than this; the thread that asked it stays
/// behind, until it answers or this process ends.
///
/// # Errors
/// Why it is not known.
pub async fn read_usage(path: PathBuf, patience: Duration) -> Result<Usage, Unknown> {
    within(patience, move || statvfs(path.as_path())).await?.map(|stat| usage(&stat)).map_err(|error| {
        match error {
            Errno::EACCES
            | Errno::EPERM
            | Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::ENOSYS
            | Errno::EOVERFLOW => Unknown::Refused,
            // A server or a process that is gone: ESTALE, ENOTCONN, EIO, ETIMEDOUT, …
            _ => Unknown::Unresponsive,
        }
    })
}

async fn within<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unknown> {
    match tokio::time::timeout(patience, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) | Err(_) => Err(Unknown::Unresponsive),
    }
}

fn usage(stat: &Statvfs) -> Usage {
    #[expect(clippy::useless_conversion, reason = "not useless on every target")]
    let bytes = |blocks| u64::from(blocks).saturating_mul(u64::from(stat.fragment_size()));
    #[expect(clippy::useless_conversion, reason = "not useless on every target")]
    let (files, free) = (u64::from(stat.files()), u64::from(stat.files_free()));
    let (size, available) = (bytes(stat.blocks()), bytes(stat.blocks_available()));
    let used = size.saturating_sub(bytes(stat.blocks_free()));
    let inodes = (files > 0).then_some(files);
    Usage {
        size,
        used,
        available,
        percent: percent(used, used.saturating_add(available)),
        inodes,
        inodes_used: inodes.map(|files| files.saturating_sub(free)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;
    use std::sync::mpsc;

    use proptest::prelude::*;

    use super::*;

    const LIST: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
        23 22 0:21 / /proc rw - proc proc rw\n\
        25 22 8:2 / /srv/my\\040data ro,noatime shared:2 master:3 - xfs /dev/sdb1 rw,attr2\n\
        26 22 0:30 / /run rw - tmpfs tmpfs rw,size=1024k\n\
        27 26 0:31 / /run/lock rw - tmpfs tmpfs rw\n\
        28 22 0:32 / /mnt/far rw - nfs4 192.0.2.9:/export rw,addr=192.0.2.9\n\
        29 22 0:33 / /mnt/win rw - cifs //192.0.2.9/share rw,username=ops,password=hunter2\n\
        30 22 0:34 / /mnt/dav rw - fuse.davfs https://ops:hunter2@example.com/dav rw\n\
        31 22 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro\n\
        32 22 0:40 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw\n\
        33 22 0:41 / /tmp rw - tmpfs tmpfs rw\n\
        broken line\n\
        34 22 8:3 / /srv/my\\040data rw - ext4 /dev/sdc1 rw\n";

    fn mounts() -> Vec<Mount> {
        parse(LIST.as_bytes())
    }

    #[test]
    fn each_mount_is_read_and_what_is_hidden_is_not() {
        let mounts = mounts();
        let at = |path: &str| mounts.iter().find(|mount| mount.path.as_os_str() == path).unwrap();
        assert_eq!(at("/").options, ["rw", "relatime", "errors=remount-ro"]);
        assert_eq!((at("/").source.as_str(), at("/").device.as_str()), ("/dev/sda1", "8:1"));
        let data: Vec<_> = mounts.iter().filter(|mount| mount.path.ends_with("my data")).collect();
        assert_eq!(data.len(), 1, "one is on top of the other");
        assert_eq!((data[0].id, data[0].is_read_only()), (34, false));
        assert!(at("/snap/core/1").is_read_only());
        assert!(at("/mnt/far").is_elsewhere() && at("/mnt/dav").is_elsewhere() && !at("/").is_elsewhere());
        let filling: Vec<_> = mounts.iter().filter(|mount| mount.can_fill()).map(|mount| mount.id).collect();
        assert_eq!(filling, [22, 26, 28, 29, 30, 33, 34]);
    }

    #[test]
    fn passwords_are_not_told() {
        let told = format!("{:?}", mounts());
        assert!(
            !told.contains("hunter2")
                && told.contains("username=ops")
                && told.contains("https://ops@example.com/dav"),
            "{told}"
        );
    }

    #[test]
    fn what_is_mounted_read_only_says_so_whatever_its_file_system_says() {
        let list = b"25 22 8:2 / /srv ro,noatime - xfs /dev/sdb1 rw,attr2\n";
        let mount = &parse(list)[0];
        assert_eq!((mount.is_read_only(), mount.options.join(",")), (true, "ro,noatime,attr2".to_owned()));
        let list = b"25 22 8:2 / /srv rw - xfs /dev/sdb1 ro\n";
        assert!(parse(list)[0].is_read_only());
    }

    proptest! {
        #[test]
        fn a_path_is_read_as_it_is(path in prop::collection::vec(1_u8.., 0..40)) {
            let path = [b"/".to_vec(), path].concat();
            let escaped: Vec<u8> = path
                .iter()
                .flat_map(|byte| match byte {
                    b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
                    byte => vec![*byte],
                })
                .collect();
            let line = [b"1 0 8:1 / ".to_vec(), escaped, b" rw - ext4 /dev/sda1 rw".to_vec()].concat();
            let mounts = parse(&line);
            prop_assert_eq!(mounts[0].path.as_os_str().as_bytes(), &path[..]);
        }

        #[test]
        fn whatever_stands_there_takes_nothing_else_away(junk in prop::collection::vec(any::<u8>(), 0..200)) {
            let list = [junk, b"\n22 1 8:1 / / rw - ext4 /dev/sda1 rw\n".to_vec()].concat();
            prop_assert!(parse(&list).iter().any(|mount| mount.id == 22));
        }
    }

    #[tokio::test]
    async fn what_hangs_is_not_waited_for() {
        let (release, held) = mpsc::channel::<()>();
        let found = within(Duration::from_millis(20), move || held.recv()).await;
        assert_eq!(found, Err(Unknown::Unresponsive));
        drop(release);
        let usage = read_usage("/".into(), Duration::from_secs(30)).await.unwrap();
        assert!(usage.size > 0 && usage.used <= usage.size, "{usage:?}");
        assert_eq!(read_usage("/no/such/path".into(), Duration::from_secs(30)).await, Err(Unknown::Refused));
    }
}
