//! Who is connected, whatever order connections come and go in.

use std::collections::HashMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// What happens to one of three hosts.
#[derive(Debug, Clone)]
enum Step {
    /// A connection comes; an older one of the host has to go.
    Join,
    /// Something is heard over the newest connection, with this round-trip time in microseconds.
    Heard(u64),
    /// The newest connection ends.
    Leave,
    /// A connection ends that had been superseded before.
    LeaveLate,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        3 => Just(Step::Join),
        4 => (1..10_000_000_u64).prop_map(Step::Heard),
        2 => Just(Step::Leave),
        1 => Just(Step::LeaveLate),
    ];
    (0..3_usize, step)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A host is online exactly while its newest connection lasts, with the latency and the time that were heard last.
    #[test]
    fn p28_what_is_heard_makes_a_host_online_with_its_latency_and_silence_offline(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let fleet = Fleet::new();
        let hosts: Vec<HostId> = (1..=3).map(|number| HostId::from_uuid(Uuid::from_u128(number))).collect();
        let mut seats: HashMap<HostId, Vec<Arc<Seat>>> = HashMap::new();
        let mut expected: HashMap<HostId, (Timestamp, Option<Duration>)> = HashMap::new();
        for (at, (host, step)) in steps.into_iter().enumerate() {
            let (host, now) = (hosts[host], Timestamp::from_millis(1_000 * at as i64));
            let seats = seats.entry(host).or_default();
            match step {
                Step::Join => {
                    let newcomer = Newcomer {
                        host,
                        tenant: TenantId::from_uuid(Uuid::nil()),
                        journal: JournalId::from_uuid(Uuid::nil()),
                        boot: BootId::from_uuid(Uuid::nil()),
                        remote: "192.0.2.1:1".parse().unwrap(),
                        clock_skew_ms: 0,
                    };
                    let joined = fleet.join(newcomer, now);
                    prop_assert_eq!(joined.superseded.is_some(), expected.contains_key(&host));
                    seats.push(joined.seat);
                    expected.insert(host, (now, None));
                }
                Step::Heard(micros) => {
                    if let (Some(seat), Some(known)) = (seats.last(), expected.get_mut(&host)) {
                        seat.heard(now, Duration::from_micros(micros));
                        *known = (now, Some(Duration::from_micros(micros)));
                    }
                }
                Step::Leave => {
                    if let Some(seat) = seats.pop() {
                        prop_assert_eq!(fleet.leave(&seat), expected.remove(&host).is_some());
                    }
                }
                Step::LeaveLate => {
                    if seats.len() > 1 {
                        prop_assert!(!fleet.leave(&seats.remove(0)), "a superseded connection took its host offline");
                    }
                }
            }
            let shown: HashMap<HostId, (Timestamp, Option<Duration>)> = fleet
                .presences()
                .into_iter()
                .map(|(host, presence)| (host, (presence.last_seen, presence.round_trip)))
                .collect();
            prop_assert_eq!(&shown, &expected);
        }
    }
}
