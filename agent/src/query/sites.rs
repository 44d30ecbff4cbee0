//! Lists the sites of nginx: what it would read, and what is written and not enabled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use fleetward_protocol::nginx::{Directive, parse};
use fleetward_protocol::query::sites::{MAX_NAMES, SiteItem, Sites, Writer};
use fleetward_protocol::text::{List, Text};

use super::look::Look;
use super::teller::{Stop, Teller};
use crate::platform::files;
use crate::platform::nginx::dump::{Dump, Server};
use crate::platform::nginx::mark::{Whose, whose};
use crate::platform::nginx::piece::MAX_FILE;
use crate::platform::nginx::place::Layout;
use crate::platform::nginx::{Nginx, NginxError};

impl Look for Sites {
    async fn look(&self, _: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let (dump, end) = read().await?;
        let upstreams = dump.upstreams();
        for (file, servers) in by_file(&dump) {
            let item = item(file, true, &servers, &dump, &upstreams);
            if self.means(&item.name, servers.iter().flat_map(Server::names)) {
                teller.item(&item).await?;
            }
        }
        for (file, directives) in disabled(&dump) {
            let servers: Vec<Server<'_>> = directives
                .iter()
                .filter(|directive| directive.name == "server" && directive.block.is_some())
                .map(|directive| Server { file: &file, directive })
                .collect();
            let own: BTreeMap<&str, &Directive> = directives
                .iter()
                .filter(|directive| directive.name == "upstream")
                .filter_map(|directive| Some((directive.words.first()?.as_str(), directive)))
                .collect();
            let item = item(&file, false, &servers, &dump, &own);
            if self.means(&item.name, servers.iter().flat_map(Server::names)) {
                teller.item(&item).await?;
            }
        }
        end
    }
}

/// The configuration that nginx would work with, and how the answer ends: where nginx does not take it, what its files say is told
/// all the same, and then that.
pub(super) async fn read() -> Result<(Dump, Result<(), Stop>), Stop> {
    let read = async { Nginx::find().await?.read_dump_or_files().await };
    let (dump, broken) = read.await.map_err(|error| match &error {
        NginxError::Absent => Stop::failed(format_args!("{error}; leave this host out, or install it first")),
        _ => Stop::failed(format_args!("{error}; see what `nginx -T` says on the host")),
    })?;
    let end = broken.map_or(Ok(()), |lines| {
        let words = lines.first().map_or("", |line| line.as_str()).to_owned();
        let error = NginxError::Broken(lines);
        Err(Stop::failed(format_args!(
            "{error}: {words}; correct that until `nginx -t` is content: what is told here stands in the files, and nginx may work with something older"
        )))
    });
    Ok((dump, end))
}

/// The servers, by the file that they stand in.
pub(super) fn by_file(dump: &Dump) -> BTreeMap<&Path, Vec<Server<'_>>> {
    let mut files: BTreeMap<&Path, Vec<Server<'_>>> = BTreeMap::new();
    for server in dump.servers() {
        files.entry(server.file).or_default().push(server);
    }
    files
}

/// What a site is called whose file this is.
pub(super) fn name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".disabled").unwrap_or(&name);
    name.strip_suffix(".conf").filter(|name| !name.is_empty() && *name != "nginx").unwrap_or(name).to_owned()
}

fn item(
    file: &Path,
    enabled: bool,
    servers: &[Server<'_>],
    dump: &Dump,
    upstreams: &BTreeMap<&str, &Directive>,
) -> SiteItem {
    let name = name(file);
    let names: BTreeSet<&str> = servers.iter().flat_map(Server::names).collect();
    let listens: BTreeSet<String> =
        servers.iter().flat_map(Server::listens).map(|words| words.join(" ")).collect();
    let certificates: BTreeSet<PathBuf> =
        servers.iter().flat_map(|server| server.files("ssl_certificate", dump)).collect();
    SiteItem {
        enabled,
        writer: writer(&name, file),
        more_names: u32::try_from(names.len().saturating_sub(MAX_NAMES)).unwrap_or(u32::MAX),
        server_names: List::of(names.into_iter().map(Text::of)),
        listen: List::of(listens.into_iter().map(Text::of)),
        // The first one of a site with TLS often sends everybody to the second.
        target: servers.last().and_then(|server| server.target(dump, upstreams)).map(Text::of),
        certificates: List::of(certificates.iter().map(|path| Text::of(path.display()))),
        file: Text::of(file.display()),
        name: Text::of(name),
    }
}

fn writer(name: &str, file: &Path) -> Writer {
    let Ok(name) = name.parse() else { return Writer::Foreign };
    match files::read_file(file, MAX_FILE).map(|content| whose(&name, &content)) {
        Ok(Whose::Ours) => Writer::Ours,
        Ok(Whose::Edited) => Writer::Edited,
        Ok(Whose::Foreign) | Err(_) => Writer::Foreign,
    }
}

/// The files of sites that nginx does not read.
pub(super) fn disabled(dump: &Dump) -> Vec<(PathBuf, Vec<Directive>)> {
    let (directory, ending) = match Layout::of(dump) {
        Some(Layout::Links { available, ending, .. }) => (available, ending),
        Some(Layout::Files { directory }) => (directory, ".conf.disabled"),
        None => return Vec::new(),
    };
    let is_read: BTreeSet<PathBuf> = dump.files().filter_map(|path| path.canonicalize().ok()).collect();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            let is_site = !name.starts_with(b".") && name.ends_with(ending.as_bytes());
            is_site && path.canonicalize().is_ok_and(|path| !is_read.contains(&path))
        })
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let content = files::read_file(&path, MAX_FILE).ok()?;
        Some((path, parse(&content).directives))
    };
    paths.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_called_as_its_file() {
        for (file, called) in [
            ("/etc/nginx/sites-enabled/shop", "shop"),
            ("/etc/nginx/sites-enabled/shop.example.com", "shop.example.com"),
            ("/etc/nginx/conf.d/shop.conf", "shop"),
            ("/etc/nginx/conf.d/shop.conf.disabled", "shop"),
            ("/etc/nginx/nginx.conf", "nginx.conf"),
        ] {
            assert_eq!(name(Path::new(file)), called);
        }
    }
}
