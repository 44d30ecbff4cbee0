//! Text to compare with: literal, or a glob.
//!
//! ```text
//! *           any characters, or none
//! ?           one character
//! [1-20]      a number without leading zeros; [01-20] with as many digits as the first bound; [1,3,5-9] a list
//! {a,b}       either text, in which all of this may stand again
//! ```
//!
//! Brackets hold numbers, as in ClusterShell and pdsh, not the characters of a shell's glob: `[15]` is fifteen.
//! Where both could be meant, such as `[3-5]`, both mean the same; letters in brackets are an error that shows
//! how to write them.
//!
//! What it promises: nothing is ever expanded, and it matches what its expansion would. Text without braces and
//! brackets is compared from left to right, where only the last `*` is ever tried anew; everything else is a small
//! automaton whose size is bounded, and matching looks at each of its places once per character. Either way each
//! step is taken from a budget.

use super::budget::{Budget, TooCostly};

/// The most places of a pattern: characters, wildcards, numbers and forks.
const MAX_PLACES: usize = 1024;
/// The deepest nesting of braces.
const MAX_NESTING: usize = 8;
/// The most digits of a number.
const MAX_DIGITS: usize = 18;

/// Text to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    shape: Shape,
    /// No shorter text fits, in characters.
    shortest: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// Characters, `?` and `*` alone, from left to right.
    Plain(Vec<Step>),
    Automaton {
        /// Each names the one after it; the last place is reached when the text is used up.
        places: Vec<Place>,
        start: usize,
    },
}

/// Whether two characters count as the same.
type Same = fn(char, char) -> bool;

/// What is wrong with a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InvalidGlob {
    /// At which byte.
    pub(super) at: usize,
    /// What, and how to write it.
    pub(super) message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    step: Step,
    next: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    End,
    Char(char),
    AnyOne,
    Any,
    Number(Vec<Range>),
    /// Goes on at each of these; `next` is unused.
    Fork(Vec<usize>),
}

/// A part of a glob as it was written.
#[derive(Debug, Clone)]
enum Piece {
    Char(char),
    AnyOne,
    Any,
    Number(Vec<Range>),
    Either(Vec<Vec<Piece>>),
}

/// Numbers from `low` to `high`, written with `width` digits at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    low: u64,
    high: u64,
    width: usize,
}

/// Whether unquoted text is a glob.
pub(super) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', ']', '{', '}'])
}

impl Pattern {
    pub(super) fn literal(text: &str) -> Self {
        Self::of(&text.chars().map(Piece::Char).collect::<Vec<_>>())
    }

    /// # Errors
    /// [`InvalidGlob`] with the place.
    pub(super) fn glob(text: &str) -> Result<Self, InvalidGlob> {
        let mut reader = Reader { text, at: 0, places: 0 };
        let pieces = reader.sequence(0)?;
        match reader.peek() {
            None => Ok(Self::of(&pieces)),
            Some(closing) => Err(reader.error(
                reader.at,
                format!("unexpected `{closing}`; nothing is open here, and text with it is quoted"),
            )),
        }
    }

    /// # Errors
    /// [`TooCostly`] if the budget ends first.
    pub(super) fn matches(&self, text: &str, budget: &mut Budget) -> Result<bool, TooCostly> {
        self.matches_by(text, |a, b| a == b, budget)
    }

    /// Without regard to case.
    ///
    /// # Errors
    /// [`TooCostly`] if the budget ends first.
    pub(super) fn matches_folded(&self, text: &str, budget: &mut Budget) -> Result<bool, TooCostly> {
        self.matches_by(text, |a, b| a == b || a.to_lowercase().eq(b.to_lowercase()), budget)
    }

    fn of(pieces: &[Piece]) -> Self {
        let plain = |piece: &Piece| match piece {
            Piece::Char(c) => Some(Step::Char(*c)),
            Piece::AnyOne => Some(Step::AnyOne),
            Piece::Any => Some(Step::Any),
            Piece::Number(_) | Piece::Either(_) => None,
        };
        let shape = pieces.iter().map(plain).collect::<Option<_>>().map_or_else(
            || {
                let mut places = vec![Place { step: Step::End, next: 0 }];
                let start = lay(pieces, 0, &mut places);
                Shape::Automaton { places, start }
            },
            Shape::Plain,
        );
        Self { shape, shortest: shortest(pieces) }
    }

    fn matches_by(&self, text: &str, same: Same, budget: &mut Budget) -> Result<bool, TooCostly> {
        // A character is looked at when the text is taken apart, whatever the pattern.
        budget.take(1 + text.len() / 8)?;
        let chars: Vec<char> = text.chars().collect();
        if chars.len() < self.shortest {
            return Ok(false);
        }
        match &self.shape {
            Shape::Plain(steps) => matches_plain(steps, &chars, same, budget),
            Shape::Automaton { places, start } => matches_places(places, *start, &chars, same, budget),
        }
    }
}

/// What stands before the first `*` and after the last has its place; what stands between two is taken at the first
/// place where it fits, as that leaves most for the rest. So nothing but the last `*` is ever tried anew.
fn matches_plain(steps: &[Step], chars: &[char], same: Same, budget: &mut Budget) -> Result<bool, TooCostly> {
    let fits = |step: Option<&Step>, found: char| match step {
        Some(Step::AnyOne) => true,
        Some(Step::Char(wanted)) => same(*wanted, found),
        _ => false,
    };
    if let Some(last) = steps.iter().rposition(|step| *step == Step::Any) {
        let tail = steps.get(last + 1..).unwrap_or_default();
        for (step, &found) in tail.iter().rev().zip(chars.iter().rev()) {
            budget.take(1)?;
            if !fits(Some(step), found) {
                return Ok(false);
            }
        }
    }
    let (mut step, mut at) = (0, 0);
    // The step after the last `*`, and where what it stands for ends.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&found) = chars.get(at) {
        budget.take(1)?;
        if steps.get(step) == Some(&Step::Any) {
            step += 1;
            retry = Some((step, at));
        } else if fits(steps.get(step), found) {
            step += 1;
            at += 1;
        } else if let Some((after, ends)) = retry {
            step = after;
            at = ends + 1;
            retry = Some((after, at));
        } else {
            return Ok(false);
        }
    }
    let rest = steps.get(step..).unwrap_or_default();
    budget.take(rest.len())?;
    Ok(rest.iter().all(|step| *step == Step::Any))
}

/// Each pair of a place and a position in the text is looked at once: O(places × text) for any pattern.
fn matches_places(
    places: &[Place],
    start: usize,
    chars: &[char],
    same: Same,
    budget: &mut Budget,
) -> Result<bool, TooCostly> {
    let words = ((chars.len() + 1) * places.len()).div_ceil(64);
    budget.take(words / 16)?;
    let mut seen = vec![0_u64; words];
    let mut open = vec![(0_usize, start)];
    while let Some((at, index)) = open.pop() {
        budget.take(1)?;
        let pair = at * places.len() + index;
        let (Some(word), Some(place)) = (seen.get_mut(pair / 64), places.get(index)) else {
            continue;
        };
        if *word & (1 << (pair % 64)) != 0 {
            continue;
        }
        *word |= 1 << (pair % 64);
        let found = chars.get(at).copied();
        match (&place.step, found) {
            (Step::End, None) => return Ok(true),
            (Step::AnyOne, Some(_)) => open.push((at + 1, place.next)),
            (Step::Char(wanted), Some(found)) if same(*wanted, found) => open.push((at + 1, place.next)),
            (Step::Any, found) => {
                if found.is_some() {
                    open.push((at + 1, index));
                }
                open.push((at, place.next));
            }
            (Step::Number(ranges), Some(_)) => {
                let digits = chars.iter().skip(at).take(MAX_DIGITS);
                let mut number = 0_u64;
                for (before, digit) in digits.map_while(|c| c.to_digit(10)).enumerate() {
                    budget.take(ranges.len())?;
                    number = number * 10 + u64::from(digit);
                    if ranges.iter().any(|range| range.holds(number, before + 1)) {
                        open.push((at + before + 1, place.next));
                    }
                }
            }
            (Step::Fork(ways), _) => {
                budget.take(ways.len())?;
                open.extend(ways.iter().map(|&way| (at, way)));
            }
            (Step::End | Step::Char(_) | Step::AnyOne | Step::Number(_), _) => {}
        }
    }
    Ok(false)
}

/// How many characters the pieces stand for at least.
fn shortest(pieces: &[Piece]) -> usize {
    let one = |piece: &Piece| match piece {
        Piece::Any => 0,
        Piece::Char(_) | Piece::AnyOne => 1,
        Piece::Number(ranges) => ranges.iter().map(|range| range.width).min().unwrap_or(1),
        // Bounded by `MAX_NESTING`.
        Piece::Either(ways) => ways.iter().map(|way| shortest(way)).min().unwrap_or(0),
    };
    pieces.iter().map(one).sum()
}

impl Range {
    /// Whether the number, written with so many digits, is one of these.
    fn holds(self, number: u64, written: usize) -> bool {
        let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1);
        (self.low..=self.high).contains(&number) && written == digits.max(self.width)
    }
}

/// Lays the pieces before `next`; where they begin.
fn lay(pieces: &[Piece], next: usize, places: &mut Vec<Place>) -> usize {
    let mut next = next;
    for piece in pieces.iter().rev() {
        let step = match piece {
            Piece::Char(c) => Step::Char(*c),
            Piece::AnyOne => Step::AnyOne,
            Piece::Any => Step::Any,
            Piece::Number(ranges) => Step::Number(ranges.clone()),
            // Bounded by `MAX_NESTING`.
            Piece::Either(ways) => Step::Fork(ways.iter().map(|way| lay(way, next, places)).collect()),
        };
        places.push(Place { step, next });
        next = places.len() - 1;
    }
    next
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    places: usize,
}

impl Reader<'_> {
    /// Up to the end, or up to what ends a way of the braces around it.
    fn sequence(&mut self, nesting: usize) -> Result<Vec<Piece>, InvalidGlob> {
        let mut pieces = Vec::new();
        while let Some(c) = self.peek() {
            let at = self.at;
            let piece = match c {
                ']' | '}' => break,
                ',' if nesting > 0 => break,
                '[' => Piece::Number(self.numbers()?),
                '{' => Piece::Either(self.either(nesting + 1)?),
                '*' => Piece::Any,
                '?' => Piece::AnyOne,
                c => Piece::Char(c),
            };
            if self.at == at {
                self.at += c.len_utf8();
            }
            self.places += 1;
            if self.places > MAX_PLACES {
                return Err(self
                    .error(at, format!("the pattern has more than {MAX_PLACES} parts; split it with `|`")));
            }
            pieces.push(piece);
        }
        Ok(pieces)
    }

    fn either(&mut self, nesting: usize) -> Result<Vec<Vec<Piece>>, InvalidGlob> {
        let start = self.at;
        if nesting > MAX_NESTING {
            return Err(self.error(start, format!("braces are nested deeper than {MAX_NESTING} levels")));
        }
        let mut ways = Vec::new();
        loop {
            // `{` or `,`.
            self.at += 1;
            let way_at = self.at;
            ways.push(self.sequence(nesting)?);
            let way = self.text.get(way_at..self.at).unwrap_or_default();
            if let Some((low, high)) = way.split_once("..")
                && is_number(low)
                && is_number(high)
            {
                return Err(self.error(way_at, format!("a range is written in brackets: `[{low}-{high}]`")));
            }
            self.places += 1;
            match self.peek() {
                Some('}') => break,
                Some(',') => {}
                _ => {
                    return Err(
                        self.error(start, "the `{` is not closed; write `{a,b}` without spaces".to_owned())
                    );
                }
            }
        }
        self.at += 1;
        Ok(ways)
    }

    fn numbers(&mut self) -> Result<Vec<Range>, InvalidGlob> {
        let start = self.at;
        let rest = self.text.get(start + 1..).unwrap_or_default();
        let Some(end) = rest.find(']') else {
            return Err(self.error(start, "the `[` is not closed; write `[1-20]` without spaces".to_owned()));
        };
        let list = rest.get(..end).unwrap_or_default();
        let mut ranges = Vec::new();
        let mut at = start + 1;
        for item in list.split(',') {
            ranges.push(range(item).map_err(|message| InvalidGlob { at, message })?);
            at += item.len() + 1;
            self.places += 1;
        }
        self.at = start + 1 + end + 1;
        Ok(ranges)
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at..).unwrap_or_default().chars().next()
    }

    fn error(&self, at: usize, message: String) -> InvalidGlob {
        InvalidGlob { at: at.min(self.text.len()), message }
    }
}

/// `7`, `3-5`, `01-20`.
fn range(item: &str) -> Result<Range, String> {
    let (low, high) = item.split_once('-').unwrap_or((item, item));
    if !is_number(low) || !is_number(high) {
        return Err(
            "brackets hold numbers: `[1-20]`, `[01-20]`, `[1,3,5-9]`; other choices are written `{a,b}`, and \
             literal brackets in quotes"
                .to_owned(),
        );
    }
    if low.len() > MAX_DIGITS || high.len() > MAX_DIGITS {
        return Err(format!("a number has {MAX_DIGITS} digits at most"));
    }
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if padded(low) || padded(high) { low.len() } else { 1 };
    // `[1-020]` and `[01-3]`: nobody knows which of both was meant.
    if (padded(high) && high.len() != width) || (padded(low) && high.len() < width) {
        return Err(format!("`{low}-{high}`: write both with as many digits, such as `[01-20]`"));
    }
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
    let range = Range { low: number(low)?, high: number(high)?, width };
    if range.low > range.high {
        return Err(format!("`{low}-{high}` goes down; write `{high}-{low}`"));
    }
    Ok(range)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> Pattern {
        Pattern::glob(text).unwrap()
    }

    fn matches(pattern: &Pattern, text: &str) -> bool {
        pattern.matches(text, &mut Budget::of(u64::MAX)).unwrap()
    }

    #[test]
    fn ranges_and_choices_mean_what_people_of_the_field_expect() {
        for (pattern, yes, no) in [
            ("web-[3-5]", "web-3 web-4 web-5", "web-2 web-6 web-03 web-35 web- web-[3-5]"),
            ("web-[01-20]", "web-01 web-09 web-10 web-20", "web-1 web-00 web-21 web-001 web-9"),
            ("web-[1-20]", "web-1 web-9 web-20", "web-01 web-0 web-21"),
            ("web-[098-102]", "web-098 web-099 web-100 web-102", "web-98 web-103 web-0100"),
            ("web-[1,3,5-9]", "web-1 web-3 web-7", "web-2 web-4 web-10"),
            ("web-[15]", "web-15", "web-1 web-5"),
            ("web-[0-2]", "web-0 web-2", "web-00 web-3"),
            ("r[1-2]n[01-03]", "r1n01 r2n03", "r1n1 r3n01"),
            ("[1-20]5", "15 205", "5 2155"),
            ("{web,db}-1", "web-1 db-1", "mail-1 {web,db}-1"),
            ("{web-[1-2],db-*}", "web-2 db-77", "web-3 db"),
            ("web{,-old}", "web web-old", "web-"),
            ("{a,{b,c}d}", "a bd cd", "b ad"),
            ("{a}", "a", "{a}"),
            ("a,b", "a,b", "a b"),
            ("*-[1-2]", "x-1 -2", "x-3"),
        ] {
            for text in yes.split(' ') {
                assert!(matches(&glob(pattern), text), "{pattern} {text}");
            }
            for text in no.split(' ') {
                assert!(!matches(&glob(pattern), text), "{pattern} {text}");
            }
        }
        let folded = glob("{WEB,db}-[1-2]").matches_folded("web-2", &mut Budget::of(u64::MAX));
        assert_eq!(folded, Ok(true));
    }

    #[test]
    fn errors_show_the_way() {
        for (pattern, at, part) in [
            ("web-[a-c]", 5, "{a,b}"),
            ("web-[!1]", 5, "hold numbers"),
            ("web-[]", 5, "hold numbers"),
            ("web-[1,]", 7, "hold numbers"),
            ("web-[1-2-3]", 5, "hold numbers"),
            ("web-[5-3]", 5, "write `3-5`"),
            ("web-[1-020]", 5, "as many digits"),
            ("web-[01-3]", 5, "as many digits"),
            ("web-[1", 4, "not closed"),
            ("web-{a,b", 4, "not closed"),
            ("web-{1..20}", 5, "[1-20]"),
            ("web-]", 4, "unexpected `]`"),
            ("a}", 1, "unexpected `}`"),
            ("{{{{{{{{{a}}}}}}}}}", 8, "nested"),
            ("[1234567890123456789]", 1, "digits at most"),
        ] {
            let error = Pattern::glob(pattern).unwrap_err();
            assert!(error.message.contains(part), "{pattern}: {}", error.message);
            assert_eq!(error.at, at, "{pattern}");
        }
        assert!(Pattern::glob(&"{a,b}".repeat(1000)).unwrap_err().message.contains("parts"));
        assert!(Pattern::glob(&format!("[{}1]", "1,".repeat(2000))).unwrap_err().message.contains("parts"));
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        let pattern = glob(&"{a*,*a}".repeat(120));
        assert!(!matches(&pattern, &format!("{}{}", "a".repeat(119), "b".repeat(150))));
        assert!(matches(&glob(&"[0-999999999999999999]".repeat(200)), &"1".repeat(250)));
    }

    /// What a pattern expands to, by definition.
    fn expand(pieces: &[Piece]) -> Vec<String> {
        let Some((first, rest)) = pieces.split_first() else { return vec![String::new()] };
        let heads = match first {
            Piece::Char(c) => vec![c.to_string()],
            Piece::AnyOne | Piece::Any => unreachable!("only what can be expanded is generated"),
            Piece::Number(ranges) => {
                let all = |range: &Range| {
                    let width = range.width;
                    (range.low..=range.high).map(move |number| format!("{number:0width$}"))
                };
                ranges.iter().flat_map(all).collect()
            }
            Piece::Either(ways) => ways.iter().flat_map(|way| expand(way)).collect(),
        };
        let tails = expand(rest);
        heads.iter().flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}"))).collect()
    }

    fn written(pieces: &[Piece]) -> String {
        let one = |piece: &Piece| match piece {
            Piece::Char(c) => c.to_string(),
            Piece::AnyOne => "?".to_owned(),
            Piece::Any => "*".to_owned(),
            Piece::Number(ranges) => {
                let one = |range: &Range| {
                    let width = range.width;
                    if range.low == range.high {
                        format!("{:0width$}", range.low)
                    } else {
                        format!("{:0width$}-{:0width$}", range.low, range.high)
                    }
                };
                format!("[{}]", ranges.iter().map(one).collect::<Vec<_>>().join(","))
            }
            Piece::Either(ways) => {
                format!("{{{}}}", ways.iter().map(|way| written(way)).collect::<Vec<_>>().join(","))
            }
        };
        pieces.iter().map(one).collect()
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        let range = (0_u64..30, 0_u64..4, 1_usize..4).prop_map(|(low, more, width)| Range {
            low,
            high: low + more,
            width,
        });
        let leaf = prop_oneof![
            prop::sample::select(vec!['a', 'b', '1', '0', '-']).prop_map(Piece::Char),
            prop::collection::vec(range, 1..3).prop_map(Piece::Number),
        ];
        let piece = leaf.prop_recursive(2, 8, 3, |inner| {
            prop::collection::vec(prop::collection::vec(inner, 0..3), 1..3).prop_map(Piece::Either)
        });
        prop::collection::vec(piece, 0..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn a_pattern_matches_what_it_expands_to_and_nothing_else(pieces in pieces(), text in "[ab01-]{0,6}") {
            let mut all = expand(&pieces);
            all.truncate(300);
            let pattern = glob(&written(&pieces));
            for text in &all {
                prop_assert!(matches(&pattern, text), "{} {}", written(&pieces), text);
            }
            if all.len() < 300 {
                prop_assert_eq!(matches(&pattern, &text), all.contains(&text), "{} {}", written(&pieces), text);
            }
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error_within_it(text in r"[\[\]{},*?0-9a-]{0,40}|.{0,40}", with in ".{0,20}") {
            match Pattern::glob(&text) {
                Ok(pattern) => { let _ = matches(&pattern, &with); }
                Err(error) => prop_assert!(error.at <= text.len()),
            }
        }
    }
}
