//! Against real remotes: files, git over HTTP(S) through `git http-backend`, SSH through `sshd`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fleetward_domain::fleet::inventory::{self, Found, RepoPath};

use super::testing::{GitServer, Origin, SshServer, Tls};
use super::*;

const LIMITS: Limits = Limits { reach: Reach::Anywhere, ..Limits::DEFAULT };

fn remote(url: &str, credentials: Credentials) -> Remote {
    Remote::new(url.parse().unwrap(), "main", credentials).unwrap()
}

fn fetch_plain(mirror: &Path, remote: &Remote, previous: Option<&str>) -> Result<Fetched, FetchError> {
    fetch(mirror, remote, previous, &LIMITS, &|| false)
}

fn password(password: &str) -> Credentials {
    Credentials::Password { username: "ops".into(), password: password.into() }
}

fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

struct Lab {
    _directory: tempfile::TempDir,
    origin: Origin,
    mirror: PathBuf,
}

fn lab() -> Lab {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::new(&directory.path().join("origin"));
    let mirror = directory.path().join("mirrors/mirror.git");
    Lab { _directory: directory, origin, mirror }
}

#[test]
fn follows_a_file_remote_forward_and_through_a_force_push() {
    let lab = lab();
    let first = lab.origin.commit(&[("links.yaml", "links: {}\n")]);
    let remote = remote(&lab.origin.url(), Credentials::None);
    let fetched = fetch_plain(&lab.mirror, &remote, None).unwrap();
    assert_eq!(fetched, Fetched { commit: first.clone(), history: History::First, first_host_key: None });
    assert_eq!(fetch_plain(&lab.mirror, &remote, Some(&first)).unwrap().history, History::Unchanged);
    let second = lab.origin.commit(&[("links.yaml", "links: {} # none\n")]);
    let fetched = fetch_plain(&lab.mirror, &remote, Some(&first)).unwrap();
    assert_eq!((fetched.commit.as_str(), fetched.history), (second.as_str(), History::Continued));
    lab.origin.git(&["reset", "--hard", &first]);
    let third = lab.origin.commit(&[("scripts.yaml", "scripts: {}\n")]);
    let fetched = fetch_plain(&lab.mirror, &remote, Some(&second)).unwrap();
    assert_eq!((fetched.commit.as_str(), fetched.history), (third.as_str(), History::Rewritten));
    // The commit before is still readable: a sync that began with it may end with it.
    assert!(matches!(
        Snapshot::open(&lab.mirror, &second).unwrap().find(&path("scripts.yaml"), 99),
        Found::Missing
    ));
}

#[test]
fn reads_files_of_a_commit_without_following_anything() {
    let lab = lab();
    lab.origin.write("scripts/run.sh", "#!/bin/bash\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(lab.origin.path().join("scripts/run.sh"), executable).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", lab.origin.path().join("outside")).unwrap();
    std::os::unix::fs::symlink("scripts", lab.origin.path().join("linked")).unwrap();
    let commit = lab.origin.commit(&[
        ("plain.txt", "a\r\nb\n"),
        ("large", &"x".repeat(5000)),
        (".gitattributes", "* text eol=crlf\n"),
    ]);
    let remote = remote(&lab.origin.url(), Credentials::None);
    assert_eq!(fetch_plain(&lab.mirror, &remote, None).unwrap().commit, commit);
    let snapshot = Snapshot::open(&lab.mirror, &commit).unwrap();
    let file = |content: &str, executable| Found::File { content: content.into(), executable };
    for (name, found) in [
        ("scripts/run.sh", file("#!/bin/bash\n", true)),
        ("plain.txt", file("a\nb\n", false)),
        ("large", Found::TooLarge { size: 5000 }),
        ("outside", Found::NotAFile("a symbolic link")),
        ("linked/run.sh", Found::NotAFile("a symbolic link")),
        ("scripts", Found::NotAFile("a directory")),
        ("plain.txt/x", Found::Missing),
        ("gone", Found::Missing),
    ] {
        assert_eq!(snapshot.find(&path(name), 4096), found, "{name}");
    }
    assert!(Snapshot::open(&lab.mirror, &"0".repeat(40)).is_err());
}

#[test]
fn says_what_is_wrong_with_a_file_remote() {
    let lab = lab();
    let empty = remote(&lab.origin.url(), Credentials::None);
    assert!(matches!(fetch_plain(&lab.mirror, &empty, None), Err(FetchError::Empty(_))));
    let good = lab.origin.commit(&[("links.yaml", "links: {}\n")]);
    lab.origin.git(&["branch", "other"]);
    let wrong = Remote::new(lab.origin.url().parse().unwrap(), "mian", Credentials::None).unwrap();
    let error = fetch_plain(&lab.mirror, &wrong, None).unwrap_err().to_string();
    assert!(error.ends_with("has no branch `mian`; it has `main`, `other`"), "{error}");
    // A branch that goes away is not answered from what was fetched before.
    assert_eq!(fetch_plain(&lab.mirror, &empty, None).unwrap().commit, good);
    lab.origin.git(&["branch", "-m", "main", "trunk"]);
    assert!(matches!(fetch_plain(&lab.mirror, &empty, Some(&good)), Err(FetchError::BranchMissing { .. })));
    std::fs::remove_dir_all(lab.origin.path()).unwrap();
    assert!(matches!(fetch_plain(&lab.mirror, &empty, Some(&good)), Err(FetchError::NotFound(_))));
    std::fs::create_dir(lab.origin.path()).unwrap();
    assert!(matches!(fetch_plain(&lab.mirror, &empty, Some(&good)), Err(FetchError::NotFound(_))));
}

#[test]
fn our_own_machine_is_out_of_reach_unless_allowed_and_the_mirrors_always() {
    let lab = lab();
    lab.origin.commit(&[("links.yaml", "links: {}\n")]);
    let server = GitServer::start(lab.origin.path(), None, Tls::Off);
    for url in [lab.origin.url(), server.url(), server.url().replace("127.0.0.1", "localhost")] {
        let remote = remote(&url, Credentials::None);
        let error = fetch(&lab.mirror, &remote, None, &Limits::DEFAULT, &|| false).unwrap_err();
        assert!(matches!(error, FetchError::Local(_)), "{url}: {error}");
        assert!(error.to_string().contains("local_remotes = true"), "{error}");
        assert!(fetch_plain(&lab.mirror, &remote, None).is_ok(), "{url}");
    }
    let other = lab.mirror.with_file_name("other.git");
    let mirror = lab.mirror.to_str().unwrap();
    let link = lab.origin.path().with_file_name("link");
    std::os::unix::fs::symlink(&lab.mirror, &link).unwrap();
    for path in [
        mirror,
        &mirror.replace("mirror.git", "%6dirror.git"),
        link.to_str().unwrap(),
        &format!("{mirror}/../mirror.git"),
    ] {
        let error =
            fetch_plain(&other, &remote(&format!("file://{path}"), Credentials::None), None).unwrap_err();
        assert!(matches!(error, FetchError::NotFound(_)), "{path}: {error}");
    }
}

#[test]
fn a_damaged_or_grown_mirror_is_made_anew() {
    let lab = lab();
    let commit = lab.origin.commit(&[("links.yaml", "links: {}\n")]);
    let remote = remote(&lab.origin.url(), Credentials::None);
    std::fs::create_dir_all(&lab.mirror).unwrap();
    std::fs::write(lab.mirror.join("HEAD"), "garbage").unwrap();
    assert_eq!(fetch_plain(&lab.mirror, &remote, None).unwrap().commit, commit);
    let pack = lab.mirror.join("objects/pack");
    for entry in std::fs::read_dir(&pack).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(fetch_plain(&lab.mirror, &remote, Some(&commit)).unwrap().history, History::Unchanged);
    assert!(matches!(
        Snapshot::open(&lab.mirror, &commit).unwrap().find(&path("links.yaml"), 99),
        Found::File { .. }
    ));
    for n in 0..200 {
        std::fs::write(pack.join(format!("pack-{n}.pack")), "").unwrap();
    }
    assert_eq!(fetch_plain(&lab.mirror, &remote, Some(&commit)).unwrap().commit, commit);
    assert!(std::fs::read_dir(&pack).unwrap().count() < 10);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&lab.mirror).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "others could read what the repository holds: {mode:o}");
}

#[test]
fn is_bounded_in_bytes_and_time_and_can_be_stopped() {
    let lab = lab();
    let noise: String = (0..200_000u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
    lab.origin.commit(&[("noise", &noise)]);
    let server = GitServer::start(lab.origin.path(), None, Tls::Off);
    let remote = remote(&server.url(), Credentials::None);
    let small = Limits { bytes: 10_000, ..LIMITS };
    let error = fetch(&lab.mirror, &remote, None, &small, &|| false).unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { limit: 10_000, .. }), "{error}");
    let short = Limits { time: Duration::ZERO, ..LIMITS };
    let error = fetch(&lab.mirror, &remote, None, &short, &|| false).unwrap_err();
    assert!(matches!(error, FetchError::TimedOut { .. }), "{error}");
    let error = fetch(&lab.mirror, &remote, None, &LIMITS, &|| true).unwrap_err();
    assert!(matches!(error, FetchError::Stopped), "{error}");
    assert!(fetch_plain(&lab.mirror, &remote, None).is_ok());
}

/// Zeros take a thousandth of their size in a repository, and all of it in memory.
#[test]
fn what_unpacks_to_gigabytes_is_refused_and_the_next_fetch_works() {
    let lab = lab();
    let bomb = |name: &str| {
        let file = std::fs::File::create(lab.origin.path().join(name)).unwrap();
        file.set_len(2 * memory::LIMIT as u64).unwrap();
    };
    bomb("zeros");
    lab.origin.commit(&[]);
    // Another one that is nearly the same is sent as a difference, for which the first has to be unpacked.
    std::fs::OpenOptions::new()
        .append(true)
        .open(lab.origin.path().join("zeros"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"one"))
        .unwrap();
    lab.origin.commit(&[]);
    lab.origin.git(&["-c", "core.bigFileThreshold=1g", "repack", "-adfq"]);
    let server = GitServer::start(lab.origin.path(), None, Tls::Off);
    for url in [lab.origin.url(), server.url()] {
        let remote = remote(&url, Credentials::None);
        let error = fetch_plain(&lab.mirror, &remote, None).unwrap_err();
        assert!(matches!(error, FetchError::TooLargeUnpacked { .. }), "{url}: {error}");
    }
    lab.origin.git(&["checkout", "--quiet", "--orphan", "small"]);
    std::fs::remove_file(lab.origin.path().join("zeros")).unwrap();
    lab.origin.commit(&[("scripts.yaml", "scripts: {}\n")]);
    lab.origin.git(&["branch", "-M", "main"]);
    assert!(fetch_plain(&lab.mirror, &remote(&lab.origin.url(), Credentials::None), None).is_ok());
}

#[test]
fn http_needs_the_right_password() {
    let lab = lab();
    let commit = lab.origin.commit(&[("links.yaml", "links: {}\n")]);
    let server = GitServer::start(lab.origin.path(), Some("ops:hunter2"), Tls::Off);
    let good = remote(&server.url(), password("hunter2"));
    let fetched = fetch_plain(&lab.mirror, &good, None).unwrap();
    assert_eq!(fetched.commit, commit);
    let second = lab.origin.commit(&[("links.yaml", "links: {} # none\n")]);
    assert_eq!(fetch_plain(&lab.mirror, &good, Some(&commit)).unwrap().commit, second);
    let wrong = fetch_plain(&lab.mirror, &remote(&server.url(), password("hunter3")), None).unwrap_err();
    assert!(matches!(wrong, FetchError::CredentialsRefused(_)), "{wrong}");
    assert!(!format!("{wrong} {wrong:?}").contains("hunter3"));
    let missing = fetch_plain(&lab.mirror, &remote(&server.url(), Credentials::None), None).unwrap_err();
    assert!(matches!(missing, FetchError::CredentialsMissing(_)), "{missing}");
    let gone = remote(&format!("{}x", server.url()), password("hunter2"));
    let gone = fetch_plain(&lab.mirror, &gone, None).unwrap_err();
    assert!(matches!(gone, FetchError::NotFound(_)), "{gone}");
    let moved = remote(&server.url_of("moved-away"), password("hunter2"));
    let moved = fetch_plain(&lab.mirror, &moved, None).unwrap_err();
    assert!(matches!(moved, FetchError::Redirected { .. }), "{moved}");
    let open = GitServer::start(lab.origin.path(), None, Tls::Off);
    let moved =
        fetch_plain(&lab.mirror, &remote(&open.url_of("moved-away"), Credentials::None), None).unwrap_err();
    assert!(moved.to_string().contains("redirects to the server `192.0.2.1`; "), "{moved}");
    let page = remote(&server.url_of("a-web-page"), password("hunter2"));
    let page = fetch_plain(&lab.mirror, &page, None).unwrap_err();
    assert!(matches!(page, FetchError::Protocol { .. }), "{page}");
    let down = remote(&server.url_of("in-maintenance"), password("hunter2"));
    let down = fetch_plain(&lab.mirror, &down, None).unwrap_err();
    assert!(down.is_transient(), "{down}");
    let url = server.url();
    drop(server);
    let refused = fetch_plain(&lab.mirror, &remote(&url, password("hunter2")), None).unwrap_err();
    assert!(refused.is_transient(), "{refused}");
}

#[test]
fn https_needs_a_trusted_certificate() {
    let lab = lab();
    let commit = lab.origin.commit(&[("links.yaml", "links: {}\n")]);
    let server = GitServer::start(lab.origin.path(), Some("ops:hunter2"), Tls::On);
    let remote = remote(&server.url(), password("hunter2"));
    let error = fetch_plain(&lab.mirror, &remote, None).unwrap_err();
    assert!(matches!(error, FetchError::Certificate(_)), "{error}");
    let authority = lab.origin.path().join("authority.pem");
    std::fs::write(&authority, server.authority()).unwrap();
    // SAFETY: other tests of this process may connect meanwhile; what they see is one more authority, or not yet.
    unsafe { git2::opts::set_ssl_cert_file(authority).unwrap() };
    assert_eq!(fetch_plain(&lab.mirror, &remote, None).unwrap().commit, commit);
}

#[test]
fn a_server_that_hangs_up_is_a_passing_fault() {
    let lab = lab();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.git", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let error = fetch_plain(&lab.mirror, &remote(&url, Credentials::None), None).unwrap_err();
    assert!(error.is_transient(), "{error}");
    server.join().unwrap();
}

#[test]
fn a_server_that_says_nothing_does_not_hold_the_thread() {
    let lab = lab();
    for scheme in ["http", "ssh"] {
        // The kernel accepts; nobody ever answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}/x.git", listener.local_addr().unwrap());
        let started = Instant::now();
        let error = fetch_plain(&lab.mirror, &remote(&url, Credentials::None), None).unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(started.elapsed() < Duration::from_secs(20), "{scheme} took {:?}", started.elapsed());
    }
}

#[test]
fn ssh_checks_the_server_and_shows_our_key() {
    let lab = lab();
    let Some(server) = SshServer::start() else { return };
    let commit = lab.origin.commit(&[("links.yaml", "links: {}\n")]);
    let key =
        |private_key: &str, passphrase: Option<&str>, host_keys: Option<HostKeys>| Credentials::SshKey {
            private_key: private_key.to_owned(),
            passphrase: passphrase.map(str::to_owned),
            host_keys,
        };
    let url = server.url(lab.origin.path());
    for (name, passphrase) in [("ed25519", None), ("rsa", None), ("locked", Some("correct horse"))] {
        let private = server.client_key(name);
        let first = remote(&url, key(&private, passphrase, None));
        let fetched =
            fetch_plain(&lab.mirror, &first, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(fetched.commit, commit);
        // What was seen first is what is required then.
        let seen = fetched.first_host_key.unwrap();
        let pinned = remote(&url, key(&private, passphrase, Some(seen)));
        assert_eq!(fetch_plain(&lab.mirror, &pinned, None).unwrap().first_host_key, None);
    }
    let private = server.client_key("ed25519");
    let scanned: HostKeys = server.host_key_line().parse().unwrap();
    assert!(fetch_plain(&lab.mirror, &remote(&url, key(&private, None, Some(scanned))), None).is_ok());
    let other = HostKeys::of_key(b"another server");
    let error = fetch_plain(&lab.mirror, &remote(&url, key(&private, None, Some(other))), None).unwrap_err();
    assert!(matches!(error, FetchError::HostKeyMismatch { .. }), "{error}");
    let stranger = server.client_key("stranger");
    let error = fetch_plain(&lab.mirror, &remote(&url, key(&stranger, None, None)), None).unwrap_err();
    assert!(matches!(error, FetchError::CredentialsRefused(_)), "{error}");
    let error = fetch_plain(&lab.mirror, &remote(&url, Credentials::None), None).unwrap_err();
    assert!(matches!(error, FetchError::CredentialsMissing(_)), "{error}");
    for (text, passphrase) in [("not a key", None), (server.client_key("locked").as_str(), Some("wrong"))] {
        let error = fetch_plain(&lab.mirror, &remote(&url, key(text, passphrase, None)), None).unwrap_err();
        assert!(
            matches!(error, FetchError::KeyUnusable(_) | FetchError::CredentialsRefused(_)),
            "{text}: {error}"
        );
        assert!(!error.to_string().contains("PRIVATE"), "{error}");
    }
    let gone = server.url(&lab.origin.path().join("gone"));
    let error = fetch_plain(&lab.mirror, &remote(&gone, key(&private, None, None)), None).unwrap_err();
    assert!(matches!(error, FetchError::NotFound(_)), "{error}");
}

#[test]
fn an_inventory_is_read_from_the_commit() {
    let lab = lab();
    lab.origin.write("scripts/hello.sh", "#!/bin/bash\necho hello\n");
    lab.origin.write("scripts/dos.sh", "#!/bin/bash\r\necho hello\r\n");
    lab.origin.git(&["-c", "core.autocrlf=false", "add", "-A"]);
    let entry = "{name: Hello, description: Says hello, path: scripts/hello.sh}";
    let good = lab.origin.commit(&[("scripts.yaml", &format!("scripts:\n  hello: {entry}\n"))]);
    let bad = lab.origin.commit(&[(
        "scripts.yaml",
        &format!("scripts:\n  hello: {}\n", entry.replace("hello.sh", "dos.sh")),
    )]);
    fetch_plain(&lab.mirror, &remote(&lab.origin.url(), Credentials::None), None).unwrap();
    let read = |commit: &str| {
        let snapshot = Snapshot::open(&lab.mirror, commit).unwrap();
        inventory::parse(&|path, limit| snapshot.find(path, limit))
    };
    let inventory = read(&good).unwrap();
    assert_eq!(inventory.scripts[0].content, b"#!/bin/bash\necho hello\n");
    assert!(inventory.warnings[0].message.contains("not executable"), "{:?}", inventory.warnings);
    let problems = read(&bad).unwrap_err();
    assert!(problems[0].to_string().starts_with("scripts.yaml:2:"), "{problems:?}");
    assert!(problems[0].message.contains("CRLF"), "{problems:?}");
}
