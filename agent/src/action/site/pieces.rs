//! The files and the link of a site: what they are, what they are to be, and whose; how they come there, and back.

use std::path::Path;

use fleetward_protocol::action::site::{Auth, Site, SiteVerb};

use super::render::{Ground, Links, render};
use crate::journal::steps::Earlier;
use crate::perform::Problem;
use crate::platform::files::{self, FileError};
use crate::platform::nginx::Nginx;
use crate::platform::nginx::dump::Dump;
use crate::platform::nginx::mark::{Whose, marked, whose};
use crate::platform::nginx::piece::{MAX_FILE, Piece, Thing};
use crate::platform::nginx::place::SitePlace;
use crate::platform::users;

/// A site's files, which nginx's workers and everybody else may read.
const FILE_MODE: u32 = 0o644;
/// A file of users, which nobody else needs to read.
const USERS_MODE: u32 = 0o640;

/// What is there, and what is to be there.
pub(super) fn pieces(
    asked: &Site,
    nginx: &Nginx,
    dump: &Dump,
    place: &SitePlace,
    links: Links,
) -> Result<Vec<Piece>, Problem> {
    let file = read(&place.file)?;
    ensure_ours(asked, &place.file, &file)?;
    let disabled = place.disabled.as_deref().map(|path| read(path).map(|thing| (path, thing))).transpose()?;
    if let Some((path, thing)) = &disabled {
        ensure_ours(asked, path, thing)?;
    }
    let link = place.link.as_deref().map(|path| read(path).map(|thing| (path, thing))).transpose()?;
    if let Some((path, thing)) = &link {
        ensure_our_link(path, thing, &place.file)?;
    }
    let users = read(&place.users)?;
    if users != Thing::Nothing || asked.auth.as_ref().is_some_and(|auth| !auth.users.is_empty()) {
        ensure_no_link(place.users.parent().unwrap_or(Path::new("/")))?;
    }
    ensure_ours(asked, &place.users, &users)?;
    let there = match (&file, &disabled) {
        (Thing::Nothing, Some((_, thing))) => thing.clone(),
        _ => file.clone(),
    };
    if there == Thing::Nothing && matches!(asked.verb, SiteVerb::Enable | SiteVerb::Disable) {
        return Err(Problem::new(
            format_args!("there is no site {} on this host", asked.name),
            "see which there are with the query `sites`, or write it with `ensure`",
        ));
    }
    let (text, kept) = match asked.verb {
        SiteVerb::Ensure => wanted(asked, nginx, dump, place, links)?,
        SiteVerb::Remove => (Thing::Nothing, Thing::Nothing),
        SiteVerb::Enable | SiteVerb::Disable => (there, users.clone()),
    };
    let is_enabled = matches!(asked.verb, SiteVerb::Ensure | SiteVerb::Enable);
    let users = Piece { path: place.users.clone(), was: users, wanted: kept };
    let mut pieces = Vec::new();
    match (link, disabled) {
        (Some((path, was)), _) => {
            let target = if is_enabled { was.clone() } else { Thing::Nothing };
            let target =
                if is_enabled && target == Thing::Nothing { Thing::Link(place.file.clone()) } else { target };
            pieces.push(Piece { path: place.file.clone(), was: file, wanted: text });
            pieces.push(Piece { path: path.to_owned(), was, wanted: target });
        }
        (None, disabled) => {
            let (on, off) = if is_enabled { (text, Thing::Nothing) } else { (Thing::Nothing, text) };
            pieces.push(Piece { path: place.file.clone(), was: file, wanted: on });
            pieces.extend(disabled.map(|(path, was)| Piece { path: path.to_owned(), was, wanted: off }));
        }
    }
    // Whom a site lets in is there before it is, and goes after it: see `Found::is_late`.
    match users.wanted {
        Thing::Nothing => pieces.push(users),
        _ => pieces.insert(0, users),
    }
    // So is its link.
    if asked.verb == SiteVerb::Remove {
        pieces.sort_by_key(|piece| Some(&piece.path) != place.link.as_ref());
    }
    Ok(pieces)
}

/// The site's file and its file of users as they are to be.
fn wanted(
    asked: &Site,
    nginx: &Nginx,
    dump: &Dump,
    place: &SitePlace,
    links: Links,
) -> Result<(Thing, Thing), Problem> {
    let users = asked.auth.as_ref().filter(|auth| !auth.users.is_empty());
    let path = place.users.display().to_string();
    let has_http2 = nginx.is_at_least([1, 25, 1]);
    let text = render(asked, Ground { has_http2, users: users.map(|_| path.as_str()), links });
    if text.len() as u64 > MAX_FILE {
        return Err(Problem::new(
            format_args!("the file of this site would have {} bytes, and {MAX_FILE} are allowed", text.len()),
            "make several sites of it",
        ));
    }
    let file = |content: Vec<u8>, mode, group| Thing::File { content, mode, group };
    let users = match users {
        None => Thing::Nothing,
        Some(Auth { users, .. }) => {
            let lines: String = users.iter().map(|login| format!("{login}\n")).collect();
            // A line that begins with `#` is none of a user (ngx_http_auth_basic_module).
            file(marked(&asked.name, &lines).into_bytes(), USERS_MODE, worker_group(nginx, dump))
        }
    };
    Ok((file(text.into_bytes(), FILE_MODE, own_group()), users))
}

fn own_group() -> u32 {
    users::read_own_account().gid
}

/// The group of nginx's workers, who read who may come in: the one that is named, or the one that is called like their user
/// (`user`, ngx_core_module), whatever that user's own group is.
fn worker_group(nginx: &Nginx, dump: &Dump) -> u32 {
    if !users::may_change_user() {
        return own_group();
    }
    let named = dump.words("user").and_then(|words| words.get(1).or(words.first()));
    users::read_gid(named.unwrap_or(&nginx.group)).unwrap_or_else(own_group)
}

/// Refuses to touch what somebody else wrote.
fn ensure_ours(asked: &Site, path: &Path, thing: &Thing) -> Result<(), Problem> {
    let path = path.display();
    match thing {
        Thing::Nothing => Ok(()),
        Thing::File { content, .. } => match whose(&asked.name, content) {
            Whose::Ours => Ok(()),
            // What is disabled stays as it is.
            Whose::Edited if asked.replace_edited || asked.verb == SiteVerb::Disable => Ok(()),
            Whose::Edited => Err(Problem::new(
                format_args!("{path} was changed on the host since it was written"),
                "look at what was changed, and ask again with `replace_edited` if it may go",
            )),
            Whose::Foreign => Err(Problem::new(
                format_args!("{path} was not written by this agent, and is not touched"),
                "choose another name for the site, or move that file away on the host",
            )),
        },
        Thing::Link(_) | Thing::Other => Err(Problem::new(
            format_args!("{path} is no file, and is not touched"),
            "choose another name for the site, or move it away on the host",
        )),
    }
}

/// Refuses a directory of files of users that is a link: whoever looks for who may come in would look elsewhere.
fn ensure_no_link(directory: &Path) -> Result<(), Problem> {
    match directory.is_symlink() {
        false => Ok(()),
        true => Err(Problem::new(
            format_args!("{} is a link, and files of users are not put where it leads", directory.display()),
            "remove the link on the host: the directory is made when it is needed",
        )),
    }
}

/// Refuses to touch a link that leads elsewhere.
fn ensure_our_link(path: &Path, thing: &Thing, file: &Path) -> Result<(), Problem> {
    let is_ours = match thing {
        Thing::Nothing => true,
        Thing::Link(target) => {
            let target = path.parent().unwrap_or(Path::new("/")).join(target);
            target == file
                || target
                    .canonicalize()
                    .is_ok_and(|target| file.canonicalize().is_ok_and(|file| file == target))
        }
        Thing::File { .. } | Thing::Other => false,
    };
    match is_ours {
        true => Ok(()),
        false => Err(Problem::new(
            format_args!("{} is no link to {}, and is not touched", path.display(), file.display()),
            "choose another name for the site, or move it away on the host",
        )),
    }
}

/// Puts back what was where, the last one first. What is as it was is not touched, and what cannot be put back does not keep
/// the others from it; but nothing is removed then that others may need. The first problem is told.
pub(super) fn put_back<'a>(
    things: impl DoubleEndedIterator<Item = (&'a Path, &'a Thing)>,
) -> Result<(), Problem> {
    let mut first = Ok(());
    for (path, was) in things.rev() {
        let is_untouched = Thing::read(path).is_ok_and(|there| there == *was);
        if is_untouched || first.is_err() && *was == Thing::Nothing {
            continue;
        }
        let done = put(was, path);
        first = first.and(done);
    }
    first
}

/// Refuses to change what is not as it was when it was looked at; nginx may have tested the change for a minute since.
pub(super) fn ensure_as_seen<'a>(
    pieces: impl Iterator<Item = &'a Piece>,
    earlier: Option<Earlier>,
) -> Result<(), Problem> {
    for Piece { path, was, wanted } in pieces.filter(|piece| !piece.is_as_wanted()) {
        let there = read(path)?;
        // An earlier attempt may have put it in place.
        if there != *was && !(earlier.is_some() && there.is(wanted)) {
            return Err(Problem::new(
                format_args!("{} was changed on the host meanwhile", path.display()),
                "it is left as it is; look at what was changed, and ask again",
            ));
        }
    }
    Ok(())
}

/// Puts the change in place: each piece of it in one step.
pub(super) fn switch<'a>(pieces: impl Iterator<Item = &'a Piece>) -> Result<(), Problem> {
    let mut changed = pieces.filter(|piece| !piece.is_as_wanted());
    changed.try_for_each(|piece| put(&piece.wanted, &piece.path))
}

fn put(thing: &Thing, path: &Path) -> Result<(), Problem> {
    let put = || {
        if let (Thing::File { .. } | Thing::Link(_), Some(parent)) = (thing, path.parent()) {
            files::ensure_directory(parent, 0o755)?;
        }
        thing.ensure(path)
    };
    put().map_err(|error: FileError| {
        Problem::new(
            chain(&error),
            "see that there is room on the disk, and that the directory can be written",
        )
    })
}

fn read(path: &Path) -> Result<Thing, Problem> {
    Thing::read(path).map_err(|error| Problem::new(chain(&error), "see what stands there on the host"))
}

fn chain(error: &FileError) -> String {
    crate::link::chain(error)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn file(text: &str, group: u32) -> Thing {
        Thing::File { content: text.into(), mode: 0o644, group }
    }

    #[test]
    fn what_others_changed_meanwhile_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site");
        let group = fs::metadata(directory.path()).unwrap().gid();
        let piece = Piece { path: path.clone(), was: file("one", group), wanted: file("two", group) };
        for (there, at_first, again) in [
            (file("one", group), true, true),
            (file("mine", group), false, false),
            (file("two", group), false, true),
            (Thing::Nothing, false, false),
            (Thing::Link("/nowhere".into()), false, false),
        ] {
            there.ensure(&path).unwrap();
            let seen = |earlier| ensure_as_seen(std::iter::once(&piece), earlier).is_ok();
            assert_eq!((seen(None), seen(Some(Earlier::Began))), (at_first, again), "{there:?}");
        }
    }

    #[test]
    fn what_is_as_it_was_is_not_written_and_one_failure_does_not_keep_the_others_from_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let group = fs::metadata(directory.path()).unwrap().gid();
        let was = file("was", group);
        for (name, text) in [("changed", "new"), ("untouched", "was"), ("new", "new")] {
            file(text, group).ensure(&at(name)).unwrap();
        }
        let inode = fs::metadata(at("untouched")).unwrap().ino();
        // Nothing can be put below a file.
        let stuck = at("untouched").join("stuck");
        let (changed, untouched, new) = (at("changed"), at("untouched"), at("new"));
        let all = [
            (new.as_path(), &Thing::Nothing),
            (changed.as_path(), &was),
            (stuck.as_path(), &was),
            (untouched.as_path(), &was),
        ];
        let problem = put_back(all.into_iter()).unwrap_err();
        assert!(problem.reason.contains("untouched"), "{problem:?}");
        assert_eq!(Thing::read(&changed).unwrap(), was);
        assert_eq!(fs::metadata(&untouched).unwrap().ino(), inode);
        assert!(new.exists(), "what could not be put back may need it");
        put_back(all.into_iter().filter(|(path, _)| *path != stuck)).unwrap();
        assert!(!new.exists());
    }
}
