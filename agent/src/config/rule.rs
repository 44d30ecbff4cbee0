//! What the owner allows of the things that a kind touches.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::path::{Component, Path};

use fleetward_protocol::action::unit::MAX_UNIT_NAME;
use fleetward_protocol::object::{Class, Object, Which};
use fleetward_protocol::printable::is_line;
use fleetward_protocol::{action, query, wildcard};
use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;

/// The longest name in a list, in bytes: that of a path (PATH_MAX).
const MAX_NAME: usize = 4096;
/// The most bytes between a beginning and an end of names: those of a unit's name.
const MAX_BETWEEN: usize = MAX_UNIT_NAME;

/// Names that the owner's file lists, with the place of the list there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Where it begins: the byte, until [`number`](Self::number) makes the line of it.
    place: usize,
    names: BTreeSet<String>,
}

/// The rule of one kind: the lists of what it may touch. What has no list may be touched, whatever it is.
pub type Rule = BTreeMap<Class, Names>;

/// A rule as the processes get it that touch things.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Allowed(BTreeMap<Class, BTreeSet<String>>);

impl Names {
    /// The line of the file in which the list begins, from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.place
    }

    /// Makes the line out of the byte, in the text that this was read from.
    pub(super) fn number(&mut self, text: &str) {
        let before = text.get(..self.place).unwrap_or(text);
        self.place = before.matches('\n').count() + 1;
    }
}

impl Deref for Names {
    type Target = BTreeSet<String>;

    fn deref(&self) -> &BTreeSet<String> {
        &self.names
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Spanned::<BTreeSet<String>>::deserialize(deserializer)?;
        Ok(Self { place: names.span().start, names: names.into_inner() })
    }
}

impl Allowed {
    /// What a rule allows; everything where there is none.
    #[must_use]
    pub fn of(rule: Option<&Rule>) -> Self {
        let lists = rule.into_iter().flatten();
        Self(lists.map(|(class, names)| (*class, names.names.clone())).collect())
    }

    /// Whether this may be touched. Any of a class may be where the class has no list.
    #[must_use]
    pub fn allows(&self, object: &Object) -> bool {
        let Some(names) = self.0.get(&object.class()) else { return true };
        let is_listed = |means: &dyn Fn(&str) -> bool| names.iter().any(|listed| means(listed));
        match object.which() {
            Which::Named(name) => is_listed(&|listed| means(object.class(), listed, name)),
            Which::Between(begin, end) => {
                is_listed(&|listed| means_all_between(object.class(), listed, begin, end))
            }
            Which::Any => false,
        }
    }

    /// The directories beneath which paths have to stay; `None` where they may be anywhere.
    #[must_use]
    pub fn roots(&self) -> Option<impl Iterator<Item = &Path>> {
        self.0.get(&Class::Paths).map(|roots| roots.iter().map(Path::new))
    }
}

/// Whether what stands in a list means this name.
fn means(class: Class, listed: &str, name: &str) -> bool {
    match class {
        Class::Paths => {
            let name = Path::new(name);
            // Where `..` leads is not to be told by the name.
            name.starts_with(listed) && name.components().all(|part| part != Component::ParentDir)
        }
        // systemctl(1): what has no type is a service.
        Class::Units => {
            wildcard::matches(listed, name)
                || name.strip_suffix(".service").is_some_and(|stem| wildcard::matches(listed, stem))
        }
        Class::Sites | Class::Users | Class::Packages | Class::Snippets => wildcard::matches(listed, name),
    }
}

/// Whether what stands in a list means every name that begins and ends so and has something between. What stands between here is in
/// no list, so that only `*` and `?` mean it: what means each length of it means whatever is that long.
fn means_all_between(class: Class, listed: &str, begin: &str, end: &str) -> bool {
    (1..=MAX_BETWEEN).all(|length| means(class, listed, &format!("{begin}{}{end}", "\u{1}".repeat(length))))
}

/// Looks for what cannot have been meant so in the rule of a kind.
pub(super) fn check(kind: &str, rule: &Rule) -> Result<(), String> {
    let Some(known) = action::objects(kind).or_else(|| query::objects(kind)) else {
        return Err(format!("policy.rules.{kind} is about a kind that this agent does not know"));
    };
    for (class, names) in rule {
        let list = format!("policy.rules.{kind}.{class}");
        if !known.contains(class) {
            let lists: Vec<&str> = known.iter().map(|class| class.as_str()).collect();
            let have = match lists.is_empty() {
                true => "it has no lists".to_owned(),
                false => format!("its lists are {}", lists.join(", ")),
            };
            return Err(format!("{list}: the kind `{kind}` touches no {class}; {have}"));
        }
        for name in names.iter() {
            check_name(*class, name)
                .map_err(|why| format!("{list} names `{}`: {why}", name.escape_debug()))?;
        }
    }
    Ok(())
}

fn check_name(class: Class, name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_NAME || !is_line(name) {
        return Err("it is empty, too long or not printable");
    }
    if class != Class::Paths {
        return Ok(());
    }
    let path = Path::new(name);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err("write a directory as an absolute path without `..`; all beneath it is allowed with it");
    }
    if name.contains(['*', '?']) {
        return Err("paths have no `*` and `?`; name the directory, and all beneath it is allowed with it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(class: Class, names: &[&str]) -> Allowed {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Allowed(BTreeMap::from([(class, names)]))
    }

    #[test]
    fn a_list_means_what_it_names_and_nothing_else() {
        use Class::{Packages, Paths, Units};
        for (class, listed, name, expected) in [
            (Units, "nginx", "nginx.service", true),
            (Units, "nginx", "nginx.socket", false),
            (Units, "nginx", "nginx-debug.service", false),
            (Units, "nginx*", "nginx-debug.service", true),
            (Units, "nginx.*", "nginx.socket", true),
            (Units, "*.timer", "apt-daily.timer", true),
            (Units, "*.timer", "apt-daily.service", false),
            (Units, "*", "-.mount", true),
            (Paths, "/srv", "/srv", true),
            (Paths, "/srv", "/srv/a/b", true),
            (Paths, "/srv/", "/srv/a", true),
            (Paths, "/srv", "/srvx", false),
            (Paths, "/srv", "/srv/../etc/shadow", false),
            (Paths, "/srv", "srv", false),
            (Paths, "/", "/etc", true),
            (Packages, "nginx*", "nginx-common", true),
            (Packages, "nginx", "nginx-common", false),
        ] {
            let found = allowed(class, &[listed]).allows(&Object::named(class, name));
            assert_eq!(found, expected, "{class}: {listed} and {name}");
        }
        assert!(
            !allowed(Units, &[]).allows(&Object::named(Units, "a.service")),
            "an empty list allows nothing"
        );
        assert!(
            !allowed(Units, &["*"]).allows(&Object::any(Units)),
            "what says nothing may be more than is named"
        );
        assert!(Allowed::default().allows(&Object::any(Units)));
        assert!(allowed(Units, &[]).allows(&Object::named(Paths, "/etc")), "another class has another list");
    }

    /// A drop-in of `app-.service` is put on every service whose name begins with `app-`.
    #[test]
    fn what_is_many_is_allowed_where_each_of_them_is() {
        for (listed, expected) in [
            ("app-*", true),
            ("app-?*", true),
            ("a*", true),
            ("*", true),
            ("*.service", true),
            ("*-*.service", true),
            ("app-", false),
            ("app-.service", false),
            ("*-", false),
            ("app-web", false),
            ("app-?", false),
            ("app-??????????*", false),
            ("app-*-web", false),
            ("app-*.timer", false),
            ("app-w*", false),
        ] {
            let all = Object::between(Class::Units, "app-", ".service");
            assert_eq!(allowed(Class::Units, &[listed]).allows(&all), expected, "{listed}");
        }
    }

    #[test]
    fn roots_are_the_paths() {
        assert!(allowed(Class::Units, &["a"]).roots().is_none());
        let allowed = allowed(Class::Paths, &["/srv", "/etc/nginx"]);
        let roots: Vec<&Path> = allowed.roots().unwrap().collect();
        assert_eq!(roots, [Path::new("/etc/nginx"), Path::new("/srv")]);
    }
}
