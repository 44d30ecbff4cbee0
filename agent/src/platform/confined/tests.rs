//! Nothing leads out: neither links, nor who changes them meanwhile.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// `root/` with `in/file`, and `out/file` beside it.
fn tree() -> (tempfile::TempDir, PathBuf, Confines) {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().canonicalize().unwrap();
    for (name, content) in [("root/in/file", "inside"), ("out/file", "outside")] {
        fs::create_dir_all(top.join(name).parent().unwrap()).unwrap();
        fs::write(top.join(name), content).unwrap();
    }
    let confines = Confines::beneath(&[top.join("root")]);
    (directory, top, confines)
}

fn read(confines: &Confines, path: &Path) -> Result<String, ConfinedError> {
    let (mut file, _) = confines.open_file(path)?;
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    Ok(content)
}

#[test]
fn links_are_followed_as_long_as_they_stay_inside() {
    let (_directory, top, confines) = tree();
    let root = top.join("root");
    symlink("in", root.join("relative")).unwrap();
    symlink(root.join("in"), root.join("absolute")).unwrap();
    symlink("../in/../relative/file", root.join("in/winding")).unwrap();
    symlink("../../out/file", root.join("in/escape")).unwrap();
    symlink(top.join("out"), root.join("escape")).unwrap();
    symlink("/", root.join("top")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    for inside in ["in/file", "relative/file", "absolute/file", "in/winding"] {
        assert_eq!(read(&confines, &root.join(inside)).unwrap(), "inside", "{inside}");
    }
    for outside in ["in/escape", "escape/file", "escape/none", "../out/file", "../out/none", "top/etc/passwd"] {
        let error = read(&confines, &root.join(outside)).unwrap_err();
        assert!(matches!(error, ConfinedError::Outside { .. }), "{outside}: {error}");
        assert!(error.to_string().contains("is not beneath what this host's owner allows"), "{error}");
    }
    assert!(matches!(read(&confines, &root.join("loop")).unwrap_err(), ConfinedError::Loop(_)));
    assert!(read(&confines, &root.join("in/none")).unwrap_err().is_absent());
    assert!(matches!(read(&confines, Path::new("/etc/passwd")).unwrap_err(), ConfinedError::Outside { .. }));
    // Without confines they lead anywhere.
    assert_eq!(read(&Confines::everywhere(), &root.join("in/escape")).unwrap(), "outside");
    let nowhere = Confines::beneath(&[top.join("none")]);
    assert!(matches!(read(&nowhere, &root.join("in/file")).unwrap_err(), ConfinedError::Outside { .. }));
}

#[test]
fn a_directory_that_the_owner_names_may_be_a_link_itself() {
    let (_directory, top, _) = tree();
    symlink("root", top.join("alias")).unwrap();
    let confines = Confines::beneath(&[top.join("alias")]);
    for path in ["alias/in/file", "root/in/file"] {
        assert_eq!(read(&confines, &top.join(path)).unwrap(), "inside", "{path}");
    }
    assert!(matches!(read(&confines, &top.join("out/file")).unwrap_err(), ConfinedError::Outside { .. }));
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let (_directory, top, _) = tree();
    let everywhere = Confines::everywhere();
    nix::unistd::mkfifo(&top.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap();
    for (path, found) in [
        (top.join("fifo"), "a FIFO"),
        (top.join("socket"), "a socket"),
        (top.join("root"), "a directory"),
        ("/dev/zero".into(), "a device"),
    ] {
        let error = everywhere.open_file(&path).unwrap_err().to_string();
        assert!(error.ends_with(&format!("is {found}, and no regular file")), "{error}");
    }
    let error = everywhere.open_directory(&top.join("out/file"), Links::Any).unwrap_err().to_string();
    assert!(error.ends_with("is a regular file, and no directory"), "{error}");
    let error = everywhere.open_file(&top.join("out/file/x")).unwrap_err();
    assert!(error.to_string().contains("Not a directory"), "{error}");
}

#[test]
fn a_link_of_somebody_else_leads_no_hand() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: a link of somebody else, because only root can make one");
        return;
    }
    let (_directory, top, confines) = tree();
    let link = top.join("root/link");
    symlink("in", &link).unwrap();
    let (directory, missing) = confines.open_parent(&link.join("new")).unwrap();
    assert_eq!((directory.path(), missing), (&*top.join("root/in"), vec![]), "root's own is followed");
    std::os::unix::fs::lchown(&link, Some(4242), None).unwrap();
    let error = confines.open_parent(&link.join("new")).unwrap_err();
    assert!(matches!(error, ConfinedError::Link { owner: 4242, .. }), "{error}");
    assert_eq!(read(&confines, &link.join("file")).unwrap(), "inside", "for looking it is");
}

#[test]
fn what_is_missing_is_named_in_its_order() {
    let (_directory, top, confines) = tree();
    let root = top.join("root");
    let (directory, missing) = confines.open_parent(&root.join("in/a/b/file")).unwrap();
    assert_eq!((directory.path(), missing), (&*root.join("in"), vec!["a".into(), "b".into()]));
    let (directory, missing) = confines.open_parent(&root.join("in/none")).unwrap();
    assert_eq!((directory.path(), missing), (&*root.join("in"), vec![]));
    symlink("nowhere", root.join("dangling")).unwrap();
    let error = confines.open_parent(&root.join("dangling/file")).unwrap_err();
    assert!(error.is_absent(), "a link to nothing makes no directory elsewhere: {error}");
}

/// Whoever swaps a directory for a link while it is used gets neither a read nor a write elsewhere.
#[test]
fn who_swaps_a_directory_for_a_link_leads_nobody_out() {
    let (_directory, top, confines) = tree();
    let root = top.join("root");
    symlink(top.join("out"), root.join("bait")).unwrap();
    let done = AtomicBool::new(false);
    let swaps = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                nix::fcntl::renameat2(
                    nix::fcntl::AT_FDCWD,
                    &root.join("in"),
                    nix::fcntl::AT_FDCWD,
                    &root.join("bait"),
                    flags,
                )
                .unwrap();
                swaps += 1;
            }
            swaps
        });
        let (mut inside, mut refused) = (0, 0);
        for round in 0..3000_u32 {
            let path = root.join("in/file");
            match read(&confines, &path) {
                Ok(content) => {
                    assert_eq!(content, "inside");
                    inside += 1;
                }
                Err(ConfinedError::Outside { .. } | ConfinedError::Changing(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            let name = OsString::from(format!("new-{round}"));
            if let Ok((directory, missing)) = confines.open_parent(&root.join("in").join(&name)) {
                assert!(missing.is_empty());
                drop(directory.create_file(&name).unwrap());
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(inside > 0 && refused > 0, "{inside} {refused}");
        swapping.join().unwrap()
    });
    assert!(swaps > 0);
    assert_eq!(fs::read_dir(top.join("out")).unwrap().count(), 1, "something was written elsewhere");
}

#[test]
fn what_has_a_name_is_kept_or_replaced_as_it_was_asked_for() {
    use super::directory::Existing;

    let (_directory, top, confines) = tree();
    let (directory, _) = confines.open_parent(&top.join("root/in/file")).unwrap();
    let (file, new) = (OsStr::new("file"), OsStr::new("new"));
    io::Write::write_all(&mut directory.create_file(new).unwrap(), b"new").unwrap();
    assert!(directory.create_file(new).is_err());
    let error = directory.rename(new, file, Existing::Keep).unwrap_err();
    assert!(error.to_string().contains("File exists"), "{error}");
    directory.link(file, OsStr::new("old")).unwrap();
    directory.rename(new, file, Existing::Replace).unwrap();
    assert_eq!(fs::read_to_string(top.join("root/in/file")).unwrap(), "new");
    assert_eq!(fs::read_to_string(top.join("root/in/old")).unwrap(), "inside");
    assert!(directory.remove(file).unwrap() && !directory.remove(file).unwrap());
    directory.create_directory(OsStr::new("sub")).unwrap().create_file(file).unwrap();
    assert!(directory.remove(OsStr::new("sub")).is_err() && directory.remove_directory(OsStr::new("sub")).is_err());
    let mut names = directory.first_names(9).unwrap();
    names.sort();
    assert_eq!(names, ["old", "sub"]);
}
