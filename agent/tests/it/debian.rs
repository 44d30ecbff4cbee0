//! A Debian of our own beneath a directory: the real apt and dpkg, with a database, sources and packages that are nobody else's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::{Machine, skipped};

/// A root for apt and dpkg.
pub(crate) struct Debian {
    root: PathBuf,
}

/// A package to be built.
pub(crate) struct Deb<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    /// More lines of its control file.
    pub(crate) control: &'a str,
    /// Its one configuration file's content.
    pub(crate) conffile: Option<&'a str>,
    /// What is done when it is set up.
    pub(crate) postinst: Option<&'a str>,
}

/// A package without anything.
pub(crate) fn deb<'a>(name: &'a str, version: &'a str) -> Deb<'a> {
    Deb { name, version, control: "", conffile: None, postinst: None }
}

/// The sources: what is new, and what fixes security.
pub(crate) const MAIN: &str = "main";
pub(crate) const SECURITY: &str = "security";

/// A machine with a Debian of its own and no systemd; `None` where there is no apt, or no root.
pub(crate) fn machine(test: &str) -> Option<(Machine, Debian)> {
    if !nix::unistd::geteuid().is_root() {
        skipped(test, "packages need root");
        return None;
    }
    let has = |program: &str| Path::new("/usr/bin").join(program).exists();
    if !["apt-get", "dpkg-deb", "dpkg-scanpackages"].into_iter().all(has) {
        skipped(test, "apt, dpkg and dpkg-dev are not installed");
        return None;
    }
    let mut machine = Machine::new();
    // Nobody's systemd does anything for us.
    machine.bus = Some(format!("unix:path={}", machine.path("no-bus").display()));
    let debian = Debian::new(machine.path("debian"));
    machine.apt = Some(debian.root.join("apt.conf").display().to_string());
    Some((machine, debian))
}

impl Debian {
    fn new(root: PathBuf) -> Self {
        for directory in [
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/sources.list.d",
            "etc/apt/trusted.gpg.d",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/log/apt",
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/lib/dpkg/triggers",
            "system",
            MAIN,
            SECURITY,
        ] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
        let at = root.display();
        let conf = format!(
            r#"Dir "{at}/";
Dir::State "{at}/var/lib/apt";
Dir::State::status "{at}/var/lib/dpkg/status";
Dir::Cache "{at}/var/cache/apt";
Dir::Etc "{at}/etc/apt";
Dir::Log "{at}/var/log/apt";
APT::Architecture "amd64";
APT::Architectures:: "amd64";
APT::Sandbox::User "root";
Acquire::Languages "none";
DPkg::Options:: "--admindir={at}/var/lib/dpkg";
DPkg::Options:: "--instdir={at}/system";
DPkg::Options:: "--log={at}/var/log/dpkg.log";
DPkg::Options:: "--force-script-chrootless";
DPkg::Options:: "--force-bad-path";
"#
        );
        fs::write(root.join("apt.conf"), conf).unwrap();
        let debian = Self { root };
        let source =
            |name: &str| format!("deb [trusted=yes] file:{at} {name}/\n", at = debian.root.display());
        fs::write(debian.path("etc/apt/sources.list"), source(MAIN) + &source(SECURITY)).unwrap();
        debian.publish(MAIN, &[]);
        debian.publish(SECURITY, &[]);
        debian
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A file that a package has installed.
    pub(crate) fn installed(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path("system").join(name)).ok()
    }

    /// Puts packages into a source, beside those that it has.
    pub(crate) fn publish(&self, source: &str, debs: &[Deb<'_>]) {
        let directory = self.path(source);
        for deb in debs {
            self.build(&directory, deb);
        }
        let packages = Command::new("dpkg-scanpackages")
            .args(["--multiversion", source])
            .current_dir(&self.root)
            .output()
            .unwrap();
        assert!(packages.status.success(), "{packages:?}");
        fs::write(directory.join("Packages"), packages.stdout).unwrap();
        let release = match source {
            SECURITY => {
                "Origin: Debian\nLabel: Debian-Security\nSuite: stable-security\nCodename: tree-security\n"
            }
            _ => "Origin: Debian\nLabel: Debian\nSuite: stable\nCodename: tree\n",
        };
        let sum = Command::new("sha256sum").arg(directory.join("Packages")).output().unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        let length = fs::metadata(directory.join("Packages")).unwrap().len();
        let sum = sum.split(' ').next().unwrap();
        fs::write(directory.join("Release"), format!("{release}SHA256:\n {sum} {length} Packages\n"))
            .unwrap();
    }

    fn build(&self, directory: &Path, deb: &Deb<'_>) {
        let Deb { name, version, control, conffile, postinst } = deb;
        let tree = self.path("build");
        drop(fs::remove_dir_all(&tree));
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("etc")).unwrap();
        let text = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@example.com>\nDescription: one\n{control}"
        );
        fs::write(tree.join("DEBIAN/control"), text).unwrap();
        if let Some(content) = conffile {
            fs::write(tree.join("etc").join(format!("{name}.conf")), content).unwrap();
            fs::write(tree.join("DEBIAN/conffiles"), format!("/etc/{name}.conf\n")).unwrap();
        }
        fs::write(tree.join(format!("{name}.version")), version).unwrap();
        if let Some(script) = postinst {
            let path = tree.join("DEBIAN/postinst");
            fs::write(&path, format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let file = directory.join(format!("{name}_{version}.deb"));
        let built =
            Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&file).output();
        let built = built.unwrap();
        assert!(built.status.success(), "{built:?}");
    }

    /// Installs a package that was published, as somebody on the host does.
    pub(crate) fn install_by_hand(&self, source: &str, name: &str, version: &str) {
        let out = Command::new("dpkg")
            .arg(format!("--admindir={}", self.path("var/lib/dpkg").display()))
            .arg(format!("--instdir={}", self.path("system").display()))
            .args(["--force-script-chrootless", "--force-bad-path", "--install"])
            .arg(self.path(source).join(format!("{name}_{version}.deb")))
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
    }

    /// Every package that dpkg knows: what should become of it, what it is, and its version.
    pub(crate) fn status(&self) -> BTreeMap<String, String> {
        let out = Command::new("dpkg-query")
            .arg(format!("--admindir={}", self.path("var/lib/dpkg").display()))
            .args(["--show", "--showformat=${Package} ${db:Status-Want} ${db:Status-Status} ${Version}\n"])
            .output()
            .unwrap();
        let out = String::from_utf8(out.stdout).unwrap();
        out.lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(name, rest)| (name.into(), rest.into()))
            .collect()
    }
}
