//! Looks up hosts that were followed: whether they are still there, may be asked, and are connected.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use fleetward_api::error::code;
use fleetward_api::fleet::host::{Enrolment, Status};
use fleetward_api::work::target::{Target, TargetPreview, TargetPreviewRequest};
use fleetward_protocol::name::HostName;
use hyper::Method;

use crate::client::Client;
use crate::failure::Failure;
use crate::live::LOOK_UP_WITHIN;

/// The longest expression of names, in bytes: the controller takes 4096.
pub(super) const MAX_EXPRESSION: usize = 4000;
/// Stands between two names.
const OR: &str = " | ";

/// What the controller knows of hosts.
#[derive(Debug, Default)]
pub(super) struct Found {
    asked: BTreeSet<HostName>,
    hosts: BTreeMap<HostName, Standing>,
}

/// Where a host stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// Whether it may be asked.
    pub(super) enrolment: Enrolment,
    /// Whether it is connected.
    status: Status,
}

impl Found {
    /// Whether it was looked for.
    pub(super) fn was_asked(&self, host: &HostName) -> bool {
        self.asked.contains(host)
    }

    /// Where it stands, if it is in the inventory.
    pub(super) fn standing(&self, host: &HostName) -> Option<&Standing> {
        self.hosts.get(host)
    }

    pub(super) fn may_be_asked(&self, host: &HostName) -> bool {
        self.standing(host).is_some_and(|standing| standing.enrolment == Enrolment::Enrolled)
    }

    pub(super) fn is_online(&self, host: &HostName) -> bool {
        self.standing(host).is_some_and(|standing| standing.status == Status::Online)
    }
}

/// Looks hosts up by their names.
///
/// One selection tells of as many hosts as an expression can name. A list of hosts is made page by page, each with a selection of
/// its own from all hosts there are.
///
/// # Errors
/// If the controller cannot be reached in time, or says no.
pub(super) async fn look_up(client: &Client, names: &BTreeSet<HostName>) -> Result<Found, Failure> {
    let mut found = Found { asked: names.clone(), hosts: BTreeMap::new() };
    for page in pages(names.iter(), MAX_EXPRESSION) {
        let asked = TargetPreviewRequest {
            on: expression(page.iter()),
            steps: Vec::new(),
            scripts: Vec::new(),
            environment: BTreeMap::new(),
            directory: None,
            user: None,
        };
        let sent = client.send(Method::POST, "targets/preview", &asked);
        match tokio::time::timeout(LOOK_UP_WITHIN, sent).await {
            Ok(Ok(answer)) => {
                let TargetPreview { hosts, .. } = client.read(&answer)?;
                let standing = |Target { name, enrolment, status }| (name, Standing { enrolment, status });
                found.hosts.extend(hosts.into_iter().map(standing));
            }
            // None of them is there any more.
            Ok(Err(Failure::Refused { body, .. })) if body.code == code::NO_TARGETS => {}
            Ok(Err(failure)) => return Err(failure),
            Err(_) => {
                let source = io::Error::new(io::ErrorKind::TimedOut, "hosts could not be looked up in time");
                return Err(Failure::Unreachable { url: client.address().to_string(), source });
            }
        }
    }
    Ok(found)
}

/// An expression that means these hosts, as far as they are there: unlike a bare name, `name:` is no error for a host that
/// has left the inventory.
pub(super) fn expression<'a>(names: impl Iterator<Item = &'a HostName>) -> String {
    names.map(term).collect::<Vec<_>>().join(OR)
}

fn term(name: &HostName) -> String {
    format!("name:{name}")
}

/// The names in groups whose expressions are no longer than `most` bytes.
pub(super) fn pages<'a>(names: impl Iterator<Item = &'a HostName>, most: usize) -> Vec<BTreeSet<HostName>> {
    let (mut pages, mut length) = (Vec::<BTreeSet<HostName>>::new(), usize::MAX);
    for name in names {
        let more = OR.len() + term(name).len();
        length = length.saturating_add(more);
        match pages.last_mut() {
            Some(page) if length <= most => drop(page.insert(name.clone())),
            _ => {
                pages.push(BTreeSet::from([name.clone()]));
                length = more;
            }
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fill_pages_that_the_controller_can_read() {
        let long = "x".repeat(120);
        let names: BTreeSet<HostName> =
            (0..200).map(|number| format!("{long}-{number:03}").parse().unwrap()).collect();
        let found = pages(names.iter(), MAX_EXPRESSION);
        assert_eq!(found.iter().flatten().cloned().collect::<BTreeSet<_>>(), names);
        assert!(found.len() > 1 && found.len() <= 8, "{}", found.len());
        for page in &found {
            let text = expression(page.iter());
            assert!(text.len() <= MAX_EXPRESSION, "{}", text.len());
            assert!(text.starts_with("name:x") && text.matches(" | ").count() == page.len() - 1);
        }
        assert!(pages([].iter(), MAX_EXPRESSION).is_empty());
    }
}
