//! What is true of the host, read from `/proc`, `/sys` and a few files: no process is started for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fleetward_protocol::facts::{Disk, Facts, MAX_LISTED};
use fleetward_protocol::text::{List, Word};

use super::apt::wanted;
use super::mounts::{self, Mount};

/// File systems that hold data; the others are the kernel's own views.
const DATA: [&str; 14] = [
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "nfs", "nfs4", "overlay", "vfat",
    "xfs", "zfs",
];

/// The facts of this host now. What cannot be read is empty or zero.
#[must_use]
pub fn read() -> Facts {
    let release =
        read_text("/etc/os-release").or_else(|| read_text("/usr/lib/os-release")).unwrap_or_default();
    let memory = parse_meminfo(&read_text("/proc/meminfo").unwrap_or_default());
    let names = nix::sys::utsname::uname().ok();
    let name = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        names.as_ref().map(|names| Word::of(part(names).to_string_lossy())).unwrap_or_default()
    };
    Facts {
        hostname: name(nix::sys::utsname::UtsName::nodename),
        os: os_field(&release, "ID"),
        os_version: os_field(&release, "VERSION_ID"),
        os_name: os_field(&release, "PRETTY_NAME"),
        kernel: name(nix::sys::utsname::UtsName::release),
        arch: name(nix::sys::utsname::UtsName::machine),
        cpu_model: parse_cpu_model(&read_text("/proc/cpuinfo").unwrap_or_default()),
        cpus: std::thread::available_parallelism().map_or(0, |count| u32::try_from(count.get()).unwrap_or(0)),
        memory_total: memory.total.min(read_memory_limit().unwrap_or(u64::MAX)),
        memory_available: memory.available,
        swap_total: memory.swap,
        disks: read_disks(),
        addresses: read_addresses(),
        uptime_s: read_text("/proc/uptime").and_then(|text| parse_uptime(&text)).unwrap_or(0),
        virtualisation: read_virtualisation(),
        load: parse_load(&read_text("/proc/loadavg").unwrap_or_default()),
        reboot_required: wanted::read_reboot().is_wanted,
    }
}

struct Memory {
    total: u64,
    available: u64,
    swap: u64,
}

fn read_text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

// os-release(5): KEY=value, the value perhaps quoted as a shell would.
fn os_field(text: &str, key: &str) -> Word {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    Word::of(value.unwrap_or_default().trim().trim_matches(['"', '\'']))
}

// proc_meminfo(5): `Name:   123 kB`
fn parse_meminfo(text: &str) -> Memory {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
    };
    Memory { total: field("MemTotal"), available: field("MemAvailable"), swap: field("SwapTotal") }
}

fn parse_cpu_model(text: &str) -> Word {
    // x86 says `model name`, arm (where it says anything) `Model`.
    let keys = ["model name", "Model"];
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        keys.contains(&key.trim()).then(|| Word::of(value.trim()))
    });
    value.unwrap_or_default()
}

fn parse_uptime(text: &str) -> Option<u64> {
    text.split(['.', ' ']).next()?.parse().ok()
}

fn parse_load(text: &str) -> [u32; 3] {
    let mut load = [0; 3];
    for (value, field) in load.iter_mut().zip(text.split_ascii_whitespace()) {
        // `0.08`: two digits after the point, always.
        *value = field.replace('.', "").parse().unwrap_or(0);
    }
    load
}

/// The limit of the outermost group that the host can see: that of the container it is.
fn read_memory_limit() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| read_text(path)?.trim().parse().ok())
}

fn read_disks() -> List<Disk, MAX_LISTED> {
    let mounts = with_data(mounts::read().unwrap_or_default());
    let disks = mounts.into_iter().filter_map(|Mount { path, file_system, .. }| {
        // A network file system whose server is gone would block here for ever.
        if file_system.starts_with("nfs") {
            return None;
        }
        let stat = nix::sys::statvfs::statvfs(path.as_path()).ok()?;
        #[expect(clippy::useless_conversion, reason = "not useless on every target")]
        let size = |blocks| u64::from(blocks).saturating_mul(u64::from(stat.fragment_size()));
        let (total, available) = (size(stat.blocks()), size(stat.blocks_available()));
        (total > 0).then_some(Disk {
            mount: Word::of(path.display()),
            file_system: Word::of(&file_system),
            total,
            available,
        })
    });
    List::of(disks)
}

/// The data file systems among what is mounted, once per device.
fn with_data(mut mounts: Vec<Mount>) -> Vec<Mount> {
    let mut devices = BTreeSet::new();
    mounts.retain(|mount| DATA.contains(&mount.file_system.as_str()) && devices.insert(mount.device.clone()));
    mounts
}

fn read_addresses() -> List<Word, MAX_LISTED> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return List::default() };
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| std::net::IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| std::net::IpAddr::V6(address.ip())))
    });
    let shown = addresses.filter(is_global).map(|address| address.to_string());
    List::of(shown.collect::<BTreeSet<_>>().iter().map(Word::of))
}

fn is_global(address: &std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(address) => {
            !address.is_loopback() && !address.is_link_local() && !address.is_unspecified()
        }
        std::net::IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

/// After systemd-detect-virt(1): a container first, then what the firmware says.
fn read_virtualisation() -> Word {
    let container = read_text("/run/systemd/container").map(|text| Word::of(text.trim()));
    if let Some(container) = container.filter(|text| !text.is_empty()) {
        return container;
    }
    for (file, name) in
        [("/.dockerenv", "docker"), ("/run/.containerenv", "podman"), ("/dev/lxd/sock", "lxc")]
    {
        if Path::new(file).exists() {
            return Word::of(name);
        }
    }
    if Path::new("/proc/vz").exists() && !Path::new("/proc/bc").exists() {
        return Word::of("openvz");
    }
    let firmware = ["sys_vendor", "product_name", "board_vendor", "bios_vendor"]
        .iter()
        .filter_map(|file| read_text(Path::new("/sys/class/dmi/id").join(file)))
        .collect::<Vec<_>>()
        .join("\n");
    let hypervisor = read_text("/sys/hypervisor/type").unwrap_or_default();
    let cpuinfo = read_text("/proc/cpuinfo").unwrap_or_default();
    Word::of(detect(&firmware, &hypervisor, &cpuinfo))
}

fn detect(firmware: &str, hypervisor: &str, cpuinfo: &str) -> &'static str {
    let known = [
        ("KVM", "kvm"),
        ("Amazon EC2", "amazon"),
        ("QEMU", "kvm"),
        ("OpenStack", "kvm"),
        ("KubeVirt", "kvm"),
        ("VMware", "vmware"),
        ("VMW", "vmware"),
        ("innotek GmbH", "oracle"),
        ("VirtualBox", "oracle"),
        ("Xen", "xen"),
        ("Bochs", "bochs"),
        ("Parallels", "parallels"),
        ("BHYVE", "bhyve"),
        ("Hyper-V", "microsoft"),
        ("Google Compute Engine", "google"),
        ("Hetzner", "kvm"),
        ("DigitalOcean", "kvm"),
    ];
    if let Some((_, name)) = known.iter().find(|(mark, _)| firmware.contains(mark)) {
        return name;
    }
    if hypervisor.trim() == "xen" {
        return "xen";
    }
    let flagged = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_ascii_whitespace().any(|flag| flag == "hypervisor"));
    if flagged { "vm-other" } else { "none" }
}

#[cfg(test)]
mod tests {
    use fleetward_protocol::id::BootId;

    use super::*;

    #[test]
    fn captured_files() {
        let release = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(os_field(release, "PRETTY_NAME"), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(
            (os_field(release, "ID"), os_field(release, "VERSION_ID")),
            (Word::of("debian"), Word::of("12"))
        );
        assert_eq!(os_field(release, "BUILD_ID"), "");

        let memory =
            parse_meminfo("MemTotal:        2015328 kB\nMemFree: 1 kB\nMemAvailable:    1547332 kB\n");
        assert_eq!((memory.total, memory.available, memory.swap), (2_015_328 << 10, 1_547_332 << 10, 0));

        assert_eq!(
            parse_cpu_model("processor\t: 0\nmodel name\t: AMD EPYC 7763\nmodel\t: 1\n"),
            "AMD EPYC 7763"
        );
        assert_eq!(parse_uptime("12345.67 23456.78\n"), Some(12345));
        assert_eq!(parse_load("0.08 1.03 12.05 1/123 4567\n"), [8, 103, 1205]);
        assert_eq!(parse_load(""), [0, 0, 0]);
    }

    #[test]
    fn data_file_systems_count_once_per_device() {
        let mountinfo = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            23 22 0:21 / /proc rw - proc proc rw\n\
            24 22 8:1 /srv /mnt/again rw - ext4 /dev/sda1 rw\n\
            25 22 8:2 / /srv/my\\040data rw - xfs /dev/sdb1 rw\n\
            26 22 0:30 / /run rw - tmpfs tmpfs rw\n";
        let mounts = with_data(mounts::parse(mountinfo.as_bytes()));
        let mounts: Vec<_> = mounts.into_iter().map(|mount| (mount.path, mount.file_system)).collect();
        let pair = |mount: &str, file_system: &str| (mount.into(), file_system.to_owned());
        assert_eq!(mounts, [pair("/", "ext4"), pair("/srv/my data", "xfs")]);
    }

    #[test]
    fn firmware_tells_the_hypervisor() {
        assert_eq!(detect("QEMU\nStandard PC (i440FX + PIIX, 1996)\n", "", ""), "kvm");
        assert_eq!(detect("VMware, Inc.\n", "", ""), "vmware");
        assert_eq!(detect("Dell Inc.\nPowerEdge R640\n", "", "flags\t: fpu vme\n"), "none");
        assert_eq!(detect("", "", "flags\t: fpu hypervisor\n"), "vm-other");
    }

    #[test]
    fn this_host_has_facts_and_small_changes_are_no_news() {
        let facts = read();
        assert!(!facts.kernel.is_empty() && facts.cpus > 0 && facts.memory_total > 0);
        let boot = BootId::from_uuid(uuid::Uuid::from_u128(1));
        let mut later = facts.clone();
        later.uptime_s += 60;
        later.load = [1, 2, 3];
        assert_eq!(facts.digest(boot), later.digest(boot));
        later.reboot_required = !facts.reboot_required;
        assert_ne!(facts.digest(boot), later.digest(boot));
    }
}
