//! `links.yaml`: the hosts.
//!
//! Shapes: `links` as a map; `machines` as a map of the same entries; `machines` as a list, whose entries say
//! `id`, `ip` or `hostname`, `ssh_user`, `ssh_key` for what the map says as key, `host`, `user`, `ssh.keyRef`.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::name::HostName;
use fleetward_protocol::printable::is_line;

use super::fields::{Fields, MAP, SCALAR, json, parse_or_report, whole};
use super::problem::{Position, Report};
use super::yaml::{Entry, Node, Value, shorten};
use super::{InventoryHost, MAX_HOSTS};
use crate::fleet::target::check_name;

/// The kinds that are written the same way whatever case the file uses.
const KINDS: &[&str] = &["VPS", "Proxmox", "VM", "LXC", "Metal"];
/// The longest free text of a host, in bytes.
const MAX_TEXT: usize = 1024;

/// Reads the hosts; what is wrong is reported.
pub(super) fn read(report: &mut Report, document: &Node) -> Vec<InventoryHost> {
    let Value::Map(top) = &document.value else {
        let message = format!("has to be a map with the key `links`, but is {}", document.describe());
        report.error(document.at, "", message);
        return Vec::new();
    };
    let mut hosts = Vec::new();
    let mut known = false;
    for entry in top {
        match (entry.key.as_str(), &entry.value.value) {
            ("links" | "machines", Value::Map(entries)) => {
                known = true;
                for host in entries {
                    let path = format!("{}.{}", entry.key, shorten(&host.key));
                    let name = parse_or_report(report, host.at, &path, &host.key);
                    if let Some(fields) = Fields::of(report, &path, host.at, &host.value) {
                        hosts.extend(read_host(report, fields, name, Shape::Map));
                    }
                }
            }
            ("machines", Value::List(items)) => {
                known = true;
                for (index, item) in items.iter().enumerate() {
                    let path = format!("machines[{index}]");
                    let Some(mut fields) = Fields::of(report, &path, item.at, item) else { continue };
                    let name = fields.required_text(report, &["id", "name"]).and_then(|(id, text)| {
                        parse_or_report(report, id.value.at, &fields.child(&id.key), &text)
                    });
                    hosts.extend(read_host(report, fields, name, Shape::List));
                }
            }
            ("links" | "machines", _) => {
                known = true;
                let mut message =
                    format!("has to be a map from name to host, but is {}", entry.value.describe());
                if entry.value.is_null() {
                    message.push_str(&format!("; an empty fleet is written `{}: {{}}`", entry.key));
                }
                report.error(entry.at, &entry.key, message);
            }
            (key, _) => report.warning(entry.at, &shorten(key), "is not a field known here; it is ignored"),
        }
    }
    if !known {
        report.error(
            document.at,
            "links",
            "is required, but is missing; an empty fleet is written `links: {}`",
        );
    }
    if hosts.len() > MAX_HOSTS {
        let message = format!("holds {} hosts, but {MAX_HOSTS} are allowed", hosts.len());
        report.error(document.at, "links", message);
    }
    check_across(report, &hosts);
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Map,
    List,
}

fn read_host(
    report: &mut Report,
    mut fields: Fields<'_>,
    name: Option<HostName>,
    shape: Shape,
) -> Option<InventoryHost> {
    let at = fields.at();
    let kind = match (take_typed(report, &mut fields, shape, &["type"]), shape) {
        (Some(entry), _) => {
            let field = fields.child("type");
            super::fields::text(report, &field, &entry.value)
                .and_then(|text| read_kind(report, entry.value.at, &field, &text))
        }
        // The list form has no types; VPS is what its examples describe.
        (None, Shape::List) => Some("VPS".to_owned()),
        (None, Shape::Map) => {
            fields.missing(report, &["type"]);
            None
        }
    };
    let address = required_address(report, &mut fields).and_then(|(entry, text)| {
        let valid = text.len() <= 253
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'_' | b'%'));
        if !valid {
            let mut message = format!("`{}` is neither an IP address nor a host name", shorten(&text));
            if is_bracketed(&text) {
                message.push_str("; write an IPv6 address without brackets");
            } else if text.contains("{{") {
                message.push_str("; nothing fills templates in here, so write what is meant");
            }
            report.error(entry.value.at, &fields.child(&entry.key), message);
        }
        valid.then_some(text)
    });
    let port = match (take_typed(report, &mut fields, shape, &["port", "ssh_port"]), shape) {
        (Some(entry), _) => whole(report, &fields.child(&entry.key), &entry.value, 1..=u64::from(u16::MAX)),
        (None, Shape::List) => Some(22),
        (None, Shape::Map) => {
            fields.missing(report, &["port"]);
            None
        }
    };
    let user = fields.required_text(report, &["user", "ssh_user"]);
    let user =
        user.and_then(|(entry, text)| plain_text(report, entry.value.at, &fields.child(&entry.key), text));
    let provider = short_text(report, &mut fields, "provider");
    let tags = fields.parsed_list(report, "tags");
    let description = short_text(report, &mut fields, "description");
    let mut key_ref = short_text(report, &mut fields, "ssh_key");
    let mut proxy_jump = None;
    if let Some(mut ssh) = fields.map(report, "ssh") {
        key_ref = short_text(report, &mut ssh, "keyRef").or(key_ref);
        proxy_jump = ssh.parsed_or_null(report, &["proxyJump"]);
        ssh.finish(report);
    }
    let metadata = read_metadata(report, &mut fields, description);
    let (client_id, enrollment_required) = read_enrollment(report, &mut fields);
    fields.finish(report);
    if name.is_some() && name == proxy_jump {
        report.error(at, &fields_path(name.as_ref(), "ssh.proxyJump"), "names the host itself");
    }
    Some(InventoryHost {
        name: name?,
        client_id: client_id?,
        kind: kind?,
        provider: provider.unwrap_or_default(),
        address: address?,
        port: u16::try_from(port?).ok()?,
        user: user?,
        tags,
        enrollment_required,
        key_ref,
        proxy_jump,
        metadata,
        line: at.line,
    })
}

/// `host` as text; without quotes, YAML takes an IPv6 address in brackets for a list.
fn required_address<'n>(report: &mut Report, fields: &mut Fields<'n>) -> Option<(&'n Entry, String)> {
    let names = ["host", "ip", "hostname"];
    let bracketed = fields.peek(&names).filter(|entry| {
        let Value::List(items) = &entry.value.value else { return false };
        matches!(items.as_slice(), [Node { value: Value::Plain(text) | Value::Quoted(text), .. }]
            if text.parse::<Ipv6Addr>().is_ok())
    });
    let Some(entry) = bracketed else { return fields.required_text(report, &names) };
    let message = "is a list for YAML; write an IPv6 address without brackets";
    report.error(entry.value.at, &fields.child(&entry.key), message);
    fields.take(&names);
    None
}

fn is_bracketed(text: &str) -> bool {
    text.strip_prefix('[')
        .and_then(|rest| rest.split(']').next())
        .is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
}

/// A field that the map form requires and the list form has a default for, which no null stands for.
fn take_typed<'n>(
    report: &mut Report,
    fields: &mut Fields<'n>,
    shape: Shape,
    names: &[&str],
) -> Option<&'n Entry> {
    match shape {
        Shape::Map => fields.take(names),
        Shape::List => fields.given(report, names, SCALAR),
    }
}

fn read_kind(report: &mut Report, at: Position, field: &str, text: &str) -> Option<String> {
    if let Some(kind) = KINDS.iter().find(|kind| kind.eq_ignore_ascii_case(text)) {
        return Some((*kind).to_owned());
    }
    let valid = !text.is_empty()
        && text.len() <= 32
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if valid {
        let message =
            format!("`{text}` is none of the usual types ({}); it is kept as it is", KINDS.join(", "));
        report.warning(at, field, message);
        return Some(text.to_owned());
    }
    let message = format!("`{}` is not a type; use one of {}", shorten(text), KINDS.join(", "));
    report.error(at, field, message);
    None
}

fn read_enrollment(report: &mut Report, fields: &mut Fields<'_>) -> (Option<ClientId>, bool) {
    let before = fields.take(&["enrollment"]);
    let direct = fields.take(&["clientId", "client_id"]);
    let mut required = true;
    let mut client_id = direct.map(|entry| (entry, fields.child(&entry.key)));
    let inner =
        before.and_then(|entry| Fields::of(report, &fields.child("enrollment"), entry.at, &entry.value));
    if before.is_some() && inner.is_none() {
        return (None, required);
    }
    match inner {
        Some(mut enrollment) => {
            required = enrollment.boolean(report, "required").unwrap_or(true);
            if let Some(entry) = enrollment.take(&["clientId", "client_id"]) {
                client_id = Some((entry, enrollment.child(&entry.key)));
            }
            if client_id.is_none() {
                enrollment.missing(report, &["clientId"]);
            }
            enrollment.finish(report);
        }
        None if client_id.is_none() => fields.missing(report, &["enrollment.clientId"]),
        None => {}
    }
    let parsed = client_id.and_then(|(entry, field)| {
        let text = super::fields::text(report, &field, &entry.value)?;
        parse_or_report(report, entry.value.at, &field, &text)
    });
    (parsed, required)
}

fn read_metadata(
    report: &mut Report,
    fields: &mut Fields<'_>,
    description: Option<String>,
) -> serde_json::Map<String, serde_json::Value> {
    let mut metadata = match fields.given(report, &["metadata"], MAP) {
        None => serde_json::Map::new(),
        Some(entry) => match json(&entry.value) {
            serde_json::Value::Object(map) => map,
            _ => {
                let message = format!("has to be a map, but is {}", entry.value.describe());
                report.error(entry.at, &fields.child("metadata"), message);
                serde_json::Map::new()
            }
        },
    };
    if let Some(description) = description {
        metadata.entry("description").or_insert(description.into());
    }
    metadata
}

/// What only the hosts together can break: each name and each client ID belongs to one of them.
fn check_across(report: &mut Report, hosts: &[InventoryHost]) {
    let mut names: HashMap<&HostName, u32> = HashMap::new();
    let mut clients: HashMap<&ClientId, &InventoryHost> = HashMap::new();
    for host in hosts {
        let at = Position { line: host.line, column: 1 };
        if let Err(error) = check_name(&host.name) {
            report.error(at, &fields_path(Some(&host.name), ""), error.to_string());
        }
        if let Some(line) = names.insert(&host.name, host.line) {
            let message = format!("the host is already in line {line}; remove one");
            report.error(at, &fields_path(Some(&host.name), ""), message);
        }
        if let Some(other) = clients.insert(&host.client_id, host) {
            let message = format!(
                "{} already belongs to `{}` in line {}; every host needs its own",
                host.client_id, other.name, other.line
            );
            report.error(at, &fields_path(Some(&host.name), "enrollment.clientId"), message);
        }
    }
    for host in hosts {
        if let Some(jump) = &host.proxy_jump
            && !names.contains_key(jump)
        {
            let at = Position { line: host.line, column: 1 };
            let message = format!("`{jump}` is not a host of this file");
            report.warning(at, &fields_path(Some(&host.name), "ssh.proxyJump"), message);
        }
    }
}

fn fields_path(name: Option<&HostName>, field: &str) -> String {
    let path = format!("links.{}.{field}", name.map(HostName::as_str).unwrap_or_default());
    path.trim_end_matches('.').to_owned()
}

fn short_text(report: &mut Report, fields: &mut Fields<'_>, name: &str) -> Option<String> {
    let entry = fields.take(&[name])?;
    let field = fields.child(name);
    let text = super::fields::text(report, &field, &entry.value)?;
    plain_text(report, entry.value.at, &field, text)
}

fn plain_text(report: &mut Report, at: Position, field: &str, text: String) -> Option<String> {
    if text.len() > MAX_TEXT || !is_line(&text) {
        let message = format!("has to be one line of at most {MAX_TEXT} bytes");
        report.error(at, field, message);
        return None;
    }
    Some(text)
}
