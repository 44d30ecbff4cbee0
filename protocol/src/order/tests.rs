use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::text::Text;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn client(number: u32) -> ClientId {
    ClientId::issued(Uuid::from_u128(number.into()))
}

fn step(number: u32) -> Step {
    let request = ActionRequest { kind: "script".into(), params: format!("{{\"number\":{number}}}") };
    Step {
        authority: Authority::Run(request),
        limits: Limits { memory: 7, ..Limits::DEFAULT }.to_list(),
        contents: List::of([Digest::of(b"content")]),
    }
}

fn draft() -> Draft {
    Draft {
        operation: OperationId::from_uuid(Uuid::from_u128(0x17)),
        issuer: Text::of("ada"),
        not_before: at(1_000),
        deadline: at(61_000),
        policy: Digest::of(b"policy"),
    }
}

/// The orders of a plan of so many hosts with so many steps each, host by host.
fn orders(hosts: u32, steps: u32) -> Vec<Sealed> {
    let encoded: Vec<_> = (0..steps).map(|number| step(number).encode().unwrap()).collect();
    let digests = || List::of(encoded.iter().map(|bytes| Digest::of(bytes)));
    let targets: Vec<_> = (0..hosts).map(|host| Target { client: client(host), steps: digests() }).collect();
    let planned = Planned::new(draft(), &targets).unwrap();
    let mut orders = Vec::new();
    for (place, target) in (0..).zip(&targets) {
        for (position, step) in (0..).zip(&encoded) {
            orders.push(Sealed {
                plan: planned.plan.clone(),
                signatures: List::default(),
                target: target.clone(),
                proof: planned.proof(place),
                position,
                step: step.clone(),
            });
        }
    }
    orders
}

#[test]
fn each_host_is_told_its_own_runs_by_one_plan() {
    let sealed = orders(5, 2);
    let opened: Vec<_> = sealed.iter().map(|order| Order::open(&order.encode().unwrap()).unwrap()).collect();
    for (at, order) in (0..).zip(&opened) {
        assert_eq!(order.client, client(at / 2));
        assert_eq!(order.run, RunId::derived(draft().operation, &order.client, at % 2));
        assert_eq!(order.authority, step(at % 2).authority);
        assert_eq!((order.limits.memory, order.limits.timeout_ms), (7, 300_000));
        assert_eq!((order.deadline, order.contents.len()), (draft().deadline, 1));
    }
    assert!(
        sealed.windows(2).all(|pair| pair[0].plan == pair[1].plan),
        "one plan, and one signature, for all"
    );
}

#[test]
fn parts_of_different_orders_do_not_fit_together() {
    let [ours, other] = [0, 2].map(|at| orders(3, 2)[at].clone());
    let open = |sealed: &Sealed| Order::open(&sealed.encode().unwrap());
    for (wrong, what) in [
        (Sealed { target: other.target.clone(), ..ours.clone() }, "another host's place"),
        (Sealed { proof: other.proof.clone(), ..ours.clone() }, "another host's proof"),
        (Sealed { plan: orders(4, 2)[0].plan.clone(), ..ours.clone() }, "another plan"),
    ] {
        assert!(matches!(open(&wrong), Err(InvalidOrder::NotOfThePlan)), "{what}");
    }
    for (wrong, what) in [
        (Sealed { position: 1, ..ours.clone() }, "another step's number"),
        (Sealed { position: 2, ..ours.clone() }, "a number beyond"),
        (Sealed { step: step(9).encode().unwrap(), ..ours.clone() }, "a step that was not planned"),
    ] {
        assert!(matches!(open(&wrong), Err(InvalidOrder::NotOfTheTarget)), "{what}");
    }
    assert!(open(&ours).is_ok());
}

/// Whether a step can be sent is known when it is encoded, for every host alike.
#[test]
fn the_largest_step_makes_an_order_for_every_host() {
    let mut params = "x".repeat(MAX_STEP);
    let largest = loop {
        let request = ActionRequest { kind: "script".into(), params: params.clone() };
        match (Step { authority: Authority::Run(request), ..step(0) }).encode() {
            Ok(bytes) => break bytes,
            Err(_) => params.pop(),
        };
    };
    let client: ClientId = format!("{}{}", "x".repeat(32), Uuid::nil()).parse().unwrap();
    let steps = List::of([Digest::of(&largest); MAX_STEPS]);
    let plan = Draft { issuer: Text::of("x".repeat(300)), ..draft() };
    let planned = Planned::new(plan, &[Target { client: client.clone(), steps: steps.clone() }]).unwrap();
    let signature = Signature { sshsig: vec![0; MAX_SIGNATURE] };
    let sealed = Sealed {
        plan: planned.plan,
        signatures: List::of(vec![signature; MAX_SIGNATURES]),
        target: Target { client, steps },
        proof: Proof { place: u32::MAX, path: List::of([Digest::of(b""); merkle::MAX_PATH]) },
        position: 31,
        step: largest,
    };
    let bytes = sealed.encode().unwrap();
    let frame = bytes.len() + MAX_CONTENTS_TOTAL + MAX_CONTENTS * 8 + 100;
    assert!(frame <= wire::MAX_RUN_FRAME, "{frame} bytes");
}

#[test]
fn what_is_too_early_is_told_by_the_controllers_clock() {
    let order = Order::open(&orders(1, 1)[0].encode().unwrap()).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(order.wait(seconds(60)), Some(seconds(60)));
    assert_eq!(order.wait(seconds(0)), Some(seconds(0)));
    assert_eq!(order.wait(seconds(61)), None);
}

proptest! {
    /// A list of limits reads back, whatever stands in it, in whatever order.
    #[test]
    fn limits_read_back(numbers in any::<(u64, u64, u64, u64, u32, u32)>(), turn in 0..6_usize) {
        let (timeout_ms, grace_ms, output, memory, cpu_milli, tasks) = numbers;
        let limits = Limits { timeout_ms, grace_ms, output, memory, cpu_milli, tasks };
        let mut list = limits.to_list().into_vec();
        list.rotate_left(turn);
        prop_assert_eq!(Limits::of(&list), limits);
    }

    /// No byte of an order can be changed without the host noticing, except in signatures, which are over the plan.
    #[test]
    fn every_byte_counts(hosts in 1..20_u32, at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let orders = orders(hosts, 2);
        let sealed = &orders[at.index(orders.len())];
        let mut bytes = sealed.encode().unwrap();
        let before = Order::open(&bytes).unwrap();
        let plan = 8 + sealed.plan.len();
        let at = at.index(bytes.len() - plan) + plan;
        bytes[at] ^= 1 << bit;
        if let Ok(order) = Order::open(&bytes) {
            prop_assert_eq!(order, before);
        }
    }
}
