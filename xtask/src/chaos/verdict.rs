//! Whether a run is accounted for: a pure function of what the controller says, what the host recorded, and what was
//! done to both.

use fleetward_api::work::run::RunState;

use super::script::{End, Expected};

/// How stored bytes relate to the bytes that a script writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// They are the same.
    Whole,
    /// They are its beginning.
    Beginning,
    /// Its beginning and its end; something in the middle is missing.
    Ends,
    /// Its beginning and, behind a hole of as many bytes as a marker counts, more of it, but not to its end.
    Holed,
    /// From this byte on they are something else.
    Foreign(usize),
}

/// Why a host would not start a run, as far as a fault explains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It had no room.
    DiskFull,
    /// It wants the host alone, and others are at work there.
    Busy,
    /// The agent ended between writing the start down and giving the word for it.
    AgentStopped,
    /// Whatever no fault explains.
    Other,
}

impl Refusal {
    /// From the controller's words for it; they are for people, and there are no others.
    pub fn told(detail: &str) -> Self {
        if detail.contains("less free space than `runs.min_free_mib`") {
            Self::DiskFull
        } else if detail.contains("the agent stopped before it could start the run") {
            Self::AgentStopped
        } else if detail.contains("it wants the host alone") {
            Self::Busy
        } else {
            Self::Other
        }
    }
}

/// A run, by everything that is known of it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// By the controller.
    pub state: RunState,
    /// Why it was refused, if it was.
    pub refusal: Option<Refusal>,
    /// By the controller.
    pub exit_code: Option<i32>,
    /// By the controller.
    pub signal: Option<i32>,
    /// Bytes that are missing, by the controller.
    pub dropped: u64,
    /// Starts that the script recorded on its host.
    pub starts: usize,
    /// The lengths of both streams that the script recorded at its end.
    pub wrote: Option<(u64, u64)>,
    /// The stored standard output: its length, and what it is.
    pub stdout: (u64, Match),
    /// The same of standard error.
    pub stderr: (u64, Match),
    /// How long whatever the script left running held the output, in milliseconds, by the controller.
    pub held_ms: Option<u64>,
    /// Whether a process that it left had to write a line when nobody kept it any more, and did not come to its next
    /// step.
    pub died: bool,
}

/// The most that a run may last for what its script left running: 30 seconds, on a busy machine.
const MAX_HELD_MS: u64 = 40_000;

/// What was done to a run's surroundings while it was under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Around {
    /// Its host was rebooted or lost power, whatever was under way there.
    pub rebooted: bool,
    /// Its host was rebooted in order: whatever ran there was asked to end.
    pub shut_down: bool,
    /// Its host came up, or went down to do so: what a boot starts may not have been there.
    pub booted: bool,
    /// Its supervisor was killed.
    pub supervisor_killed: bool,
    /// Its host's agent was killed, restarted or installed anew.
    pub agent_ended: bool,
    /// Its host's agent was installed anew.
    pub package_installed: bool,
    /// Its host's disk was filled.
    pub disk_filled: bool,
    /// Its host's owner keeps less output than the script writes.
    pub output_capped: bool,
    /// Another run was under way on its host.
    pub others_at_work: bool,
    /// An operator stopped its operation.
    pub stop_asked: bool,
    /// A step before it on its host did not succeed.
    pub step_failed: bool,
}

impl Around {
    /// Whether a run may be lost.
    pub(super) fn explain_loss(&self) -> Result<(), String> {
        match self.rebooted || self.supervisor_killed {
            true => Ok(()),
            false => Err("lost, but its host kept its power and its supervisor its life".into()),
        }
    }

    /// Whether a run may be refused like that.
    pub(super) fn explain_refusal(&self, refusal: Option<Refusal>) -> Result<(), String> {
        match refusal {
            Some(Refusal::DiskFull) if self.disk_filled => Ok(()),
            Some(Refusal::AgentStopped) if self.agent_ended => Ok(()),
            refusal => Err(format!("refused ({refusal:?}), which nothing that was done explains")),
        }
    }
}

/// Compares what is stored with what a script writes.
pub fn compare(stored: &[u8], dropped: u64, expected: &[u8]) -> Match {
    let front = stored.iter().zip(expected).take_while(|(a, b)| a == b).count();
    if front == stored.len() {
        return if front == expected.len() { Match::Whole } else { Match::Beginning };
    }
    let back = stored.iter().rev().zip(expected.iter().rev()).take_while(|(a, b)| a == b).count();
    if stored.len() < expected.len() && front + back >= stored.len() {
        return Match::Ends;
    }
    let behind =
        usize::try_from(dropped).ok().and_then(|dropped| expected.get(front.checked_add(dropped)?..));
    match stored.get(front..).zip(behind) {
        Some((stored, behind)) if dropped > 0 && behind.starts_with(stored) => Match::Holed,
        _ => Match::Foreign(front),
    }
}

/// Judges a run.
///
/// # Errors
/// With what is wrong.
pub fn judge(facts: &Facts, expected: &Expected, around: &Around) -> Result<(), String> {
    if facts.starts > 1 {
        return Err(format!("started {} times", facts.starts));
    }
    if facts.held_ms.is_some_and(|held| held > MAX_HELD_MS) {
        return Err(format!("held for {:?} ms by what its script left running", facts.held_ms));
    }
    if facts.died {
        return Err("what its script left running died of its next line".into());
    }
    match facts.state {
        RunState::Succeeded | RunState::Failed | RunState::TimedOut => {
            ended_by_itself(facts, expected, around)
        }
        RunState::Lost => {
            around.explain_loss()?;
            incomplete(facts, around)
        }
        // A script that came to its last word wrote all it had to write, and its supervisor was there to read it.
        RunState::Cancelled
            if around.stop_asked
                && facts.wrote.is_some()
                && !around.rebooted
                && !around.supervisor_killed =>
        {
            everything(facts, expected, around)
        }
        RunState::Cancelled if around.stop_asked => incomplete(facts, around),
        RunState::Cancelled if around.step_failed => never_started(facts),
        RunState::Cancelled => {
            Err("cancelled, but nobody asked for that and no step before it failed".into())
        }
        RunState::Refused => {
            around.explain_refusal(facts.refusal)?;
            never_started(facts)
        }
        state => Err(format!("not accounted for: {state:?}")),
    }
}

/// A step of an operation on one host, as the host's own records have it.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Its place in the operation.
    pub number: u32,
    /// By the controller.
    pub state: RunState,
    /// When its script recorded its start, by the kernel's clock, in milliseconds since 1970.
    pub started: Option<i64>,
    /// When its script recorded its end, by the same clock.
    pub ended: Option<i64>,
}

/// Judges the steps of one operation on one host: each begins only when the one before it has succeeded.
///
/// # Errors
/// With what is wrong.
pub fn judge_order(steps: &[Step]) -> Result<(), String> {
    for later in steps {
        let Some(started) = later.started else { continue };
        for before in steps.iter().filter(|step| step.number < later.number) {
            let (before_is, later_is) = (before.number + 1, later.number + 1);
            if before.state != RunState::Succeeded {
                return Err(format!(
                    "step {later_is} was started, and step {before_is} is {:?}",
                    before.state
                ));
            }
            // One that succeeded without a record of its end is wrong by itself.
            if before.ended.is_some_and(|ended| started < ended) {
                return Err(format!("step {later_is} was started before the end of step {before_is}"));
            }
        }
    }
    Ok(())
}

fn ended_by_itself(facts: &Facts, expected: &Expected, around: &Around) -> Result<(), String> {
    if facts.starts != 1 {
        return Err(format!("ended as {:?} with {} starts", facts.state, facts.starts));
    }
    let end = match (facts.state, facts.exit_code, facts.signal) {
        (RunState::Succeeded, ..) => End::Code(0),
        (RunState::TimedOut, ..) => End::Timeout,
        (_, Some(code), _) => End::Code(code),
        (_, None, Some(signal)) => End::Signal(signal),
        (_, None, None) => return Err("failed without exit code and signal".into()),
    };
    if end != expected.end {
        // Before a reboot systemd ends every process; whose supervisor still wrote that down has a true result.
        if around.shut_down && ended_by_shutdown(end) {
            return incomplete(facts, around);
        }
        return Err(format!("ended with {end:?} instead of {:?}", expected.end));
    }
    everything(facts, expected, around)
}

/// A run whose script came to its last word: what is stored is all that it writes, but for what a marker counts.
fn everything(facts: &Facts, expected: &Expected, around: &Around) -> Result<(), String> {
    let lengths = (expected.stdout.len() as u64, expected.stderr.len() as u64);
    if facts.wrote != Some(lengths) {
        return Err(format!("the script recorded {:?} bytes instead of {lengths:?}", facts.wrote));
    }
    // All that the script wrote, and perhaps some of what it left running wrote after that.
    let whole = |(length, found): (u64, Match), least: u64| match found {
        Match::Whole => true,
        Match::Beginning => length >= least,
        Match::Ends | Match::Holed | Match::Foreign(_) => false,
    };
    if whole(facts.stdout, lengths.0) && whole(facts.stderr, lengths.1) && facts.dropped == 0 {
        return Ok(());
    }
    if facts.dropped == 0 {
        return Err(format!(
            "output is not what was written, and no marker says so: {}",
            streams(facts, lengths)
        ));
    }
    foreign(facts)?;
    if !expected.more.is_empty() {
        return explained_marker(around);
    }
    let missing = (lengths.0 + lengths.1) - (facts.stdout.0 + facts.stderr.0);
    if missing != facts.dropped {
        return Err(format!("{missing} bytes are missing, the marker says {}", facts.dropped));
    }
    explained_marker(around)
}

/// A run that was ended from outside: what is stored is a beginning of what it writes.
fn incomplete(facts: &Facts, around: &Around) -> Result<(), String> {
    foreign(facts)?;
    if facts.dropped > 0 {
        return explained_marker(around);
    }
    for (name, (length, found)) in [("stdout", facts.stdout), ("stderr", facts.stderr)] {
        if found == Match::Ends {
            return Err(format!("{name} has a hole ({length} bytes), and no marker says so"));
        }
    }
    Ok(())
}

fn never_started(facts: &Facts) -> Result<(), String> {
    if facts.starts > 0 {
        return Err(format!("{:?}, but it was started", facts.state));
    }
    if facts.stdout.0 + facts.stderr.0 > 0 {
        return Err(format!("{:?}, but it has output", facts.state));
    }
    Ok(())
}

fn foreign(facts: &Facts) -> Result<(), String> {
    for (name, (length, found)) in [("stdout", facts.stdout), ("stderr", facts.stderr)] {
        if let Match::Foreign(at) = found {
            return Err(format!("{name} ({length} bytes) is not what was written from byte {at} on"));
        }
    }
    Ok(())
}

fn explained_marker(around: &Around) -> Result<(), String> {
    if around.disk_filled || around.output_capped {
        return Ok(());
    }
    Err("output was dropped, but its host had room and keeps that much".into())
}

/// SIGTERM, SIGKILL and what they make of a script: its own end, or that of the command it waits for. SIGHUP and
/// SIGPIPE come from what ended before it.
fn ended_by_shutdown(end: End) -> bool {
    match end {
        End::Signal(signal) => [1, 9, 13, 15].contains(&signal),
        End::Code(code) => [129, 137, 141, 143].contains(&code),
        End::Timeout => false,
    }
}

fn streams(facts: &Facts, lengths: (u64, u64)) -> String {
    format!(
        "stdout {} of {} ({:?}), stderr {} of {} ({:?})",
        facts.stdout.0, lengths.0, facts.stdout.1, facts.stderr.0, lengths.1, facts.stderr.1
    )
}

#[cfg(test)]
mod tests {
    use fleetward_domain::work::run::refusal::detail as in_words;
    use fleetward_protocol::run as told;

    use super::*;

    fn expected() -> Expected {
        Expected {
            stdout: b"0123456789".to_vec(),
            stderr: b"e".to_vec(),
            more: Vec::new(),
            end: End::Code(0),
        }
    }

    fn whole() -> Facts {
        Facts {
            state: RunState::Succeeded,
            refusal: None,
            exit_code: Some(0),
            signal: None,
            dropped: 0,
            starts: 1,
            wrote: Some((10, 1)),
            stdout: (10, Match::Whole),
            stderr: (1, Match::Whole),
            held_ms: None,
            died: false,
        }
    }

    #[test]
    fn what_is_left_running_may_be_heard_of_and_must_not_hold_or_die() {
        let expected = Expected { more: b"more".to_vec(), ..expected() };
        let judged = |change: &dyn Fn(&mut Facts)| {
            let mut facts = whole();
            facts.held_ms = Some(30_004);
            change(&mut facts);
            judge(&facts, &expected, &Around::default())
        };
        assert_eq!(judged(&|facts| facts.stdout = (10, Match::Beginning)), Ok(()));
        assert_eq!(judged(&|facts| facts.stdout = (12, Match::Beginning)), Ok(()));
        assert_eq!(judged(&|facts| facts.stdout = (14, Match::Whole)), Ok(()));
        judged(&|facts| facts.stdout = (9, Match::Beginning)).unwrap_err();
        judged(&|facts| facts.held_ms = Some(300_000)).unwrap_err();
        judged(&|facts| facts.died = true).unwrap_err();
    }

    #[test]
    fn bytes_are_compared_from_both_ends() {
        let all = b"0123456789";
        assert_eq!(compare(all, 0, all), Match::Whole);
        assert_eq!(compare(b"0123", 0, all), Match::Beginning);
        assert_eq!(compare(b"", 0, all), Match::Beginning);
        assert_eq!(compare(b"01289", 0, all), Match::Ends);
        assert_eq!(compare(b"01x89", 0, all), Match::Foreign(2));
        assert_eq!(compare(b"01234567890", 0, all), Match::Foreign(10));
        // Its supervisor was killed while it brought the kept end behind the marker.
        assert_eq!(compare(b"0145", 2, all), Match::Holed);
        assert_eq!(compare(b"0145", 1, all), Match::Foreign(2));
        assert_eq!(compare(b"0145", u64::MAX, all), Match::Foreign(2));
    }

    #[test]
    fn a_whole_run_is_in_order() {
        assert_eq!(judge(&whole(), &expected(), &Around::default()), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_found() {
        let wrong = |change: &dyn Fn(&mut Facts)| {
            let mut facts = whole();
            change(&mut facts);
            judge(&facts, &expected(), &Around::default()).unwrap_err()
        };
        wrong(&|facts| facts.starts = 2);
        wrong(&|facts| facts.starts = 0);
        wrong(&|facts| facts.state = RunState::Running);
        wrong(&|facts| facts.state = RunState::Lost);
        wrong(&|facts| facts.state = RunState::Cancelled);
        wrong(&|facts| facts.state = RunState::Expired);
        wrong(&|facts| facts.wrote = None);
        wrong(&|facts| facts.stdout = (9, Match::Beginning));
        wrong(&|facts| (facts.stdout, facts.dropped) = ((9, Match::Beginning), 2));
        wrong(&|facts| (facts.stdout, facts.dropped) = ((9, Match::Ends), 1));
        wrong(&|facts| {
            (facts.state, facts.exit_code, facts.signal) = (RunState::Failed, None, Some(15));
        });
    }

    #[test]
    fn explanations_excuse_what_they_explain_and_no_more() {
        let judged = |change: &dyn Fn(&mut Facts), around: Around| {
            let mut facts = whole();
            change(&mut facts);
            judge(&facts, &expected(), &around)
        };
        let cut = |facts: &mut Facts| {
            facts.state = RunState::Lost;
            facts.stdout = (4, Match::Beginning);
        };
        let rebooted = Around { rebooted: true, ..Around::default() };
        let stopped = Around { stop_asked: true, ..Around::default() };
        let full = Around { disk_filled: true, ..Around::default() };
        let step = Around { step_failed: true, ..Around::default() };
        assert!(judged(&cut, rebooted).is_ok());
        assert!(judged(&cut, stopped).is_err());
        assert!(
            judged(&|facts| (facts.state, facts.stdout) = (RunState::Lost, (4, Match::Ends)), rebooted)
                .is_err()
        );
        let holed = |facts: &mut Facts| {
            (facts.state, facts.stdout, facts.dropped) = (RunState::Lost, (4, Match::Holed), 2);
        };
        let killed = Around { supervisor_killed: true, ..Around::default() };
        assert!(judged(&holed, Around { output_capped: true, ..killed }).is_ok());
        assert!(judged(&holed, killed).is_err(), "nothing explains a marker");
        assert!(judged(&|facts| facts.state = RunState::Cancelled, stopped).is_ok());
        let stopped_at_the_end = |facts: &mut Facts| {
            facts.state = RunState::Cancelled;
            facts.stdout = (4, Match::Beginning);
        };
        let stopped_in_between = |facts: &mut Facts| {
            stopped_at_the_end(facts);
            facts.wrote = None;
        };
        assert!(judged(&stopped_in_between, stopped).is_ok());
        assert!(judged(&stopped_at_the_end, stopped).is_err(), "it wrote more than is stored");
        assert!(judged(&stopped_at_the_end, Around { supervisor_killed: true, ..stopped }).is_ok());
        assert!(judged(&|facts| facts.state = RunState::Cancelled, step).is_err(), "it was started");
        assert!(judged(&|facts| (facts.stdout, facts.dropped) = ((9, Match::Ends), 1), full).is_ok());
        assert!(judged(&|facts| (facts.stdout, facts.dropped) = ((9, Match::Ends), 2), full).is_err());
        let shut = |facts: &mut Facts| {
            (facts.state, facts.exit_code, facts.signal) = (RunState::Failed, None, Some(15));
            facts.stdout = (4, Match::Beginning);
        };
        assert!(judged(&shut, Around { shut_down: true, ..rebooted }).is_ok());
        assert!(judged(&shut, rebooted).is_err(), "nobody ends a script before its power goes");
        assert!(judged(&|facts| facts.starts = 2, rebooted).is_err());
    }

    #[test]
    fn a_refusal_is_excused_by_the_fault_that_it_names_and_by_no_other() {
        let refused = |refusal, around, starts| {
            let nothing = (0, Match::Beginning);
            let facts = Facts {
                state: RunState::Refused,
                refusal: Some(refusal),
                exit_code: None,
                starts,
                wrote: None,
                stdout: nothing,
                stderr: nothing,
                ..whole()
            };
            judge(&facts, &expected(), &around)
        };
        let full = Around { disk_filled: true, ..Around::default() };
        let ended = Around { agent_ended: true, ..Around::default() };
        assert_eq!(refused(Refusal::DiskFull, full, 0), Ok(()));
        assert_eq!(refused(Refusal::AgentStopped, ended, 0), Ok(()));
        for (refusal, around, starts) in [
            (Refusal::DiskFull, full, 1),
            (Refusal::AgentStopped, ended, 1),
            (Refusal::DiskFull, ended, 0),
            (Refusal::AgentStopped, full, 0),
            (Refusal::Other, Around { agent_ended: true, ..full }, 0),
            (Refusal::DiskFull, Around::default(), 0),
            (Refusal::AgentStopped, Around::default(), 0),
        ] {
            assert!(refused(refusal, around, starts).is_err(), "{refusal:?} {around:?} {starts}");
        }
    }

    /// They are changed here and there together.
    #[test]
    fn a_refusals_reason_is_read_from_the_controllers_words() {
        for (detail, refusal) in [
            (&*in_words(&told::Refusal::DiskFull), Refusal::DiskFull),
            (
                "the process could not be started: the agent stopped before it could start the run",
                Refusal::AgentStopped,
            ),
            ("the process could not be started: bash is not installed on this host", Refusal::Other),
            ("the script that arrived is not the one the order names", Refusal::Other),
            ("", Refusal::Other),
        ] {
            assert_eq!(Refusal::told(detail), refusal, "{detail}");
        }
    }

    #[test]
    fn steps_begin_one_after_the_other_and_stop_at_the_first_that_does_not_succeed() {
        let step = |number, state, started, ended| Step { number, state, started, ended };
        let first = step(0, RunState::Succeeded, Some(10), Some(20));
        let waits = step(2, RunState::Cancelled, None, None);
        let order = |steps: &[Step]| judge_order(steps);
        assert_eq!(order(&[step(1, RunState::Failed, Some(20), Some(30)), first, waits]), Ok(()));
        assert!(order(&[first, step(1, RunState::Succeeded, Some(19), Some(30))]).is_err(), "too early");
        for state in
            [RunState::Failed, RunState::TimedOut, RunState::Cancelled, RunState::Refused, RunState::Lost]
        {
            let steps =
                [step(0, state, Some(10), Some(20)), step(1, RunState::Succeeded, Some(25), Some(30))];
            assert!(order(&steps).is_err(), "{state:?}");
        }
        let skipped =
            [first, step(1, RunState::Cancelled, None, None), step(2, RunState::Succeeded, Some(40), None)];
        assert!(order(&skipped).is_err(), "a step was left out");
    }
}
