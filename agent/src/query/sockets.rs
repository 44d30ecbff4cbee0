//! Lists the sockets that listen.

use std::collections::HashMap;

use fleetward_protocol::query::sockets::{Protocol, SocketItem, Sockets};
use fleetward_protocol::text::Text;

use super::look::Look;
use super::teller::{Stop, Teller};
use crate::platform::processes;
use crate::platform::sockets::{self, Listening};
use crate::platform::users::Names;

impl Look for Sockets {
    async fn look(&self, _follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        let mut meant: Vec<Listening> = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            if self.protocol.is_none_or(|asked| asked == protocol) {
                let listening = sockets::read_listening(protocol).map_err(|error| {
                    Stop::failed(format_args!(
                        "/proc/net/{protocol} cannot be read: {error}; see whether /proc is mounted on the host"
                    ))
                })?;
                meant.extend(listening.into_iter().filter(|socket| self.means(protocol, socket.port)));
            }
        }
        let holders = if meant.is_empty() { HashMap::new() } else { sockets::read_holders() };
        let mut names = Names::default();
        for socket in meant {
            let held = holders.get(&socket.inode);
            let pid = held.map(|held| held.first);
            teller
                .item(&SocketItem {
                    protocol: socket.protocol,
                    address: Text::of(socket.address),
                    port: socket.port,
                    process: pid.and_then(processes::read_name).map(Text::of),
                    pid,
                    processes: held.map_or(0, |held| held.count),
                    unit: pid.and_then(processes::read_unit).map(Text::of),
                    user: Text::of(names.user(socket.uid)),
                    inode: socket.inode,
                })
                .await?;
        }
        Ok(())
    }
}
