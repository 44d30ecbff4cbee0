//! Which sockets of the host listen, and whose they are.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Contract, Key, Shows};
use crate::action::Privilege;
use crate::choice::choices;
use crate::object::{Class, Object};
use crate::text::{Text, Word};

/// Which sockets are listed: those of the network of the host itself that take connections or datagrams from anybody.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Sockets {
    /// Of this protocol only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub protocol: Option<Protocol>,
    /// On this port only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 65535, example = 443))]
    pub port: Option<u16>,
}

choices! {
    /// What a socket speaks.
    pub enum Protocol {
        /// TCP: it takes connections.
        Tcp = "tcp",
        /// UDP: it takes datagrams, and is connected to nobody.
        Udp = "udp",
    }
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SocketItem {
    /// What it speaks.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub protocol: Protocol,
    /// The address on which it listens: `0.0.0.0` is every one of IPv4, `::` every one of IPv6, and mostly of IPv4 too.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "0.0.0.0"))]
    pub address: Word,
    /// The port.
    pub port: u16,
    /// The name of the process that holds it; of several, of the one that has the lowest number. Absent where the kernel itself holds it,
    /// or where the agent may not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "nginx"))]
    pub process: Option<Word>,
    /// Its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How many processes hold it.
    pub processes: u32,
    /// The unit of systemd that this process belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "nginx.service"))]
    pub unit: Option<Word>,
    /// The Linux user who made the socket.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "root"))]
    pub user: Word,
    /// The kernel's number of it: two sockets may listen at the same address.
    pub inode: u64,
}

impl Contract for Sockets {
    const KIND: &'static str = "sockets";
    const SUMMARY: &'static str = "List the sockets that listen, with their processes and units.";
    const PRIVILEGE: Privilege = Privilege::Observe;
    const FOLLOWS: bool = false;
    const SHOWS: Shows = Shows::Table;
    const OBJECTS: &'static [Class] = &[];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
    const MAX_ITEMS: usize = 16_384;
    const MAX_BYTES: usize = 8 << 20;

    type Item = SocketItem;

    fn key(item: &SocketItem) -> Key {
        let SocketItem { protocol, address, port, inode, .. } = item;
        // IPv6 has colons of its own.
        Text::of(match address.contains(':') {
            true => format!("{protocol} [{address}]:{port} {inode}"),
            false => format!("{protocol} {address}:{port} {inode}"),
        })
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn shown(_: &SocketItem) -> Option<Object> {
        None
    }

    fn validate(&self) -> Result<(), String> {
        match self.port {
            Some(0) => Err("`port` is 0: nothing listens there; name a port from 1 to 65535".to_owned()),
            _ => Ok(()),
        }
    }
}

impl Sockets {
    /// Whether a socket of this protocol and port is meant.
    #[must_use]
    pub fn means(&self, protocol: Protocol, port: u16) -> bool {
        self.protocol.is_none_or(|meant| meant == protocol) && self.port.is_none_or(|meant| meant == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ActionRequest;
    use crate::query::{MAX_ITEM, Query};

    #[test]
    fn what_is_asked_for_is_meant() {
        let all = Sockets::default();
        let web = Sockets { port: Some(443), ..Sockets::default() };
        let datagrams = Sockets { protocol: Some(Protocol::Udp), port: Some(443) };
        for (protocol, port, meant) in [
            (Protocol::Tcp, 443, [true, true, false]),
            (Protocol::Udp, 443, [true, true, true]),
            (Protocol::Tcp, 80, [true, false, false]),
        ] {
            let found = [&all, &web, &datagrams].map(|asked| asked.means(protocol, port));
            assert_eq!(found, meant, "{protocol} {port}");
        }
        for (params, told) in [
            (r#"{"port":0}"#, "nothing listens there"),
            (r#"{"port":70000}"#, "u16"),
            (r#"{"protocol":"sctp"}"#, "sctp"),
        ] {
            let request = ActionRequest { kind: "sockets".into(), params: params.into() };
            let error = Query::parse(&request).unwrap_err().to_string();
            assert!(error.contains("`sockets`") && error.contains(told), "{error}");
        }
    }

    #[test]
    fn two_sockets_at_one_address_are_two_and_the_largest_item_fits() {
        let item = |address: &str, inode| SocketItem {
            protocol: Protocol::Tcp,
            address: Text::of(address),
            port: 80,
            process: Some(Text::of("\"".repeat(255))),
            pid: Some(u32::MAX),
            processes: u32::MAX,
            unit: Some(Text::of("\"".repeat(255))),
            user: Text::of("\"".repeat(255)),
            inode,
        };
        assert_eq!(Sockets::key(&item("::", 7)), "tcp [::]:80 7");
        assert_ne!(Sockets::key(&item("192.0.2.7", 7)), Sockets::key(&item("192.0.2.7", 8)));
        assert!(serde_json::to_string(&item("::", u64::MAX)).unwrap().len() <= MAX_ITEM);
    }
}
