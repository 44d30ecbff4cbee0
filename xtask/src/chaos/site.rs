//! Whether a site of nginx is on its host as its runs say, and nginx works with it: a pure function of what was found there.
//!
//! Its file is not compared byte for byte, for how it is written is the agent's own. It is whole if it has the digest that its
//! first line tells, and it is what was asked for if it has all answers of one content, and no other.

use std::path::{Path, PathBuf};

use super::action::{Action, Content};
use super::remains::{Expected, judge_is};

/// The site's file.
pub const FILE: &str = "/etc/nginx/sites-available/chaos";
/// What has nginx read it.
pub const LINK: &str = "/etc/nginx/sites-enabled/chaos";
/// Where runs may leave something of their own.
pub const DIRECTORIES: [&str; 3] = ["/etc/nginx", "/etc/nginx/sites-available", "/etc/nginx/sites-enabled"];
/// What the names begin with that a run leaves which is ended while nginx tests what is not in place yet: a directory and a
/// file.
const TESTED: &str = ".fleetward-test-";
/// What a run leaves that is ended while it writes: the next one that changes something writes over it.
const WRITTEN: [&str; 2] = [".chaos.fleetward", ".chaos.fleetward.new"];

/// A site, as it was found on its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// Its file; `None` if that is not there.
    pub content: Option<String>,
    /// The SHA-256 of all but its first line, as sha256sum(1) tells it.
    pub digest: String,
    /// Where its link leads; `None` if that is not there.
    pub link: Option<PathBuf>,
    /// What runs have left in [`DIRECTORIES`], by name.
    pub left: Vec<String>,
    /// The words of nginx, if it does not take its whole configuration.
    pub broken: Option<String>,
    /// What nginx answers by the site's name: the whole of it.
    pub served: String,
}

/// All that is wrong with a site.
pub fn judge(site: &Site, expected: &Expected) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(words) = &site.broken {
        wrong.push(format!("nginx does not take its configuration: {words}"));
    }
    match is(site) {
        Err(problem) => wrong.push(problem),
        Ok(is) => {
            wrong.extend(judge_is("the site", is, expected).err());
            let serves = served(&site.served);
            if serves != Some(is) && !expected.unread {
                wrong.push(format!(
                    "nginx serves what is there after {serves:?}, and its files are as after {is:?}"
                ));
            }
        }
    }
    for name in &site.left {
        match WRITTEN.contains(&name.as_str()) {
            true if expected.uncounted > 0 => {}
            true => wrong.push(format!("{name} is left, and every run came to its end")),
            false if name.starts_with(TESTED) => {}
            false => wrong.push(format!("{name} is in nginx's directories, and nobody put it there")),
        }
    }
    let tested = site.left.iter().filter(|name| name.starts_with(TESTED)).count();
    if tested > 2 * expected.uncounted {
        wrong.push(format!("{tested} configurations are left that were tested: {:?}", site.left));
    }
    wrong
}

/// What is wrong with what nginx serves after it was told to read its configuration again.
pub fn judge_served_after_all(site: &Site, answer: &str) -> Option<String> {
    let (is, serves) = (is(site).ok()?, served(answer));
    (serves != Some(is)).then(|| {
        format!("nginx serves what is there after {serves:?} when it has read what is as after {is:?}")
    })
}

/// The action that leaves it so.
fn is(site: &Site) -> Result<Action, String> {
    let Some(content) = &site.content else {
        return match &site.link {
            None => Ok(Action::RemoveSite),
            Some(target) => Err(format!("{LINK} leads to {}, and {FILE} is not there", target.display())),
        };
    };
    match &site.link {
        Some(target) if target == Path::new(FILE) => {}
        link => return Err(format!("{FILE} is there, and {LINK} leads to {link:?}")),
    }
    let first = content.lines().next().unwrap_or_default();
    let digest = site.digest.split_whitespace().next().unwrap_or_default();
    if digest.len() != 64 || !first.ends_with(digest) {
        return Err(format!(
            "{FILE} has {} bytes, which are nothing whole that was written: {first}",
            content.len()
        ));
    }
    let answers = content.lines().filter_map(|line| line.trim().strip_prefix("return 200 "));
    let answers: Vec<&str> = answers.map(|answer| answer.trim_matches(['"', ';'])).collect();
    let found = Content::ALL.into_iter().find(|content| content.answers() == answers);
    found
        .map(Action::EnsureSite)
        .ok_or_else(|| format!("{FILE} has {} answers, which nobody asked for", answers.len()))
}

/// The action after which nginx answers so; `None` if that is no answer of an nginx that has all of it.
fn served(answer: &str) -> Option<Action> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let of = |content: &Content| content.answers().first().is_some_and(|first| first == body);
    match Content::ALL.iter().find(|content| of(content)) {
        Some(content) if head.starts_with("HTTP/1.1 200 ") => Some(Action::EnsureSite(*content)),
        // Then it is the default site that answers.
        None if body.contains("nginx") => Some(Action::RemoveSite),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::diary::Span;
    use crate::chaos::remains::{Deed, expect};
    use crate::chaos::typed::Effect;

    const SHORT: Action = Action::EnsureSite(Content::Short);
    const LONG: Action = Action::EnsureSite(Content::Long);
    const DIGEST: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn answer(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n{body}")
    }

    fn after(action: Action) -> Site {
        let Action::EnsureSite(content) = action else {
            return Site { served: answer("Welcome to nginx!"), ..Site::default() };
        };
        let answers = content.answers();
        let lines: String =
            answers.iter().map(|answer| format!("        return 200 \"{answer}\";\n")).collect();
        Site {
            content: Some(format!("# fleetward site chaos; sha256 {DIGEST}\nserver {{\n{lines}}}\n")),
            digest: format!("{DIGEST}  -"),
            link: Some(FILE.into()),
            served: answer(&answers[0]),
            ..Site::default()
        }
    }

    fn deed(action: Action, effect: Effect, reloaded: bool) -> Deed {
        Deed { action, span: Span { from: 0, until: 10 }, effect, cut_off: false, reloaded }
    }

    fn certain(action: Action) -> Expected {
        expect(Action::RemoveSite, &[deed(action, Effect::Certain, true)])
    }

    fn uncertain() -> Expected {
        expect(Action::RemoveSite, &[deed(SHORT, Effect::Certain, true), deed(LONG, Effect::Perhaps, false)])
    }

    fn is_wrong(site: &Site, expected: &Expected, words: &str) {
        let wrong = judge(site, expected);
        assert!(wrong.iter().any(|wrong| wrong.contains(words)), "{words}: {wrong:?}");
    }

    #[test]
    fn a_site_is_whole_or_not_there_and_as_the_last_run_left_it() {
        for action in [SHORT, LONG, Action::RemoveSite] {
            assert_eq!(judge(&after(action), &certain(action)), [""; 0], "{action:?}");
            for other in [SHORT, LONG, Action::RemoveSite].into_iter().filter(|other| *other != action) {
                is_wrong(&after(other), &certain(action), "the runs leave");
            }
        }
        assert_eq!(judge(&after(SHORT), &uncertain()), [""; 0]);
        assert_eq!(judge(&after(LONG), &uncertain()), [""; 0]);
        is_wrong(&after(Action::RemoveSite), &uncertain(), "the runs leave");
    }

    #[test]
    fn what_is_torn_or_half_there_is_wrong_however_much_went_on() {
        let whole = after(LONG);
        let content = whole.content.clone().unwrap();
        for (wrong, words) in [
            (Site { digest: "0".repeat(64), ..whole.clone() }, "whole"),
            (Site { digest: String::new(), ..whole.clone() }, "whole"),
            (Site { content: Some(content.replace("00007", "00008")), ..whole.clone() }, "nobody asked for"),
            (
                Site { content: Some(format!("{content}return 200 \"more\";\n")), ..whole.clone() },
                "nobody asked for",
            ),
            (Site { link: None, ..whole.clone() }, "leads to None"),
            (Site { link: Some("/etc/nginx/sites-available/default".into()), ..whole.clone() }, "default"),
            (Site { content: None, ..whole.clone() }, "is not there"),
            (Site { broken: Some("[emerg] no".into()), ..whole.clone() }, "[emerg] no"),
            (Site { left: vec!["fleetward.conf".into()], ..whole.clone() }, "nobody put it there"),
        ] {
            is_wrong(&wrong, &uncertain(), words);
        }
    }

    #[test]
    fn nginx_serves_what_is_there_unless_a_run_was_ended_before_it_was_told() {
        let other = Site { served: after(SHORT).served, ..after(LONG) };
        is_wrong(&other, &certain(LONG), "nginx serves");
        assert_eq!(judge(&other, &uncertain()), [""; 0]);
        for served in [String::new(), answer("answer of the long 00"), answer("")] {
            is_wrong(&Site { served, ..after(LONG) }, &certain(LONG), "nginx serves");
        }
        for action in [SHORT, LONG, Action::RemoveSite] {
            assert_eq!(judge_served_after_all(&after(action), &after(action).served), None);
            assert!(judge_served_after_all(&after(action), "").is_some());
        }
        assert!(judge_served_after_all(&after(LONG), &after(SHORT).served).is_some());
        assert!(
            judge_served_after_all(&after(LONG), &after(LONG).served.replace("200 OK", "500 Oh")).is_some()
        );
    }

    #[test]
    fn only_runs_that_were_ended_leave_something_of_their_own() {
        let left = |names: &[&str]| Site {
            left: names.iter().map(|name| (*name).to_owned()).collect(),
            ..after(SHORT)
        };
        let tested = [".fleetward-test-1", ".fleetward-test-1.conf"];
        let settled = certain(SHORT);
        for name in WRITTEN {
            is_wrong(&left(&[name]), &settled, "is left");
            assert_eq!(judge(&left(&[name]), &uncertain()), [""; 0]);
        }
        is_wrong(&left(&tested), &settled, "that were tested");
        assert_eq!(judge(&left(&tested), &uncertain()), [""; 0]);
        is_wrong(&left(&[&tested[..], &[".fleetward-test-2"]].concat()), &uncertain(), "that were tested");
    }
}
