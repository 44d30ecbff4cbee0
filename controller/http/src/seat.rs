//! Who may hold how many connections and requests, so that nobody takes all of them.
//!
//! A newcomer is always let in, unless its own address holds too many: when the seats of newcomers are taken, the
//! address that holds the most of them loses its oldest. Whoever has proved a login sits on a seat of another kind,
//! which no newcomer can take; what one login may hold is limited too. A host of IPv6 has a whole /64 for itself, so
//! addresses are counted by it. Loopback is not counted: a proxy on this machine is many people.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use fleetward_domain::people::attempt::Party;
use fleetward_protocol::digest::Digest;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How much there is, and how much of it one may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections without a login so far.
    pub(super) newcomers: usize,
    /// Connections with one.
    pub(super) known: usize,
    /// Connections of one address, with a login or without.
    pub(super) per_address: usize,
    /// Connections of one login.
    pub(super) per_login: usize,
    /// Requests in flight of one login, live streams among them.
    pub(super) requests_per_login: usize,
    /// How long a connection is kept on which nothing is asked.
    pub(super) idle: Duration,
}

/// The limits of a controller.
pub(super) const LIMITS: Limits = Limits {
    newcomers: 2048,
    known: 2048,
    per_address: 256,
    per_login: 128,
    requests_per_login: 256,
    idle: Duration::from_secs(60),
};

/// All connections of a listener.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    limits: Limits,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// Those without a login, the oldest first.
    newcomers: HashMap<u64, CancellationToken>,
    known: usize,
    addresses: HashMap<Party, Held>,
    logins: HashMap<Digest, Login>,
}

/// What one address holds.
#[derive(Debug, Default)]
struct Held {
    all: usize,
    newcomers: BTreeSet<u64>,
    /// Its refusals were told in the log.
    told: bool,
}

/// What one login holds.
#[derive(Debug, Default)]
struct Login {
    connections: usize,
    requests: usize,
}

/// A connection's seat; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    address: Party,
    seats: Seats,
    /// Whose login sits here.
    login: OnceLock<Digest>,
    cut: CancellationToken,
    /// Requests in flight.
    requests: watch::Sender<usize>,
}

/// A request in flight; it has ended when every clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Request(Arc<InFlight>);

#[derive(Debug)]
struct InFlight {
    seat: Arc<Seat>,
    login: OnceLock<Digest>,
}

/// A login has as many requests in flight, or connections, as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this login has {limit} {what} already; wait for one to end, or log in once more for other work")]
pub(super) struct TooMany {
    what: &'static str,
    limit: usize,
}

impl Seats {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, table: Arc::default() }
    }

    /// A seat for a connection that was just made; `None` if its address holds too many.
    pub(super) fn take(&self, remote: IpAddr) -> Option<Arc<Seat>> {
        let address = Party::of(remote);
        let cut = CancellationToken::new();
        let mut table = self.lock();
        let held = table.addresses.entry(address).or_default();
        if held.all >= self.limits.per_address && !remote.to_canonical().is_loopback() {
            if !std::mem::replace(&mut held.told, true) {
                tracing::warn!(%address, limit = self.limits.per_address, "http.address_holds_too_many");
            }
            return None;
        }
        if table.newcomers.len() >= self.limits.newcomers {
            table.displace();
        }
        let number = table.next;
        table.next += 1;
        table.newcomers.insert(number, cut.clone());
        let held = table.addresses.entry(address).or_default();
        held.all += 1;
        held.newcomers.insert(number);
        drop(table);
        let (requests, _) = watch::channel(0);
        Some(Arc::new(Seat { number, address, seats: self.clone(), login: OnceLock::new(), cut, requests }))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Counters: whoever panicked between two of them left nothing that harms.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Takes the oldest seat of the address that holds the most of the newcomers'.
    fn displace(&mut self) {
        let busiest = self.addresses.values_mut().max_by_key(|held| held.newcomers.len());
        let Some(number) = busiest.and_then(|held| held.newcomers.pop_first()) else { return };
        if let Some(cut) = self.newcomers.remove(&number) {
            cut.cancel();
        }
    }

    /// Whether the seat is a newcomer's no longer because of this.
    fn leave_newcomers(&mut self, seat: &Seat) -> bool {
        if let Some(held) = self.addresses.get_mut(&seat.address) {
            held.newcomers.remove(&seat.number);
        }
        self.newcomers.remove(&seat.number).is_some()
    }
}

impl Seat {
    /// Takes note of a request on this connection.
    pub(super) fn request(self: &Arc<Self>) -> Request {
        self.requests.send_modify(|count| *count += 1);
        Request(Arc::new(InFlight { seat: Arc::clone(self), login: OnceLock::new() }))
    }

    /// Returns when nothing was asked on this connection for too long.
    pub(super) async fn idle(&self) {
        let mut requests = self.requests.subscribe();
        loop {
            let is_quiet = *requests.borrow_and_update() == 0;
            // The sender is this seat's own.
            let changed = requests.changed();
            if !is_quiet {
                let _ = changed.await;
            } else if timeout(self.seats.limits.idle, changed).await.is_err() {
                return;
            }
        }
    }

    /// Returns when the seat was given to somebody else.
    pub(super) async fn displaced(&self) {
        self.cut.cancelled().await;
    }
}

impl Request {
    /// Takes note of the login that the request came with, once it has proved good.
    ///
    /// # Errors
    /// [`TooMany`] of one login.
    pub(super) fn belongs_to(&self, login: Digest) -> Result<(), TooMany> {
        let seat = &self.0.seat;
        let limits = seat.seats.limits;
        if self.0.login.get().is_some() {
            return Ok(());
        }
        let mut table = seat.seats.lock();
        let held = table.logins.get(&login);
        let (connections, requests) = held.map_or((0, 0), |held| (held.connections, held.requests));
        if requests >= limits.requests_per_login {
            return Err(TooMany { what: "requests in flight", limit: requests });
        }
        // A seat stays with the login that proved itself first; a proxy's connection carries many.
        if seat.login.get().is_none() {
            if connections >= limits.per_login {
                return Err(TooMany { what: "connections", limit: connections });
            }
            if table.known < limits.known && table.leave_newcomers(seat) && seat.login.set(login).is_ok() {
                table.known += 1;
                table.logins.entry(login).or_default().connections += 1;
            }
        }
        if self.0.login.set(login).is_ok() {
            table.logins.entry(login).or_default().requests += 1;
        }
        Ok(())
    }
}

impl Table {
    fn release(&mut self, login: &Digest, give_back: impl FnOnce(&mut Login)) {
        if let Some(held) = self.logins.get_mut(login) {
            give_back(held);
            if held.connections == 0 && held.requests == 0 {
                self.logins.remove(login);
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(login) = self.login.get() {
            self.seat.seats.lock().release(login, |held| held.requests -= 1);
        }
        self.seat.requests.send_modify(|count| *count -= 1);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.lock();
        table.leave_newcomers(self);
        if let Some(login) = self.login.get() {
            table.known -= 1;
            table.release(login, |held| held.connections -= 1);
        }
        if let Some(held) = table.addresses.get_mut(&self.address) {
            held.all -= 1;
            held.told &= held.all > 0;
            if held.all == 0 {
                table.addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: Limits = Limits {
        newcomers: 4,
        known: 2,
        per_address: 3,
        per_login: 2,
        requests_per_login: 2,
        idle: Duration::from_secs(60),
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_share_and_a_host_of_ipv6_is_one() {
        let seats = Seats::new(SMALL);
        let held: Vec<_> =
            (1..=3).map(|host| seats.take(address(&format!("2001:db8::{host}"))).unwrap()).collect();
        assert!(seats.take(address("2001:db8::ffff:4")).is_none());
        assert!(seats.take(address("2001:db8:0:1::1")).is_some());
        drop(held);
        assert!(seats.take(address("2001:db8::4")).is_some());
        let proxied: Vec<_> = (0..9).map(|_| seats.take(address("::1"))).collect();
        assert!(proxied.iter().all(Option::is_some));
        // An IPv4 address is one, however it is written.
        let _mapped: Vec<_> =
            (0..3).map(|_| seats.take(address("::ffff:192.0.2.7")).expect("a seat")).collect();
        assert!(seats.take(address("192.0.2.7")).is_none());
    }

    #[test]
    fn a_newcomer_displaces_the_oldest_of_whoever_holds_most_but_nobody_who_is_known() {
        let seats = Seats::new(SMALL);
        let known = seats.take(address("192.0.2.1")).unwrap();
        known.request().belongs_to(Digest::of(b"ada")).unwrap();
        let flood: Vec<_> = (0..3).map(|_| seats.take(address("192.0.2.9")).unwrap()).collect();
        let single = seats.take(address("192.0.2.2")).unwrap();
        assert!(flood.iter().all(|seat| !seat.cut.is_cancelled()));
        let health = seats.take(address("192.0.2.3")).unwrap();
        assert!(flood[0].cut.is_cancelled());
        for kept in [&known, &flood[1], &flood[2], &single, &health] {
            assert!(!kept.cut.is_cancelled());
        }
        assert_eq!(seats.lock().newcomers.len(), 4);
    }

    #[test]
    fn a_login_has_its_share_of_connections_and_requests() {
        let seats = Seats::new(SMALL);
        let (login, other) = (Digest::of(b"ada"), Digest::of(b"bob"));
        let first = seats.take(address("192.0.2.1")).unwrap();
        let (one, two, three) = (first.request(), first.request(), first.request());
        one.belongs_to(login).unwrap();
        // A request is asked for its login more than once: by the layer, by the handler.
        one.belongs_to(login).unwrap();
        two.belongs_to(login).unwrap();
        assert_eq!(three.belongs_to(login).unwrap_err().what, "requests in flight");
        three.belongs_to(other).unwrap();
        drop(two.clone());
        drop((one, two, three));
        let second = seats.take(address("192.0.2.2")).unwrap();
        second.request().belongs_to(login).unwrap();
        let third = seats.take(address("192.0.2.3")).unwrap();
        assert_eq!(third.request().belongs_to(login).unwrap_err().what, "connections");
        drop(first);
        third.request().belongs_to(login).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_nothing_is_in_flight_and_a_stream_keeps_it() {
        let seats = Seats::new(SMALL);
        let seat = seats.take(address("192.0.2.1")).unwrap();
        let begun = tokio::time::Instant::now();
        let stream = seat.request();
        let ended = async {
            tokio::time::advance(Duration::from_secs(3600)).await;
            drop(stream);
        };
        tokio::join!(seat.idle(), ended);
        assert_eq!(begun.elapsed(), Duration::from_secs(3660));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(u8),
        Ask(prop::sample::Index, u8),
        Leave(prop::sample::Index),
    }

    proptest! {
        /// Whatever comes and goes, no limit is passed, and nothing is left when all have gone.
        #[test]
        fn counts_are_true(steps in prop::collection::vec(prop_oneof![
            (0_u8..4).prop_map(Step::Take),
            (any::<prop::sample::Index>(), 0_u8..3).prop_map(|(seat, login)| Step::Ask(seat, login)),
            any::<prop::sample::Index>().prop_map(Step::Leave),
        ], 0..80)) {
            let seats = Seats::new(SMALL);
            let mut held: Vec<(Arc<Seat>, Vec<Request>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(host) => {
                        let taken = seats.take(IpAddr::from([192, 0, 2, host]));
                        held.extend(taken.map(|seat| (seat, Vec::new())));
                    }
                    Step::Ask(at, login) if !held.is_empty() => {
                        let (seat, requests) = at.get(&held);
                        let request = seat.request();
                        let _ = request.belongs_to(Digest::of(&[login]));
                        let mut requests = requests.clone();
                        requests.push(request);
                        let at = at.index(held.len());
                        held[at].1 = requests;
                    }
                    Step::Leave(at) if !held.is_empty() => {
                        held.swap_remove(at.index(held.len()));
                    }
                    Step::Ask(..) | Step::Leave(_) => {}
                }
                // A connection that was displaced ends.
                held.retain(|(seat, _)| !seat.cut.is_cancelled());
                let table = seats.lock();
                prop_assert!(table.newcomers.len() <= SMALL.newcomers && table.known <= SMALL.known);
                prop_assert_eq!(table.newcomers.len() + table.known, held.len());
                prop_assert!(table.addresses.values().all(|held| held.all <= SMALL.per_address));
                for login in table.logins.values() {
                    prop_assert!(login.connections <= SMALL.per_login);
                    prop_assert!(login.requests <= SMALL.requests_per_login);
                }
            }
            drop(held);
            let table = seats.lock();
            prop_assert!(table.newcomers.is_empty() && table.addresses.is_empty() && table.logins.is_empty());
            prop_assert_eq!(table.known, 0);
        }
    }
}
