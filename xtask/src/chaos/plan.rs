//! What a chaos run does and in which order: a pure function of its seed.
//!
//! Each host has two lanes of faults (the machine, its link; what operators ask for that takes the host down is one of the first), the controller has one, and operators ask for operations
//! in lanes of their own. Within a lane one thing follows another; lanes overlap. What two runs with one seed share is
//! each lane's sequence; the moments differ, because a reboot takes as long as it takes.

use std::fmt;
use std::time::Duration;

use super::action::{Action, Content};
use super::script::Script;

/// One sequence of things that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// What happens to a host: agent, supervisors, power, disk, clock. Counted from 0.
    Machine(usize),
    /// What happens to a host's link.
    Link(usize),
    /// What happens to the controller.
    Controller,
    /// One operator.
    Operator(usize),
}

/// A fault with everything that is decided about it beforehand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// SIGKILL to the agent; systemd starts it again.
    KillAgent,
    /// `systemctl restart` of the agent.
    RestartAgent,
    /// SIGSTOP to the agent for that long: a pause, not a crash.
    PauseAgent(Duration),
    /// SIGKILL to one supervisor, chosen by this number among those that supervise a run.
    KillSupervisor(u64),
    /// The agent's package is installed again.
    UpgradeAgent,
    /// The host reboots in order.
    Reboot,
    /// An operator asks for a reboot of the host alone, by a run of its own, which waits for nobody and cuts nobody off.
    AskForReboot,
    /// The same, whatever is under way there.
    AskForBusyReboot,
    /// The host loses power and stays off for that long.
    CutPower(Duration),
    /// The agent's file system is filled up for that long; that many bytes stay free.
    FillDisk(Duration, u64),
    /// The host's clock is wrong by that many seconds for that long.
    StepClock(Duration, i64),
    /// Nothing passes the link.
    CutLink(Duration),
    /// That share of packets is lost, in percent.
    LosePackets(Duration, u32),
    /// The link is slow: so many kbit/s.
    SlowLink(Duration, u32),
    /// SIGKILL to the controller; systemd starts it again.
    KillController,
    /// `systemctl restart` of the controller.
    RestartController,
    /// SIGSTOP to the controller for that long.
    PauseController(Duration),
    /// The controller's file system is filled up for that long; that many bytes stay free.
    FillControllerDisk(Duration, u64),
}

/// A fault by its name, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// [`Fault::KillAgent`]
    AgentKilled,
    /// [`Fault::RestartAgent`]
    AgentRestarted,
    /// [`Fault::PauseAgent`]
    AgentPaused,
    /// [`Fault::UpgradeAgent`]
    AgentUpgraded,
    /// [`Fault::KillSupervisor`]
    SupervisorKilled,
    /// [`Fault::Reboot`]
    HostRebooted,
    /// [`Fault::AskForReboot`]
    RebootAsked,
    /// [`Fault::AskForBusyReboot`]
    BusyRebootAsked,
    /// [`Fault::CutPower`]
    PowerCut,
    /// [`Fault::FillDisk`]
    HostDiskFilled,
    /// [`Fault::StepClock`]
    ClockStepped,
    /// [`Fault::CutLink`]
    LinkCut,
    /// [`Fault::LosePackets`]
    PacketsLost,
    /// [`Fault::SlowLink`]
    LinkSlowed,
    /// [`Fault::KillController`]
    ControllerKilled,
    /// [`Fault::RestartController`]
    ControllerRestarted,
    /// [`Fault::PauseController`]
    ControllerPaused,
    /// [`Fault::FillControllerDisk`]
    ControllerDiskFilled,
}

/// A fault and how long its lane is quiet before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// The quiet before it.
    pub after: Duration,
    /// What happens then.
    pub fault: Fault,
}

/// An operation that an operator asks for, and the quiet before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The quiet before it.
    pub after: Duration,
    /// What is asked for.
    pub call: Call,
    /// The hosts, by number from 0.
    pub hosts: Vec<usize>,
    /// When it is stopped again, counted from its request.
    pub stop_after: Option<Duration>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// These scripts, in their order.
    Scripts(&'static [Script]),
    /// One typed action.
    Typed(Action),
}

impl Call {
    /// The time limit that operators give it, for the command line.
    pub fn timeout(self) -> &'static str {
        match self {
            Self::Scripts(scripts) => scripts.first().map_or("30m", |script| script.timeout()),
            // Much more than it ever takes: nothing that is done to a host makes it take that long.
            Self::Typed(_) => "5m",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scripts(scripts) => {
                f.write_str(&scripts.iter().map(|script| script.name()).collect::<Vec<_>>().join(" "))
            }
            // What is written is in its name alone.
            Self::Typed(action) => write!(f, "{action:?} ({action})"),
        }
    }
}

impl Kind {
    /// Every kind, in the order of the table.
    pub const ALL: [Self; 18] = [
        Self::AgentKilled,
        Self::AgentRestarted,
        Self::AgentPaused,
        Self::AgentUpgraded,
        Self::SupervisorKilled,
        Self::HostRebooted,
        Self::RebootAsked,
        Self::BusyRebootAsked,
        Self::PowerCut,
        Self::HostDiskFilled,
        Self::ClockStepped,
        Self::LinkCut,
        Self::PacketsLost,
        Self::LinkSlowed,
        Self::ControllerKilled,
        Self::ControllerRestarted,
        Self::ControllerPaused,
        Self::ControllerDiskFilled,
    ];

    /// Its name in the table and in the diary.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AgentKilled => "agent killed",
            Self::AgentRestarted => "agent restarted",
            Self::AgentPaused => "agent paused (SIGSTOP)",
            Self::AgentUpgraded => "agent's package installed anew",
            Self::SupervisorKilled => "supervisor killed",
            Self::HostRebooted => "host rebooted",
            Self::RebootAsked => "host rebooted by a run alone there",
            Self::BusyRebootAsked => "host rebooted by a run among others",
            Self::PowerCut => "host's power cut",
            Self::HostDiskFilled => "host's disk filled",
            Self::ClockStepped => "host's clock stepped",
            Self::LinkCut => "link cut",
            Self::PacketsLost => "packets lost",
            Self::LinkSlowed => "link slowed",
            Self::ControllerKilled => "controller killed",
            Self::ControllerRestarted => "controller restarted",
            Self::ControllerPaused => "controller paused (SIGSTOP)",
            Self::ControllerDiskFilled => "controller's disk filled",
        }
    }
}

impl Fault {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::KillAgent => Kind::AgentKilled,
            Self::RestartAgent => Kind::AgentRestarted,
            Self::PauseAgent(_) => Kind::AgentPaused,
            Self::UpgradeAgent => Kind::AgentUpgraded,
            Self::KillSupervisor(_) => Kind::SupervisorKilled,
            Self::Reboot => Kind::HostRebooted,
            Self::AskForReboot => Kind::RebootAsked,
            Self::AskForBusyReboot => Kind::BusyRebootAsked,
            Self::CutPower(_) => Kind::PowerCut,
            Self::FillDisk(..) => Kind::HostDiskFilled,
            Self::StepClock(..) => Kind::ClockStepped,
            Self::CutLink(_) => Kind::LinkCut,
            Self::LosePackets(..) => Kind::PacketsLost,
            Self::SlowLink(..) => Kind::LinkSlowed,
            Self::KillController => Kind::ControllerKilled,
            Self::RestartController => Kind::ControllerRestarted,
            Self::PauseController(_) => Kind::ControllerPaused,
            Self::FillControllerDisk(..) => Kind::ControllerDiskFilled,
        }
    }
}

/// The faults of a lane, without end. An operator's lane has none.
pub fn faults(seed: u64, lane: Lane) -> impl Iterator<Item = Planned> {
    let deck: &'static [Kind] = match lane {
        Lane::Machine(_) => &MACHINE,
        Lane::Link(_) => &LINK,
        Lane::Controller => &CONTROLLER,
        Lane::Operator(_) => &[],
    };
    let mut dice = Dice::of(seed, lane);
    let mut hand = Vec::new();
    std::iter::from_fn(move || {
        if hand.is_empty() {
            hand = dice.shuffled(deck);
        }
        let kind = hand.pop()?;
        let after = Duration::from_millis(dice.between(1_500, 9_000));
        Some(Planned { after, fault: fault(kind, &mut dice) })
    })
}

/// What an operator asks for, without end.
pub fn requests(seed: u64, operator: usize, hosts: usize) -> impl Iterator<Item = Request> {
    let mut dice = Dice::of(seed, Lane::Operator(operator));
    let mut hand = Vec::new();
    let numbers: Vec<usize> = (0..hosts).collect();
    std::iter::from_fn(move || {
        if hand.is_empty() {
            hand = dice.shuffled(&CALLS);
        }
        let call = hand.pop()?;
        let mut chosen = dice.shuffled(&numbers);
        let wanted = match dice.below(4) {
            0 => hosts,
            _ => usize::try_from(dice.between(1, (hosts as u64 / 2).max(2))).unwrap_or(1),
        };
        chosen.truncate(wanted.max(1));
        chosen.sort_unstable();
        Some(Request {
            after: Duration::from_millis(dice.between(800, 5_000)),
            call,
            hosts: chosen,
            stop_after: (dice.below(6) == 0).then(|| Duration::from_millis(dice.between(0, 9_000))),
        })
    })
}

// Decks: each kind comes as often as it stands here before any comes again more often, so that a short run meets all.
const MACHINE: [Kind; 16] = [
    Kind::AgentKilled,
    Kind::AgentKilled,
    Kind::AgentKilled,
    Kind::AgentRestarted,
    Kind::AgentRestarted,
    Kind::AgentPaused,
    Kind::AgentPaused,
    Kind::AgentUpgraded,
    Kind::SupervisorKilled,
    Kind::SupervisorKilled,
    Kind::HostRebooted,
    Kind::RebootAsked,
    Kind::BusyRebootAsked,
    Kind::PowerCut,
    Kind::HostDiskFilled,
    Kind::ClockStepped,
];
const LINK: [Kind; 6] =
    [Kind::LinkCut, Kind::LinkCut, Kind::PacketsLost, Kind::PacketsLost, Kind::LinkSlowed, Kind::LinkCut];
const CONTROLLER: [Kind; 7] = [
    Kind::ControllerKilled,
    Kind::ControllerKilled,
    Kind::ControllerKilled,
    Kind::ControllerRestarted,
    Kind::ControllerPaused,
    Kind::ControllerPaused,
    Kind::ControllerDiskFilled,
];
const CALLS: [Call; 44] = [
    Call::Scripts(&[Script::Small]),
    Call::Scripts(&[Script::Small]),
    Call::Scripts(&[Script::Big]),
    Call::Scripts(&[Script::Silent]),
    Call::Scripts(&[Script::Drip]),
    Call::Scripts(&[Script::Drip]),
    Call::Scripts(&[Script::Fork]),
    Call::Scripts(&[Script::Fork]),
    Call::Scripts(&[Script::Fails]),
    Call::Scripts(&[Script::Killed]),
    Call::Scripts(&[Script::Mixed]),
    Call::Scripts(&[Script::Endless]),
    Call::Scripts(&[Script::Chatter]),
    Call::Scripts(&[Script::Daemon]),
    Call::Scripts(&[Script::Small]),
    Call::Scripts(&[Script::Silent]),
    Call::Scripts(&[Script::Drip]),
    Call::Scripts(&[Script::Fork]),
    Call::Scripts(&[Script::Mixed]),
    Call::Scripts(&[Script::Small]),
    Call::Scripts(&[Script::Big]),
    Call::Scripts(&[Script::Drip]),
    Call::Scripts(&[Script::Fork]),
    Call::Scripts(&[Script::Silent]),
    Call::Scripts(&[Script::Small, Script::Fails, Script::Small]),
    Call::Scripts(&[Script::Drip, Script::Mixed, Script::Small]),
    Call::Scripts(&[Script::Mixed, Script::Drip, Script::Big]),
    Call::Typed(Action::Restart),
    Call::Typed(Action::Start),
    Call::Typed(Action::Enable),
    Call::Typed(Action::Disable),
    Call::Typed(Action::Mask),
    Call::Typed(Action::Unmask),
    Call::Typed(Action::WriteFile(Content::Short)),
    Call::Typed(Action::WriteFile(Content::Long)),
    Call::Typed(Action::RemoveFile),
    Call::Typed(Action::WriteDropIn(Content::Short)),
    Call::Typed(Action::WriteDropIn(Content::Long)),
    Call::Typed(Action::RemoveDropIn),
    Call::Typed(Action::Hold),
    Call::Typed(Action::Unhold),
    Call::Typed(Action::EnsureSite(Content::Short)),
    Call::Typed(Action::EnsureSite(Content::Long)),
    Call::Typed(Action::RemoveSite),
];

fn fault(kind: Kind, dice: &mut Dice) -> Fault {
    const MIB: u64 = 1 << 20;
    let mut seconds = |least: u64, most: u64| Duration::from_millis(dice.between(least * 1000, most * 1000));
    match kind {
        Kind::AgentKilled => Fault::KillAgent,
        Kind::AgentRestarted => Fault::RestartAgent,
        // Silence ends a session after 9 seconds: below and above.
        Kind::AgentPaused => match dice.below(2) {
            0 => Fault::PauseAgent(Duration::from_millis(dice.between(1_000, 8_000))),
            _ => Fault::PauseAgent(Duration::from_millis(dice.between(10_000, 25_000))),
        },
        Kind::AgentUpgraded => Fault::UpgradeAgent,
        Kind::SupervisorKilled => Fault::KillSupervisor(dice.next()),
        Kind::HostRebooted => Fault::Reboot,
        Kind::RebootAsked => Fault::AskForReboot,
        Kind::BusyRebootAsked => Fault::AskForBusyReboot,
        Kind::PowerCut => Fault::CutPower(seconds(0, 15)),
        // With no room at all, and with too little for new runs.
        Kind::HostDiskFilled => {
            let span = seconds(5, 20);
            Fault::FillDisk(span, dice.below(2) * 40 * MIB)
        }
        Kind::ClockStepped => {
            let span = seconds(5, 20);
            const STEPS: [i64; 6] = [-3600, -120, -7, 7, 120, 3600];
            Fault::StepClock(span, dice.choice(&STEPS))
        }
        Kind::LinkCut => Fault::CutLink(seconds(1, 25)),
        Kind::PacketsLost => {
            let span = seconds(5, 25);
            Fault::LosePackets(span, u32::try_from(dice.between(5, 30)).unwrap_or(5))
        }
        Kind::LinkSlowed => {
            let span = seconds(5, 25);
            Fault::SlowLink(span, dice.choice(&[256, 1_000, 4_000, 20_000]))
        }
        Kind::ControllerKilled => Fault::KillController,
        Kind::ControllerRestarted => Fault::RestartController,
        Kind::ControllerPaused => Fault::PauseController(seconds(2, 20)),
        Kind::ControllerDiskFilled => {
            let span = seconds(12, 25);
            Fault::FillControllerDisk(span, dice.below(2) * 100 * MIB)
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). Its own, so that a seed
/// means the same for ever.
struct Dice(u64);

impl Dice {
    fn of(seed: u64, lane: Lane) -> Self {
        let lane = match lane {
            Lane::Machine(host) => 1 + 4 * host as u64,
            Lane::Link(host) => 2 + 4 * host as u64,
            Lane::Operator(operator) => 3 + 4 * operator as u64,
            Lane::Controller => 4,
        };
        let mut dice = Self(seed ^ lane.wrapping_mul(0xa076_1d64_78bd_642f));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `bound` - 1. The bias is far below what anybody could see here.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    fn choice<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap_or(0)]
    }

    fn shuffled<T: Copy>(&mut self, of: &[T]) -> Vec<T> {
        let mut all = of.to_vec();
        for at in (1..all.len()).rev() {
            let with = usize::try_from(self.below(at as u64 + 1)).unwrap_or(0);
            all.swap(at, with);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::action::Object;

    #[test]
    fn a_seed_is_a_schedule() {
        for lane in [Lane::Machine(0), Lane::Machine(3), Lane::Link(1), Lane::Controller] {
            let some = |seed| faults(seed, lane).take(50).collect::<Vec<_>>();
            assert_eq!(some(7), some(7));
            assert_ne!(some(7), some(8));
        }
        let asked = |seed| requests(seed, 0, 8).take(50).collect::<Vec<_>>();
        assert_eq!(asked(7), asked(7));
        assert_ne!(asked(7), asked(8));
        assert_ne!(
            faults(7, Lane::Machine(0)).take(9).collect::<Vec<_>>(),
            faults(7, Lane::Machine(1)).take(9).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_hand_meets_every_kind() {
        let mut met: Vec<Kind> = [Lane::Machine(2), Lane::Link(2), Lane::Controller]
            .into_iter()
            .flat_map(|lane| faults(1, lane).take(MACHINE.len()))
            .map(|planned| planned.fault.kind())
            .collect();
        met.sort_unstable();
        met.dedup();
        assert_eq!(met, Kind::ALL);
        let calls: Vec<Call> = requests(1, 0, 8).take(CALLS.len()).map(|request| request.call).collect();
        for script in Script::ALL {
            let asks = |call: &Call| matches!(call, Call::Scripts(scripts) if scripts.contains(&script));
            assert!(calls.iter().any(asks), "{script:?}");
        }
        // Who reboots a host stands in the order of all that happens to it.
        for action in Action::ALL.into_iter().filter(|action| action.object() != Object::Host) {
            assert!(calls.contains(&Call::Typed(action)), "{action:?}");
        }
        let typed = calls.iter().filter(|call| matches!(call, Call::Typed(_))).count();
        assert!(typed * 10 >= CALLS.len() * 3, "about two in five are typed: {typed}");
        assert!(typed * 10 <= CALLS.len() * 4, "most are scripts, which take longer: {typed}");
    }

    #[test]
    fn requests_name_hosts_that_are_there() {
        for hosts in [1, 2, 8] {
            for request in requests(3, 1, hosts).take(200) {
                assert!(!request.hosts.is_empty() && request.hosts.len() <= hosts);
                assert!(request.hosts.iter().all(|host| *host < hosts));
            }
        }
    }
}
