//! Many hosts at once: the port carries no more than it can, and everybody gets a turn.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use fleetward_protocol::wire::ALPN;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::controller::certificate;
use super::*;
use crate::LinkServer;
use crate::endpoint::Handshakes;

/// What a datagram of the port's says, by its first bytes (RFC 9000, section 17.2).
enum Answer {
    /// A handshake was begun with the client of this connection id.
    Begun(Vec<u8>),
    /// The client of this connection id is to prove its address first.
    Prove(Vec<u8>),
    /// Something later.
    Other,
}

fn answer(datagram: &[u8]) -> Answer {
    let (Some(&first), Some(&length)) = (datagram.first(), datagram.get(5)) else { return Answer::Other };
    let Some(id) = datagram.get(6..6 + usize::from(length)) else { return Answer::Other };
    match first & 0xf0 {
        0xf0 => Answer::Prove(id.to_vec()),
        0xc0 | 0xd0 => Answer::Begun(id.to_vec()),
        _ => Answer::Other,
    }
}

/// Clients that begin and never finish, as a crowd over a bad line: of what the port sends, only its wish for a proof
/// of the address comes through.
#[tokio::test]
async fn no_more_handshakes_are_carried_than_allowed_and_all_get_their_turn() {
    const CROWD: usize = 16;
    let carried = Handshakes::DEFAULT;
    assert_eq!((carried.most, carried.easy, carried.patience), (512, 128, Duration::from_secs(10)));
    let carried = Handshakes { most: 8, easy: 4, patience: Duration::from_secs(4) };
    let controller = TestController::start().await;
    let app = controller.app();
    let listen = "127.0.0.1:0".parse().unwrap();
    let server = LinkServer::start_with(app, listen, certificate(app), carried).unwrap();

    let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    back.connect(server.local_address()).await.unwrap();
    let root = app.authority().root().clone();
    let crowd = Arc::new(FakeHost::new(client(1), front.local_addr().unwrap(), root));
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..CROWD {
        let one = Arc::clone(&crowd);
        dials.spawn(async move { one.dial(ALPN, None).await.map(drop) });
    }

    let (mut begun, mut proved) = (HashSet::new(), HashSet::new());
    let mut client = None;
    let mut first = None;
    let (mut to_server, mut to_client) = (vec![0; 2048], vec![0; 2048]);
    while begun.len() < CROWD {
        tokio::select! {
            received = front.recv_from(&mut to_server) => {
                let (length, from) = received.unwrap();
                client = Some(from);
                back.send(&to_server[..length]).await.unwrap();
            }
            Ok(length) = back.recv(&mut to_client) => match answer(&to_client[..length]) {
                Answer::Prove(id) => {
                    proved.insert(id);
                    front.send_to(&to_client[..length], client.unwrap()).await.unwrap();
                }
                Answer::Begun(id) => {
                    let since = *first.get_or_insert_with(Instant::now);
                    begun.insert(id);
                    if begun.len() == carried.most {
                        let unproved = begun.difference(&proved).count();
                        assert!(unproved <= carried.easy, "{unproved} without a proof of their address");
                    }
                    // The next one's turn comes when the first ones are given up.
                    let waited = since.elapsed() >= carried.patience / 2;
                    assert!(begun.len() <= carried.most || waited, "{} handshakes at once", begun.len());
                }
                Answer::Other => {}
            }
        }
    }
    dials.shutdown().await;
    server.shutdown().await;
}

/// Whatever the operation's size and its concurrency, and in whichever order hosts come to their ends: never more
/// hosts have something to do at once, and never fewer while there is something to be done.
#[test]
fn p18_never_more_hosts_are_busy_at_once_than_the_operation_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::default());
    let cases = (1..5_u32, 1..7_usize, prop::collection::vec(any::<prop::sample::Index>(), 6));
    runtime.block_on(async {
        let controller = TestController::start().await;
        controller.add_script("work", "#!/bin/bash\n").await;
        let (arrivals, mut arrived) = mpsc::unbounded_channel();
        let mut hosts = Vec::new();
        for number in 0..6 {
            let (_, host) = enrolled(&controller, &format!("web-{number}")).await;
            let mut session = host.connect().await;
            let (arrivals, clock) = (arrivals.clone(), controller.clock.now());
            hosts.push(host);
            tokio::spawn(async move {
                for seq in 1.. {
                    drop(arrivals.send(session.accept_run().await));
                    // On a slow machine all this takes longer than a host may be silent.
                    session.say(&AgentMessage::Heartbeat { seq, clock }).await;
                }
            });
        }
        for _ in 0..100 {
            let (concurrency, count, order) = cases.new_tree(&mut runner).unwrap().current();
            let policy = RolloutPolicy {
                concurrency: NonZeroU32::new(concurrency).unwrap(),
                ..RolloutPolicy::default()
            };
            let on: Vec<String> = (0..count).map(|number| format!("web-{number}")).collect();
            let operation = controller.run_with(&["work"], &on.join(","), policy).await.unwrap();
            let (mut busy, mut left) = (Vec::new(), count);
            for index in order.iter().cycle() {
                if left == 0 {
                    break;
                }
                let wanted = left.min(concurrency as usize);
                while busy.len() < wanted {
                    busy.push(
                        timeout(SOON, arrived.recv()).await.expect("a host has nothing to do").unwrap(),
                    );
                }
                controller.app().recorder().settle().await.unwrap();
                assert!(arrived.try_recv().is_err(), "more than {concurrency} at once");
                let done = busy.swap_remove(index.index(busy.len()));
                done.play("", Outcome::Exited(0)).await;
                left -= 1;
            }
            let (status, _) = controller.wait_for_end(operation.id).await;
            assert_eq!(status, OperationStatus::Success);
        }
    });
}
