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
    for outside in ["in/escape", "escape/file", "escape/none", "../out/file", "../out/none", "top/etc/passwd"]
    {
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
        return crate::testing::skipped("a link of somebody else", "only root can make one");
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
    assert!(
        directory.remove(OsStr::new("sub")).is_err()
            && directory.remove_directory(OsStr::new("sub")).is_err()
    );
    let mut names = directory.first_names(9).unwrap();
    names.sort();
    assert_eq!(names, ["old", "sub"]);
}

/// A place in `root/in`, and what is in it.
fn place(confines: &Confines, top: &Path) -> (Directory, OsString) {
    let path = top.join("root/in/file");
    (confines.open_parent(&path).unwrap().0, "file".into())
}

fn names(directory: &Directory) -> Vec<OsString> {
    let mut names = directory.first_names(99).unwrap();
    names.sort();
    names
}

/// As good as a full disk: each test is a process of its own.
#[test]
fn without_room_nothing_is_half_done() {
    let (_directory, top, confines) = tree();
    let (directory, name) = place(&confines, &top);
    let place = replace::Place { directory: &directory, name: &name };
    let seen = directory.look(&name).unwrap();
    // SAFETY: integers, and a structure that outlives the call.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit);
        limit.rlim_cur = 4096;
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    let error = place.stage(&[b'x'; 8192], attributes::Attributes::default(), seen.as_ref()).unwrap_err();
    assert!(error.to_string().contains("File too large"), "{error}");
    assert_eq!(names(&directory), ["file"]);
    assert_eq!(fs::read_to_string(top.join("root/in/file")).unwrap(), "inside");
}

#[test]
fn a_file_that_somebody_else_changes_meanwhile_is_left_to_them() {
    use attributes::Attributes;
    use replace::{Displaced, Must, Place};

    let (_directory, top, confines) = tree();
    let (directory, name) = place(&confines, &top);
    let path = top.join("root/in/file");
    let place = Place { directory: &directory, name: &name };
    let seen = directory.look(&name).unwrap();
    place.stage(b"new", Attributes::default(), seen.as_ref()).unwrap();
    fs::write(&path, "theirs").unwrap();
    let error = place.put(seen.as_ref(), Must::Replace).unwrap_err();
    assert!(matches!(error, ConfinedError::Meanwhile(_)), "{error}");
    assert_eq!(
        (names(&directory), fs::read_to_string(&path).unwrap()),
        (vec![name.clone()], "theirs".to_owned())
    );
    // One that was not there, and is.
    place.stage(b"new", Attributes::default(), None).unwrap();
    assert!(matches!(place.put(None, Must::Replace), Err(ConfinedError::Meanwhile(_))));
    // Put there, and back again.
    let seen = directory.look(&name).unwrap();
    place.stage(b"new", Attributes::of(&seen.as_ref().unwrap().metadata), seen.as_ref()).unwrap();
    let was = place.put(seen.as_ref(), Must::Keep).unwrap();
    assert_eq!((was, fs::read_to_string(&path).unwrap()), (Displaced::Kept, "new".to_owned()));
    place.put_back(was).unwrap();
    assert_eq!((names(&directory), fs::read_to_string(&path).unwrap()), (vec![name], "theirs".to_owned()));
}

#[test]
fn a_tree_is_removed_to_a_depth_and_until_somebody_says_stop() {
    let (_directory, top, confines) = tree();
    let (directory, _) = confines.open_parent(&top.join("root/in")).unwrap();
    let deep = |depth| (0..depth).fold(top.join("root/in"), |path: PathBuf, _| path.join("d"));
    fs::create_dir_all(deep(200)).unwrap();
    let name = OsStr::new("in");
    assert_eq!(tree::ensure_removed(&directory, name, &mut || true).unwrap(), None);
    assert!(top.join("root/in/file").exists());
    assert_eq!(tree::ensure_removed(&directory, name, &mut || false).unwrap(), Some(202));
    assert!(!top.join("root/in").exists());
    fs::create_dir_all(deep(300)).unwrap();
    let error = tree::ensure_removed(&directory, name, &mut || false).unwrap_err();
    assert!(matches!(error, ConfinedError::Deep(_)), "{error}");
}

#[test]
fn attributes_of_the_file_that_was_there_are_kept() {
    let (_directory, top, confines) = tree();
    let (directory, name) = place(&confines, &top);
    let path = std::ffi::CString::new(top.join("root/in/file").as_os_str().as_bytes()).unwrap();
    let get = || {
        let mut value = [0_u8; 9];
        // SAFETY: both texts are null-terminated, and the kernel writes no more than there is room for.
        let length =
            unsafe { libc::getxattr(path.as_ptr(), c"user.note".as_ptr(), value.as_mut_ptr().cast(), 9) };
        usize::try_from(length).ok().map(|length| value[..length].to_vec())
    };
    // SAFETY: the same, of what is read.
    let set = unsafe { libc::setxattr(path.as_ptr(), c"user.note".as_ptr(), b"kept".as_ptr().cast(), 4, 0) };
    if set != 0 {
        return crate::testing::skipped("attributes of files", "this file system has none");
    }
    let seen = directory.look(&name).unwrap();
    let place = replace::Place { directory: &directory, name: &name };
    let staged = place.stage(b"new", attributes::Attributes::default(), seen.as_ref()).unwrap();
    assert!(staged.lost.is_empty(), "{:?}", staged.lost);
    place.put(seen.as_ref(), replace::Must::Replace).unwrap();
    assert_eq!(get().as_deref(), Some(&b"kept"[..]));
}

#[test]
fn what_the_disk_says_comes_with_what_to_do() {
    for (errno, told) in [
        (Errno::ENOSPC, "make room"),
        (Errno::EDQUOT, "make room"),
        (Errno::EROFS, "mounted read-only"),
        (Errno::EPERM, "immutable"),
        (Errno::EACCES, "as a user who may"),
        (Errno::ENOENT, "fleetward file ls"),
        (Errno::EXDEV, "another file system is mounted"),
        (Errno::EIO, "kernel log"),
    ] {
        let error = ConfinedError::new("writing", Path::new("/a\n"), errno);
        assert!(error.advice().contains(told), "{errno}: {}", error.advice());
        assert!(error.to_string().starts_with("writing /a\\x0a failed: "), "{error}");
    }
}
