//! Which sockets listen, and which processes hold them, as `/proc` has it (proc_net(5), proc_pid_fd(5)).
//!
//! The crate `procfs` reads these files too, but whole, and one line that it does not understand takes all the others away.
//! Here each line stands for itself and is dropped when it says nothing: on a busy host these files have a line for each
//! connection.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use fleetward_protocol::query::sockets::Protocol;

use super::processes;

/// A line is less than 200 bytes.
const MAX_LINE: u64 = 1024;
/// The most sockets that are looked for.
const MAX_SOCKETS: usize = 32_768;
/// The states of listening sockets (`include/net/tcp_states.h`): TCP_LISTEN, and TCP_CLOSE of a socket of UDP that is connected to
/// nobody.
const LISTENS: [(Protocol, &str); 2] = [(Protocol::Tcp, "0A"), (Protocol::Udp, "07")];

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where.
    pub address: IpAddr,
    /// On which port.
    pub port: u16,
    /// Who made it.
    pub uid: u32,
    /// The kernel's number of it.
    pub inode: u64,
}

/// Those who hold a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holders {
    /// The process with the lowest number.
    pub first: u32,
    /// How many processes there are.
    pub count: u32,
}

/// The sockets of this protocol that listen. Those of IPv6 too, where the host has that.
///
/// # Errors
/// If the kernel does not tell.
pub fn read_listening(protocol: Protocol) -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for (version, must) in [("", true), ("6", false)] {
        let file = match File::open(format!("/proc/net/{protocol}{version}")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must => continue,
            Err(error) => return Err(error),
        };
        collect(BufReader::with_capacity(64 << 10, file), protocol, &mut found)?;
    }
    // Where sockets come and go meanwhile, one may be told twice.
    found.sort_by_key(|socket| (socket.port, socket.address, socket.inode));
    found.dedup();
    Ok(found)
}

fn collect(mut lines: impl BufRead, protocol: Protocol, found: &mut Vec<Listening>) -> io::Result<()> {
    let mut line = Vec::new();
    while found.len() < MAX_SOCKETS {
        line.clear();
        if lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        found.extend(std::str::from_utf8(&line).ok().and_then(|line| parse(line, protocol)));
    }
    Ok(())
}

/// `  sl  local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …`
fn parse(line: &str, protocol: Protocol) -> Option<Listening> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    if !LISTENS.contains(&(protocol, state)) {
        return None;
    }
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    let (address, port) = (parse_address(address)?, u16::from_str_radix(port, 16).ok()?);
    // Of UDP it has no port before it is used.
    (port > 0 && inode > 0).then_some(Listening { protocol, address, port, uid, inode })
}

/// Words of 32 bits in hexadecimal, each as this machine reads it from the bytes that travel.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at..at + 8)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(words.as_flattened()).for_each(|(byte, of)| *byte = *of);
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// Who holds sockets, by the kernel's number of each. Processes that may not be looked at, or have ended, are passed over.
#[must_use]
pub fn read_holders() -> HashMap<u64, Holders> {
    let mut held: HashMap<u64, Holders> = HashMap::new();
    for pid in processes::read_all() {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        let mut inodes: Vec<u64> = targets.filter_map(|target| parse_descriptor(&target)).collect();
        // A process may hold one more than once.
        inodes.sort_unstable();
        inodes.dedup();
        for inode in inodes {
            let holders = held.entry(inode).or_insert(Holders { first: pid, count: 0 });
            *holders = Holders { first: holders.first.min(pid), count: holders.count.saturating_add(1) };
        }
    }
    held
}

/// `socket:[12345]`
fn parse_descriptor(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use proptest::prelude::*;

    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn found(protocol: Protocol, lines: &str) -> Vec<Listening> {
        let mut found = Vec::new();
        collect(lines.as_bytes(), protocol, &mut found).unwrap();
        found
    }

    /// As a machine with these bytes prints an address.
    fn printed(address: IpAddr) -> String {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let words = bytes.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
        words.map(|word| format!("{word:08X}")).collect()
    }

    fn line(address: IpAddr, port: u16, state: &str, inode: u64) -> String {
        let local = printed(address);
        format!(
            "   1: {local}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000    33        0 {inode} 1 0\n"
        )
    }

    #[test]
    fn what_listens_is_told_from_what_is_connected() {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let lines = format!(
            "{HEAD}{}{}{}broken\n\u{fffd}\n{}",
            line(address, 80, "0A", 7),
            line(address, 80, "01", 8),
            line(address, 0, "0A", 9),
            line("2001:db8::7".parse().unwrap(), 443, "0A", 10),
        );
        let seen: Vec<_> = found(Protocol::Tcp, &lines)
            .into_iter()
            .map(|socket| (socket.address.to_string(), socket.port, socket.uid, socket.inode))
            .collect();
        assert_eq!(seen, [("192.0.2.7".to_owned(), 80, 33, 7), ("2001:db8::7".to_owned(), 443, 33, 10)]);
        assert_eq!(found(Protocol::Udp, &line(address, 53, "07", 7)).len(), 1);
        assert_eq!(found(Protocol::Udp, &line(address, 53, "01", 7)), []);
    }

    proptest! {
        #[test]
        fn an_address_is_read_as_it_is_written(bytes: [u8; 16], short: bool, port in 1_u16.., inode in 1_u64..) {
            let address = match short {
                true => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
                false => IpAddr::from(bytes),
            };
            let seen = found(Protocol::Tcp, &line(address, port, "0A", inode));
            prop_assert_eq!(seen, [Listening { protocol: Protocol::Tcp, address, port, uid: 33, inode }]);
        }

        #[test]
        fn whatever_stands_there_takes_nothing_else_away(junk in "(?s).{0,200}", words in "[0-9A-F: ]{0,120}") {
            let address = IpAddr::from([192, 0, 2, 7]);
            let lines = format!("{junk}\n{words}\n{}", line(address, 80, "0A", 7));
            prop_assert!(found(Protocol::Tcp, &lines).iter().any(|socket| socket.inode == 7));
        }
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let address = IpAddr::from([192, 0, 2, 7]);
        let lines: String =
            (1..=MAX_SOCKETS as u64 + 9).map(|inode| line(address, 80, "0A", inode)).collect();
        assert_eq!(found(Protocol::Tcp, &lines).len(), MAX_SOCKETS);
    }

    #[test]
    fn our_own_sockets_are_found_with_us() {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let ports = [
            (Protocol::Tcp, tcp.local_addr().unwrap().port()),
            (Protocol::Udp, udp.local_addr().unwrap().port()),
        ];
        let holders = read_holders();
        for (protocol, port) in ports {
            let listening = read_listening(protocol).unwrap();
            let socket = listening.iter().find(|socket| socket.port == port).unwrap();
            assert_eq!(
                (socket.address, socket.uid),
                (IpAddr::from([127, 0, 0, 1]), nix::unistd::getuid().as_raw())
            );
            assert_eq!(holders[&socket.inode].first, std::process::id());
        }
    }
}
