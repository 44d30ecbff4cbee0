//! Hosts with a good certificate that send without end: what they leave behind is bounded, and counted.

use fleetward_app::refusal;
use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::text::{List, Text};
use fleetward_store::Scope;
use fleetward_store::fleet::certificate;
use fleetward_store::fleet::host::Host;

use super::host::Session;
use super::*;

fn notice(number: usize) -> AgentMessage {
    AgentMessage::Notice { text: Text::of(format_args!("notice {number}")) }
}

fn facts(number: usize) -> AgentMessage {
    AgentMessage::Facts(Box::new(facts_of(number)))
}

pub(super) fn facts_of(number: usize) -> Facts {
    Facts {
        hostname: Text::of(format_args!("fake-{number}")),
        os: Text::of("debian"),
        os_version: Text::of("12"),
        os_name: Text::of("Debian"),
        kernel: Text::of("6.1"),
        arch: Text::of("x86_64"),
        cpu_model: Text::default(),
        cpus: 1,
        memory_total: 1,
        memory_available: 1,
        swap_total: 0,
        disks: List::default(),
        addresses: List::default(),
        uptime_s: 1,
        virtualisation: Text::of("none"),
        load: [0; 3],
        reboot_required: false,
    }
}

impl Session {
    /// Sends until nobody listens any more.
    async fn pour(&mut self, messages: impl Iterator<Item = AgentMessage>) {
        for message in messages {
            if frame::send(&mut self.send, &message, MAX_CONTROL_FRAME).await.is_err() {
                return;
            }
        }
    }

    /// Returns when everything that was sent before is taken.
    async fn settle(&mut self, seq: u64) {
        self.say(&AgentMessage::Heartbeat { seq, clock: Timestamp::from_millis(0) }).await;
        while self.hear().await != (ControllerMessage::Heartbeat { seq }) {}
    }
}

impl TestController {
    async fn host(&self, name: &HostName) -> Host {
        let mut conn = self.app().store().read().await.unwrap();
        fleetward_store::fleet::host::get(&mut conn, &Scope::Everything, name).await.unwrap()
    }

    /// Waits until the host's row is as wanted; it is announced.
    async fn wait_for_host(&self, name: &HostName, wanted: impl Fn(&Host) -> bool) -> Host {
        let wait = async {
            loop {
                let mut events = self.app().fleet().watch();
                let host = self.host(name).await;
                if wanted(&host) {
                    return host;
                }
                let _ = events.recv().await;
            }
        };
        timeout(SOON, wait).await.expect("the host gets there")
    }

    /// Of the events of this kind: how many tell of one, and how many there are in the sums.
    async fn told_and_summed(&self, kind: &str) -> (u64, u64) {
        refusal::write_all(self.app()).await;
        let events = self.audited(kind).await;
        let sums: Vec<u64> =
            events.iter().filter_map(|event| event.event.details.get("more")?.as_u64()).collect();
        ((events.len() - sums.len()) as u64, sums.iter().sum())
    }
}

#[tokio::test]
async fn an_agent_with_forty_notices_is_heard_out() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let mut session = host.connect().await;
    session.pour((0..40).map(notice)).await;
    session.settle(1).await;
    let kept = controller
        .wait_for_host(&name, |host| host.notices.last().is_some_and(|notice| notice.text == "notice 39"));
    assert_eq!(kept.await.notices.len(), 20, "in order, the last are kept");
    assert_eq!(controller.told_and_summed("host.notice").await, (40, 0));
    session.settle(2).await;
}

#[tokio::test]
async fn what_a_host_needs_is_kept_beside_its_facts() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let mut session = host.connect().await;
    let behind = Upkeep { time_synchronised: Some(false), updates: Some(7), security_updates: Some(2) };
    session.say(&AgentMessage::Upkeep(behind)).await;
    session.say(&facts(1)).await;
    let kept = controller.wait_for_host(&name, |host| host.facts.is_some()).await;
    assert_eq!(kept.upkeep, Some(behind), "facts that come later leave it");
    // What is known already is told again at each connection, and written nowhere.
    for _ in 0..20 {
        session.say(&AgentMessage::Upkeep(behind)).await;
    }
    let well = Upkeep { security_updates: Some(0), ..behind };
    session.say(&AgentMessage::Upkeep(well)).await;
    let kept = controller.wait_for_host(&name, |host| host.upkeep == Some(well)).await;
    assert!(kept.facts.is_some());
}

#[tokio::test]
async fn a_flood_of_notices_leaves_few_rows_over_however_many_connections() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let (other_name, other) = enrolled(&controller, "web-2").await;
    let mut other = other.connect().await;

    let mut session = host.connect().await;
    session.pour((0..2000).map(notice)).await;
    assert_eq!(closed_with(&session.connection).await, u64::from(close::TOO_MANY));
    // A new connection brings nothing back: the first message of each is one too many.
    for _ in 0..20 {
        let mut session = host.connect().await;
        session.pour((0..100).map(notice)).await;
        assert_eq!(closed_with(&session.connection).await, u64::from(close::TOO_MANY));
    }
    // Forty are stored, three hundred only counted, and one on each of 21 connections was the one too many.
    let cut = controller.wait_for_host(&name, |host| {
        host.notices.last().is_some_and(|notice| notice.text.contains("cut this host off"))
    });
    cut.await;
    assert_eq!(controller.told_and_summed("host.notice").await, (40, 300 + 21));
    assert_eq!(controller.told_and_summed("host.cut_off").await, (1, 20));

    other.say(&notice(1)).await;
    let heard = controller.wait_for_host(&other_name, |host| !host.notices.is_empty()).await;
    assert_eq!(heard.notices[0].text, "notice 1");
    // In the next hour it may speak again, if it behaves.
    controller.clock.advance(Duration::from_secs(3600));
    let mut session = host.connect().await;
    session.say(&notice(7)).await;
    controller
        .wait_for_host(&name, |host| host.notices.last().is_some_and(|last| last.text == "notice 7"))
        .await;
}

#[tokio::test]
async fn renewals_without_end_are_refused_with_the_time_to_ask_again() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let csr = host.request(&host.client);
    let renew = || AgentMessage::Renew { csr: csr.clone() };
    let mut session = host.connect().await;
    let (mut renewed, mut refused) = (0, 0);
    for _ in 0..300 {
        session.say(&renew()).await;
        match session.hear().await {
            ControllerMessage::Renewed { .. } => renewed += 1,
            ControllerMessage::RenewRefused { reason } => {
                refused += 1;
                assert_eq!(reason, "too many renewals; ask again in 600 s");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((renewed, refused), (6, 294));
    session.pour((0..200).map(|_| renew())).await;
    assert_eq!(closed_with(&session.connection).await, u64::from(close::TOO_MANY));
    let mut session = host.connect().await;
    session.pour((0..200).map(|_| renew())).await;
    assert_eq!(closed_with(&session.connection).await, u64::from(close::TOO_MANY));
    let id = controller.host(&name).await.id;
    let mut conn = controller.app().store().read().await.unwrap();
    let issued = certificate::list(&mut conn, &Scope::Everything, id).await.unwrap();
    drop(conn);
    assert_eq!(issued.len(), 1 + 6);
    assert_eq!(controller.told_and_summed("host.certificate_renewed").await, (6, 0));
    assert_eq!(controller.told_and_summed("host.renewal_refused").await, (0, 300 + 2));

    controller.clock.advance(Duration::from_secs(600));
    let mut session = host.connect().await;
    session.say(&renew()).await;
    assert!(matches!(session.hear().await, ControllerMessage::Renewed { .. }));
}

#[tokio::test]
async fn of_facts_beyond_the_budget_the_newest_wait_and_are_stored() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let mut session = host.connect().await;
    session.pour((0..300).map(facts)).await;
    session.settle(1).await;
    let is_at = |number: usize| {
        let hostname = format!("fake-{number}");
        move |host: &Host| host.facts.as_ref().is_some_and(|facts| facts.hostname == *hostname)
    };
    controller.wait_for_host(&name, is_at(9)).await;
    assert_eq!(controller.told_and_summed("host.facts").await, (0, 289), "ten are stored, one waits");
    controller.clock.advance(Duration::from_secs(30));
    session.settle(2).await;
    controller.wait_for_host(&name, is_at(299)).await;

    session.pour((300..2300).map(facts)).await;
    assert_eq!(closed_with(&session.connection).await, u64::from(close::TOO_MANY));
    controller.wait_for_host(&name, |host| !host.notices.is_empty()).await;
    assert!(controller.told_and_summed("host.facts").await.1 <= 289 + 301);
    // Whoever reconnects after it is heard when there is budget.
    controller.clock.advance(Duration::from_secs(60));
    let mut session = host.connect().await;
    session.say(&facts(7)).await;
    controller.wait_for_host(&name, is_at(7)).await;
}

#[tokio::test]
async fn of_what_a_host_needs_beyond_the_budget_the_newest_waits_and_is_stored() {
    let controller = TestController::start().await;
    let (name, host) = enrolled(&controller, "web-1").await;
    let mut session = host.connect().await;
    let needs = |updates| Upkeep { time_synchronised: None, updates: Some(updates), security_updates: None };
    let is_at = |updates| move |host: &Host| host.upkeep == Some(needs(updates));
    // Each of these is stored: there is budget for so many, and no more wait at once than may.
    for updates in 0..130 {
        session.say(&AgentMessage::Upkeep(needs(updates))).await;
        if updates % 26 == 25 {
            controller.wait_for_host(&name, is_at(updates)).await;
        }
    }
    session.pour((130..140).map(|updates| AgentMessage::Upkeep(needs(updates)))).await;
    // What it says otherwise has a budget of its own, and is not held up.
    session.say(&facts(1)).await;
    let kept = controller.wait_for_host(&name, |host| host.facts.is_some()).await;
    assert_eq!(kept.upkeep, Some(needs(129)), "there is no budget for more");
    assert_eq!(controller.told_and_summed("host.upkeep").await, (0, 9), "the newest waits");
    controller.clock.advance(Duration::from_secs(240));
    session.settle(1).await;
    controller.wait_for_host(&name, is_at(139)).await;
}

#[tokio::test]
async fn a_host_that_connects_without_end_is_turned_away_and_its_takeovers_are_summed() {
    let controller = TestController::start().await;
    let (_, host) = enrolled(&controller, "web-1").await;
    let (_, other) = enrolled(&controller, "web-2").await;
    // The endpoint of each is one session; the newer takes the seat.
    let mut sessions = Vec::new();
    for _ in 0..120 {
        sessions.push(host.connect().await);
    }
    for _ in 0..30 {
        let connection = host.dial(ALPN, Some(&host.chain)).await.unwrap();
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        let hello = AgentMessage::Hello(host.hello(Vec::new()));
        frame::send(&mut send, &hello, MAX_CONTROL_FRAME).await.unwrap();
        assert_eq!(closed_with(&connection).await, u64::from(close::TOO_MANY));
    }
    other.connect().await;
    assert_eq!(controller.told_and_summed("host.connection_refused").await, (0, 30));
    let (told, summed) = controller.told_and_summed("host.superseded").await;
    assert_eq!((told, told + summed), (10, 119));
    // The one in the seat was not driven out by those that were turned away.
    sessions.pop().unwrap().settle(1).await;
}
