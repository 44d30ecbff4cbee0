//! Reads answers: once, or on and on across connections that break and hosts that leave and come back.
//!
//! Each question is read in a task of its own, and so are hosts looked up that are missing. Hosts that come back are asked by
//! name, while the others go on. Only when the controller itself was lost, or too many questions are open, everybody is asked
//! again at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use fleetward_api::work::query::{QueryCreate, QueryCut, QueryEnd};
use fleetward_protocol::name::HostName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::look_up::{self, Found, MAX_EXPRESSION, Standing, pages};
use super::stream::{self, Listening, Told};
use super::{Answer, Sink};
use crate::app::App;
use crate::client::jittered;
use crate::failure::Failure;
use crate::live::{FIRST_PAUSE, LONGEST_PAUSE, PATIENCE};

/// The most questions that one follow has open: a person may have sixteen.
const MAX_QUESTIONS: usize = 8;
/// The most hosts that are named as waited for.
const MAX_NAMED: usize = 10;

/// Why listening ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All was told.
    Ended,
    /// The user left.
    Left,
}

/// Asks and reads the answer to its end, or until the user leaves; a question that follows goes on when the connection to the
/// controller breaks, and when a host that was followed comes back.
pub(super) async fn listen(
    app: &App,
    asked: &QueryCreate,
    answer: &mut Answer,
    sink: &mut impl Sink,
) -> Result<Ending, Failure> {
    let mut interrupts =
        signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C").map_err(Failure::Other)?;
    let mut listener = Listener::new(app, asked);
    listener.ask(None);
    loop {
        if let Some(ending) = listener.idle(answer) {
            if asked.follow {
                sink.end(&answer.sum(listener.cut.take()))?;
            }
            return Ok(ending);
        }
        let due = listener.due(answer);
        tokio::select! {
            // Items may come without end: Ctrl-C goes first.
            biased;
            _ = interrupts.recv() => return Ok(Ending::Left),
            () = sleep_until(due) => listener.act(answer, sink)?,
            Some((number, told)) = listener.told.recv() => listener.take(number, told, answer, sink)?,
        }
    }
}

/// An open question.
struct Question {
    /// Whom it asks by name; everybody when absent.
    hosts: Option<BTreeSet<HostName>>,
    /// Whether the controller has taken it.
    is_taken: bool,
    asked_at: Instant,
    /// Ends its task.
    task: AbortHandle,
}

/// What a task tells.
enum News {
    Question(Told),
    Hosts(Result<Found, Failure>),
}

struct Listener<'a> {
    app: &'a App,
    asked: &'a QueryCreate,
    tell: mpsc::Sender<(u64, News)>,
    told: mpsc::Receiver<(u64, News)>,
    /// They end with this.
    tasks: JoinSet<()>,
    questions: BTreeMap<u64, Question>,
    next: u64,
    /// Whether the controller has ever taken the question.
    has_heard: bool,
    /// Since when the controller is away.
    lost: Option<Instant>,
    /// When everybody is asked again, and the pause before the next time.
    again: Option<Instant>,
    pause: Duration,
    /// Why the controller would not ask everybody again.
    refused: Option<Failure>,
    /// Whether hosts are looked up at the moment, when they are next, and the pause before the time after it.
    looking: Option<u64>,
    look: Instant,
    look_pause: Duration,
    /// Since when nobody is followed any more, and somebody is waited for.
    alone: Option<Instant>,
    /// Why it ended before its hosts did.
    cut: Option<(QueryCut, Option<String>)>,
}

impl<'a> Listener<'a> {
    fn new(app: &'a App, asked: &'a QueryCreate) -> Self {
        // One message: who does not read is not read to.
        let (tell, told) = mpsc::channel(1);
        Self {
            app,
            asked,
            tell,
            told,
            tasks: JoinSet::new(),
            questions: BTreeMap::new(),
            next: 0,
            has_heard: false,
            lost: None,
            again: None,
            pause: FIRST_PAUSE,
            refused: None,
            looking: None,
            look: Instant::now(),
            look_pause: FIRST_PAUSE,
            alone: None,
            cut: None,
        }
    }

    /// Asks everybody, or these hosts by name.
    fn ask(&mut self, hosts: Option<BTreeSet<HostName>>) {
        let mut asked = self.asked.clone();
        if let Some(hosts) = &hosts {
            asked.on = look_up::expression(hosts.iter());
        }
        let (number, tell) = (self.next, self.tell.clone());
        self.next += 1;
        let client = self.app.client.clone();
        let task = self.tasks.spawn(async move {
            let listening = Listening { tell, wrap: |told| (number, News::Question(told)) };
            stream::read(&client, &asked, &listening).await;
        });
        let question = Question { hosts, is_taken: false, asked_at: Instant::now(), task };
        self.questions.insert(number, question);
    }

    /// Asks hosts by name, if not too many questions are open then; else everybody once more. If these hosts alone are too many
    /// for that, some of them are asked, and the next look-up takes the others.
    fn ask_by_name(
        &mut self,
        hosts: &BTreeSet<HostName>,
        answer: &mut Answer,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        let pages = pages(hosts.iter(), MAX_EXPRESSION);
        if self.questions.len() + pages.len() > MAX_QUESTIONS && !self.questions.is_empty() {
            self.ask_everybody_again();
            return Ok(());
        }
        answer.again(Some(hosts));
        sink.again(Some(hosts))?;
        for (number, page) in pages.into_iter().enumerate() {
            match number {
                0..MAX_QUESTIONS => self.ask(Some(page)),
                _ => answer.not_asked(&page),
            }
        }
        Ok(())
    }

    /// Lets go of all questions, and asks everybody in a moment.
    fn ask_everybody_again(&mut self) {
        for question in std::mem::take(&mut self.questions).into_values() {
            question.task.abort();
        }
        self.again = Some(Instant::now() + jittered(self.pause));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// How it ended, if there is nothing to wait for.
    fn idle(&mut self, answer: &Answer) -> Option<Ending> {
        if matches!(self.cut, Some((QueryCut::Limit, _))) {
            return Some(Ending::Ended);
        }
        if !self.questions.is_empty() || self.again.is_some() || self.refused.is_some() {
            self.alone = None;
            return None;
        }
        let missing: Vec<&str> = answer.missing().map(HostName::as_str).collect();
        if !self.asked.follow || missing.is_empty() {
            return Some(Ending::Ended);
        }
        let since = *self.alone.get_or_insert_with(|| {
            self.app.out.note(format_args!("Waiting for {}.", some(&missing)));
            Instant::now()
        });
        (since.elapsed() > PATIENCE).then_some(Ending::Ended)
    }

    /// When there is something to do, whatever is told.
    fn due(&self, answer: &Answer) -> Instant {
        let look = self.wants_look(answer).then_some(self.look);
        // Whoever waits looks whether it was long enough.
        let latest = Instant::now() + PATIENCE;
        [self.again, look].into_iter().flatten().min().unwrap_or(latest)
    }

    fn wants_look(&self, answer: &Answer) -> bool {
        let is_wanted = self.refused.is_some() || answer.missing().next().is_some();
        self.asked.follow && self.again.is_none() && self.looking.is_none() && is_wanted
    }

    /// Does what is due.
    fn act(&mut self, answer: &mut Answer, sink: &mut impl Sink) -> Result<(), Failure> {
        if self.again.is_some_and(|again| again <= Instant::now()) {
            self.again = None;
            answer.again(None);
            sink.again(None)?;
            self.ask(None);
        } else if self.wants_look(answer) && self.look <= Instant::now() {
            let names: BTreeSet<HostName> = match self.refused {
                Some(_) => answer.known().cloned().collect(),
                None => answer.missing().cloned().collect(),
            };
            let (number, tell, client) = (self.next, self.tell.clone(), self.app.client.clone());
            self.next += 1;
            self.looking = Some(number);
            self.tasks.spawn(async move {
                let found = look_up::look_up(&client, &names).await;
                // Nobody listening any more is no error.
                let _ = tell.send((number, News::Hosts(found))).await;
            });
        }
        Ok(())
    }

    fn take(
        &mut self,
        number: u64,
        news: News,
        answer: &mut Answer,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        match news {
            News::Hosts(found) if self.looking == Some(number) => {
                self.looking = None;
                self.look_pause = (self.look_pause * 2).min(LONGEST_PAUSE);
                self.look = Instant::now() + jittered(self.look_pause);
                match self.refused.take() {
                    Some(refused) => self.sort_out(refused, found, answer, sink),
                    None => self.back(found, answer, sink),
                }
            }
            News::Question(told) if self.questions.contains_key(&number) => match told {
                Told::Taken => {
                    (self.has_heard, self.lost) = (true, None);
                    if let Some(question) = self.questions.get_mut(&number) {
                        question.is_taken = true;
                    }
                    Ok(())
                }
                Told::Events(events) => {
                    for event in events {
                        if !(self.asked.follow && event.name == "end") {
                            sink.event(&event)?;
                        }
                        if let Some(end) = answer.take(&event, sink)? {
                            self.ended(number, end, answer);
                        }
                    }
                    sink.flush()
                }
                Told::Broken(failure) => self.broken(number, failure, answer, sink),
            },
            // Of a question that was given up.
            News::Hosts(_) | News::Question(_) => Ok(()),
        }
    }

    /// A question ended with its end.
    fn ended(&mut self, number: u64, end: QueryEnd, answer: &mut Answer) {
        let Some(question) = self.questions.remove(&number) else { return };
        if let Some(cut) = end.cut {
            self.app.out.warn(match &end.detail {
                Some(detail) => {
                    format!("It ended before its hosts did: {}.", crate::render::neutral::quote(detail))
                }
                None => "It ended before its hosts did; ask again.".to_owned(),
            });
            match cut {
                QueryCut::Unread if self.asked.follow => self.ask_everybody_again(),
                cut => self.cut = Some((cut, end.detail.clone())),
            }
        }
        let is_of_all = question.hosts.is_none();
        if is_of_all {
            answer.end = Some(end);
        }
        // Who left it is looked up at once; who has failed again at once, with the pauses that have grown meanwhile.
        if is_of_all || question.asked_at.elapsed() > LONGEST_PAUSE {
            self.look_soon();
        }
    }

    fn look_soon(&mut self) {
        if self.looking.is_none() {
            (self.look, self.look_pause) = (Instant::now(), FIRST_PAUSE);
        }
    }

    /// A question was refused, or its stream broke.
    fn broken(
        &mut self,
        number: u64,
        failure: Failure,
        answer: &mut Answer,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        let Some(question) = self.questions.remove(&number) else { return Ok(()) };
        if !(self.asked.follow && self.has_heard) {
            return Err(failure);
        }
        match question.hosts {
            // The next look-up tells who is there, and who may be asked.
            Some(hosts) if !question.is_taken && failure.is_passing() => {
                answer.not_asked(&hosts);
                Ok(())
            }
            Some(hosts) if !question.is_taken && matches!(failure, Failure::Refused { .. }) => {
                self.part_refused(hosts, &failure, answer, sink)
            }
            _ if failure.is_passing() => {
                let since = *self.lost.get_or_insert_with(|| {
                    let what = "The connection to the controller was lost; asking again until it answers.";
                    self.app.out.warn(what);
                    Instant::now()
                });
                if since.elapsed() > PATIENCE {
                    return Err(failure);
                }
                if question.is_taken && question.asked_at.elapsed() > PATIENCE / 10 {
                    self.pause = FIRST_PAUSE;
                }
                self.ask_everybody_again();
                Ok(())
            }
            None if matches!(failure, Failure::Refused { .. }) => {
                // Perhaps for one host alone.
                self.refused = Some(failure);
                self.look_soon();
                Ok(())
            }
            _ => Err(failure),
        }
    }

    /// What is refused for one host is its answer; of several, who it is about is found by asking fewer.
    fn part_refused(
        &mut self,
        hosts: BTreeSet<HostName>,
        failure: &Failure,
        answer: &mut Answer,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        if let (1, Some(host)) = (hosts.len(), hosts.first()) {
            return sink.host(&answer.give_up(host, failure.to_string()));
        }
        if self.questions.len() + 2 > MAX_QUESTIONS {
            answer.not_asked(&hosts);
            return Ok(());
        }
        let mut one = hosts;
        let middle = one.iter().nth(one.len() / 2).cloned();
        let other = middle.map(|middle| one.split_off(&middle)).unwrap_or_default();
        self.ask(Some(one));
        self.ask(Some(other));
        Ok(())
    }

    /// Everybody was refused: whom it is about is told and left out, and the others are asked by name.
    fn sort_out(
        &mut self,
        refused: Failure,
        found: Result<Found, Failure>,
        answer: &mut Answer,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        let found = match found {
            Ok(found) => found,
            Err(failure) if failure.is_passing() => {
                self.ask_everybody_again();
                return Ok(());
            }
            Err(_) => return Err(refused),
        };
        let known: BTreeSet<HostName> = answer.known().cloned().collect();
        let (may, may_not): (BTreeSet<_>, BTreeSet<_>) =
            known.into_iter().partition(|host| found.may_be_asked(host));
        // It may be about hosts that were left out before, or have never answered: the others are still asked by name.
        let is_about_others = refused.is_about_hosts() && !may.is_empty();
        if may_not.is_empty() && !is_about_others {
            // It is about whoever asks, or what is asked.
            return Err(refused);
        }
        self.leave_out(&may_not, &found, answer, sink)?;
        if may.is_empty() {
            return Ok(());
        }
        self.ask_by_name(&may, answer, sink)
    }

    /// Asks those of the missing hosts that are there again.
    fn back(
        &mut self,
        found: Result<Found, Failure>,
        answer: &mut Answer,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        // What cannot be found out is found out the next time.
        let Ok(found) = found else { return Ok(()) };
        let missing: BTreeSet<HostName> =
            answer.missing().filter(|host| found.was_asked(host)).cloned().collect();
        let (may, may_not): (BTreeSet<_>, BTreeSet<_>) =
            missing.into_iter().partition(|host| found.may_be_asked(host));
        self.leave_out(&may_not, &found, answer, sink)?;
        let back: BTreeSet<HostName> = may.into_iter().filter(|host| found.is_online(host)).collect();
        if back.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = back.iter().map(HostName::as_str).collect();
        let (is, them) = if names.len() == 1 { ("is", "it") } else { ("are", "them") };
        self.app.out.note(format_args!("{} {is} back; asking {them} again.", some(&names)));
        self.ask_by_name(&back, answer, sink)
    }

    fn leave_out(
        &mut self,
        hosts: &BTreeSet<HostName>,
        found: &Found,
        answer: &mut Answer,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        for host in hosts {
            let why = match found.standing(host) {
                Some(Standing { enrolment, .. }) => format!(
                    "it cannot be asked ({}); `fleetward host show {host}` says more",
                    crate::render::words::enrolment(*enrolment)
                ),
                None => "it is not in the inventory any more".to_owned(),
            };
            sink.host(&answer.give_up(host, why))?;
        }
        Ok(())
    }
}

/// Some names, and how many more there are.
fn some(names: &[&str]) -> String {
    let shown = names.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
