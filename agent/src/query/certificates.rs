//! Lists the certificates that servers of nginx use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fleetward_protocol::query::certificates::{CertificateItem, Certificates, MAX_NAMES};
use fleetward_protocol::text::{List, Text};
use fleetward_protocol::time::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::look::Look;
use super::sites::{name, read};
use super::teller::{Stop, Teller};
use crate::link::chain;
use crate::platform::nginx::dump::Dump;
use crate::platform::{clock, files};

/// The largest file of a certificate and those between it and its root, in bytes.
const MAX_FILE: u64 = 256 << 10;
const DAY_MS: i64 = 86_400_000;

impl Look for Certificates {
    async fn look(&self, _: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let (dump, end) = read().await?;
        let now = clock::now();
        for (file, sites) in used(&dump) {
            let item = item(&file, &sites, now);
            let days = item.days_left.filter(|_| item.not_before.is_none_or(|from| from <= now));
            if self.means(days) {
                teller.item(&item).await?;
            }
        }
        end
    }
}

/// The files of certificates, each with the sites that use it.
fn used(dump: &Dump) -> BTreeMap<PathBuf, BTreeSet<String>> {
    let mut used: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for server in dump.servers() {
        for file in server.files("ssl_certificate", dump) {
            used.entry(file).or_default().insert(name(server.file));
        }
    }
    for directive in dump.http() {
        if directive.name == "ssl_certificate"
            && let Some(path) = directive.words.first()
        {
            used.entry(dump.config_path(path)).or_default();
        }
    }
    used
}

fn item(file: &Path, sites: &BTreeSet<String>, now: Timestamp) -> CertificateItem {
    let blank = CertificateItem {
        file: Text::of(file.display()),
        names: List::default(),
        more_names: 0,
        issuer: None,
        not_before: None,
        not_after: None,
        days_left: None,
        sites: List::of(sites.iter().map(Text::of)),
        problem: None,
    };
    let failed = |problem: String| CertificateItem { problem: Some(Text::of(problem)), ..blank.clone() };
    if file.to_string_lossy().contains('$') {
        return failed("nginx finds it by a variable for each connection".to_owned());
    }
    let bytes = match files::read_file(file, MAX_FILE) {
        Ok(bytes) => bytes,
        Err(error) => return failed(chain(&error)),
    };
    let mut blocks = Pem::iter_from_buffer(&bytes);
    // The first one is the server's own; a file may hold its key, too.
    let Some(block) = blocks.by_ref().flatten().find(|block| block.label == "CERTIFICATE") else {
        return failed("it holds no certificate in PEM".to_owned());
    };
    match block.parse_x509() {
        Ok(certificate) => filled(&certificate, blank, now),
        Err(error) => failed(format!("what it holds is no certificate: {error}")),
    }
}

fn filled(certificate: &X509Certificate<'_>, blank: CertificateItem, now: Timestamp) -> CertificateItem {
    let names = names(certificate);
    let millis = |time: x509_parser::time::ASN1Time| time.timestamp().saturating_mul(1000);
    let (from, until) = (millis(certificate.validity().not_before), millis(certificate.validity().not_after));
    CertificateItem {
        more_names: u32::try_from(names.len().saturating_sub(MAX_NAMES)).unwrap_or(u32::MAX),
        names: List::of(names.into_iter().map(Text::of)),
        issuer: Some(Text::of(certificate.issuer())),
        not_before: Some(Timestamp::from_millis(from)),
        not_after: Some(Timestamp::from_millis(until)),
        days_left: Some(until.saturating_sub(now.as_millis()).div_euclid(DAY_MS)),
        ..blank
    }
}

/// The names that a certificate is for (RFC 5280, 4.2.1.6), or that of its subject where it has none.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let general = alternative.iter().flat_map(|names| &names.value.general_names);
    let named: Vec<String> = general
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect();
    if !named.is_empty() {
        return named;
    }
    certificate
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .map(ToOwned::to_owned)
        .collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string());
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string());
    v4().or_else(v6)
}
