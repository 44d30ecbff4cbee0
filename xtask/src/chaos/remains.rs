//! Whether what typed actions left on a host is what their runs say: a pure function of the runs, and of what was found there
//! in the end.
//!
//! The last run that succeeded decides, unless one whose end nobody knows may have come after it.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Object, Unit};
use super::diary::Span;
use super::typed::{Effect, SETTLES};

/// So many earlier versions of a file are kept.
const MAX_KEPT: usize = 5;

/// A run, as far as it decides how its object is in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deed {
    /// What was asked for.
    pub action: Action,
    /// From its hand-out to the hearing of its end.
    pub span: Span,
    /// What it has done.
    pub effect: Effect,
    /// Whether its host restarted while it was under way: what was left before it may have left as it was.
    pub cut_off: bool,
    /// Whether it says that nginx has read what it has put in place.
    pub reloaded: bool,
}

/// How an object may be in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// As one of these actions leaves it.
    pub after: BTreeSet<Action>,
    /// Whether a run may have left something of its own beside it, which the next one would have tidied.
    pub untidy: bool,
    /// How many earlier versions of a file may be kept that nobody has counted: what a run leaves that is ended or cut off is
    /// kept by whoever comes next, which may find nothing to change, and counts none then.
    pub uncounted: usize,
    /// Whether a run may have put something in place that nginx was not told of, and no later one had nginx read it.
    pub unread: bool,
}

/// A file, and what is beside it in its directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its content; `None` if it is not there.
    pub content: Option<Vec<u8>>,
    /// All else, by name.
    pub beside: BTreeMap<String, Vec<u8>>,
}

impl Deed {
    /// Whether it has come to its end before that one began.
    fn is_before(&self, later: &Self) -> bool {
        let lasts = if self.effect == Effect::Perhaps { SETTLES } else { 0 };
        self.span.until.saturating_add(lasts) < later.span.from
    }
}

/// How an object may be after all that was done to it.
pub fn expect(initially: Action, deeds: &[Deed]) -> Expected {
    let certain = || deeds.iter().filter(|deed| deed.effect == Effect::Certain);
    let uncertain = || deeds.iter().filter(|deed| deed.effect == Effect::Perhaps);
    let last = certain().chain(uncertain()).filter(|deed| !certain().any(|later| deed.is_before(later)));
    let mut after: BTreeSet<Action> = last.map(|deed| deed.action).collect();
    if certain().next().is_none() {
        after.insert(initially);
    }
    let is_tidied = |deed: &Deed| certain().any(|later| !later.cut_off && deed.is_before(later));
    let untidy = uncertain().any(|deed| !is_tidied(deed));
    let is_read = |deed: &Deed| certain().any(|later| later.reloaded && deed.is_before(later));
    let unread = uncertain().any(|deed| !is_read(deed));
    let uncounted = uncertain().count() + certain().filter(|deed| deed.cut_off).count();
    Expected { after, untidy, uncounted, unread }
}

/// Judges a file that was found, and what is beside it; gives the action that it is as after.
///
/// # Errors
/// With what is wrong.
pub fn judge_file(object: Object, name: &str, found: &Found, expected: &Expected) -> Result<Action, String> {
    let Some(is) = left_by(object, found.content.as_deref()) else {
        let length = found.content.as_ref().map_or(0, Vec::len);
        return Err(format!("{name} has {length} bytes, which are nothing whole that was written"));
    };
    judge_is(name, is, expected)?;
    let kept_prefix = format!(".{name}.fleetward-");
    let mut kept = 0;
    for (beside, content) in &found.beside {
        let is_whole = left_by(object, Some(content)).is_some();
        let is_temporary =
            beside.starts_with(".fleetward-") && [".new", ".old"].iter().any(|end| beside.ends_with(end));
        match (beside.starts_with(&kept_prefix), is_temporary) {
            (true, _) if is_whole => kept += 1,
            (true, _) => return Err(format!("{beside} was kept, and is nothing whole that was written")),
            (false, true) if expected.untidy => {}
            (false, true) => return Err(format!("{beside} is left, and the last run on it came to its end")),
            (false, false) => return Err(format!("{beside} is beside {name}, and nobody put it there")),
        }
    }
    if kept > MAX_KEPT + expected.uncounted {
        return Err(format!("{kept} earlier versions of {name} are kept"));
    }
    Ok(is)
}

/// Judges what systemd has loaded of the drop-in's unit, after it read all files again.
///
/// # Errors
/// With what is wrong.
pub fn judge_loaded(description: &str, drop_in: Action) -> Result<(), String> {
    let wanted = match drop_in {
        Action::WriteDropIn(content) => content.description(),
        _ => Unit::DESCRIPTION.to_owned(),
    };
    match description == wanted {
        true => Ok(()),
        false => Err(format!("{} is called {description:?} after {drop_in:?}", Unit::Tuned.name())),
    }
}

/// Judges whether the package is held.
///
/// # Errors
/// With what is wrong.
pub fn judge_hold(held: bool, expected: &Expected) -> Result<(), String> {
    judge_is("the package", if held { Action::Hold } else { Action::Unhold }, expected)
}

pub(super) fn judge_is(what: &str, is: Action, expected: &Expected) -> Result<(), String> {
    match expected.after.contains(&is) {
        true => Ok(()),
        false => Err(format!("{what} is as after {is:?}, and the runs leave {:?}", expected.after)),
    }
}

/// The action that leaves exactly this; `None` if it is nothing whole.
fn left_by(object: Object, content: Option<&[u8]>) -> Option<Action> {
    let of_object = Action::ALL.into_iter().filter(|action| action.object() == object);
    of_object.into_iter().find(|action| action.content().as_deref().map(str::as_bytes) == content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::action::{Content, DROP_IN_FILE, FILE};

    const SHORT: Action = Action::WriteFile(Content::Short);
    const LONG: Action = Action::WriteFile(Content::Long);

    fn deed(action: Action, from: i64, until: i64, effect: Effect) -> Deed {
        Deed { action, span: Span { from, until }, effect, cut_off: false, reloaded: false }
    }

    fn certain(action: Action, from: i64, until: i64) -> Deed {
        deed(action, from, until, Effect::Certain)
    }

    fn perhaps(action: Action, from: i64, until: i64) -> Deed {
        deed(action, from, until, Effect::Perhaps)
    }

    fn after(deeds: &[Deed]) -> Vec<Action> {
        expect(Action::RemoveFile, deeds).after.into_iter().collect()
    }

    #[test]
    fn the_last_run_that_succeeded_decides() {
        assert_eq!(after(&[]), [Action::RemoveFile]);
        assert_eq!(after(&[deed(LONG, 0, 10, Effect::Nothing)]), [Action::RemoveFile]);
        assert_eq!(after(&[certain(SHORT, 0, 10)]), [SHORT]);
        let in_turn = [certain(SHORT, 0, 10), certain(LONG, 20, 30), certain(Action::RemoveFile, 11, 15)];
        assert_eq!(after(&in_turn), [LONG]);
    }

    #[test]
    fn of_two_runs_at_the_same_time_either_may_be_the_last() {
        assert_eq!(after(&[certain(SHORT, 0, 10), certain(LONG, 10, 20)]), [SHORT, LONG]);
        let before = [certain(Action::RemoveFile, 0, 4), certain(SHORT, 5, 10), certain(LONG, 8, 20)];
        assert_eq!(after(&before), [SHORT, LONG]);
    }

    #[test]
    fn a_run_whose_end_nobody_knows_may_have_been_the_last_until_another_comes_well_after_it() {
        assert_eq!(after(&[certain(SHORT, 0, 10), perhaps(LONG, 20, 30)]), [SHORT, LONG]);
        assert_eq!(after(&[perhaps(LONG, 0, 10)]), [LONG, Action::RemoveFile]);
        assert_eq!(after(&[perhaps(LONG, 0, 10), certain(SHORT, 11, 20)]), [SHORT, LONG]);
        assert_eq!(after(&[perhaps(LONG, 0, 10), certain(SHORT, 11 + SETTLES, 20 + SETTLES)]), [SHORT]);
        assert_eq!(after(&[perhaps(LONG, 0, i64::MAX), certain(SHORT, 11, 20)]), [SHORT, LONG]);
    }

    fn file(action: Action) -> Found {
        Found { content: action.content().map(String::into_bytes), beside: BTreeMap::new() }
    }

    fn judged(found: &Found, deeds: &[Deed]) -> Result<Action, String> {
        judge_file(Object::File, FILE, found, &expect(Action::RemoveFile, deeds))
    }

    #[test]
    fn a_file_is_whole_or_not_there_and_as_the_last_run_left_it() {
        let wrote = [certain(SHORT, 0, 10)];
        assert_eq!(judged(&file(SHORT), &wrote), Ok(SHORT));
        judged(&file(LONG), &wrote).unwrap_err();
        judged(&file(Action::RemoveFile), &wrote).unwrap_err();
        assert_eq!(judged(&file(Action::RemoveFile), &[]), Ok(Action::RemoveFile));
        judged(&file(SHORT), &[]).unwrap_err();
        let both = [certain(SHORT, 0, 10), perhaps(LONG, 5, 10)];
        for whole in [SHORT, LONG] {
            assert_eq!(judged(&file(whole), &both), Ok(whole));
            let whole = whole.content().unwrap().into_bytes();
            let torn = [&whole[..whole.len() - 1], &whole[..4096], b"", &[&whole[..], b"\n"].concat()[..]];
            for torn in torn {
                let found = Found { content: Some(torn.to_vec()), beside: BTreeMap::new() };
                assert!(judged(&found, &both).unwrap_err().contains("whole"), "{}", torn.len());
            }
        }
        judged(&file(Action::WriteDropIn(Content::Short)), &both).unwrap_err();
    }

    #[test]
    fn only_a_run_that_was_ended_and_that_none_came_after_leaves_something_of_its_own() {
        let left = |name: &str| Found { beside: [(name.to_owned(), b"half".to_vec())].into(), ..file(SHORT) };
        let lost = perhaps(SHORT, 20, 30);
        let later = certain(SHORT, 31 + SETTLES, 40 + SETTLES);
        for name in [".fleetward-0123456789abcdef.new", ".fleetward-0123456789abcdef.old"] {
            let judged = |deeds: &[Deed]| judged(&left(name), deeds);
            assert_eq!(judged(&[certain(SHORT, 0, 10), lost]), Ok(SHORT));
            judged(&[certain(SHORT, 0, 10)]).unwrap_err();
            judged(&[lost, later]).unwrap_err();
            assert_eq!(judged(&[lost, Deed { cut_off: true, ..later }]), Ok(SHORT));
        }
        for name in ["settings.new", ".fleetward-0123456789abcdef", "other"] {
            judged(&left(name), &[certain(SHORT, 0, 10), lost]).unwrap_err();
        }
    }

    #[test]
    fn what_is_kept_is_whole_and_few() {
        let kept = |count: usize, content: &[u8]| {
            let name = |number| format!(".settings.fleetward-20260102T03040{number}Z");
            let beside = (0..count).map(|number| (name(number), content.to_vec())).collect();
            Found { beside, ..file(SHORT) }
        };
        let long = LONG.content().unwrap().into_bytes();
        let wrote = [certain(SHORT, 0, 10)];
        assert_eq!(judged(&kept(5, &long), &wrote), Ok(SHORT));
        judged(&kept(6, &long), &wrote).unwrap_err();
        let cut_off = Deed { cut_off: true, ..wrote[0] };
        assert_eq!(judged(&kept(6, &long), &[wrote[0], perhaps(LONG, 0, 10)]), Ok(SHORT));
        assert_eq!(judged(&kept(6, &long), &[cut_off]), Ok(SHORT));
        judged(&kept(7, &long), &[cut_off]).unwrap_err();
        assert!(judged(&kept(1, &long[1..]), &wrote).unwrap_err().contains("whole"));
    }

    #[test]
    fn what_systemd_has_loaded_fits_the_drop_in_that_is_there() {
        let content = Content::Long;
        let drop_in = Action::WriteDropIn(content);
        let expected = expect(Action::RemoveDropIn, &[certain(drop_in, 0, 10)]);
        assert_eq!(judge_file(Object::DropIn, DROP_IN_FILE, &file(drop_in), &expected), Ok(drop_in));
        assert_eq!(judge_loaded(&content.description(), drop_in), Ok(()));
        judge_loaded(Unit::DESCRIPTION, drop_in).unwrap_err();
        judge_loaded(&Content::Short.description(), drop_in).unwrap_err();
        assert_eq!(judge_loaded(Unit::DESCRIPTION, Action::RemoveDropIn), Ok(()));
        judge_loaded(&content.description(), Action::RemoveDropIn).unwrap_err();
    }

    #[test]
    fn nginx_has_read_what_a_later_run_had_it_read() {
        let unread = |deeds: &[Deed]| expect(Action::RemoveSite, deeds).unread;
        let site = Action::EnsureSite(Content::Short);
        let lost = perhaps(site, 0, 10);
        let later = certain(site, 11 + SETTLES, 30 + SETTLES);
        assert!(!unread(&[]) && !unread(&[later]));
        assert!(unread(&[lost]) && unread(&[lost, later]));
        assert!(!unread(&[lost, Deed { reloaded: true, ..later }]));
        assert!(unread(&[lost, Deed { reloaded: true, ..certain(site, 5, 30) }]), "it came with it");
    }

    #[test]
    fn a_package_is_held_if_the_last_run_says_so() {
        let judged = |held, deeds: &[Deed]| judge_hold(held, &expect(Action::Unhold, deeds));
        assert_eq!(judged(false, &[]), Ok(()));
        judged(true, &[]).unwrap_err();
        let holds = [certain(Action::Unhold, 0, 5), certain(Action::Hold, 6, 10)];
        assert_eq!(judged(true, &holds), Ok(()));
        judged(false, &holds).unwrap_err();
        let perhaps_not = [holds[1], perhaps(Action::Unhold, 20, 30)];
        assert_eq!((judged(true, &perhaps_not), judged(false, &perhaps_not)), (Ok(()), Ok(())));
    }
}
