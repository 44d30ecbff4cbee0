//! How parameters are written on a command line, and what is meant by words that have no name.

use std::collections::HashSet;

use fleetward_api::work::kind::schema::{Field, Shape};

/// The words with names put before those that have none, where it can be told what they are for: a word of a choice is for
/// that choice, another one for the first parameter that takes any text.
pub(crate) fn meant(fields: &[Field], words: &[String]) -> Option<Vec<String>> {
    let named = |word: &String| word.split_once('=').map(|(name, _)| name.trim_end_matches(':').to_owned());
    let mut taken: HashSet<String> = words.iter().filter_map(named).collect();
    let name = |word: &String| {
        if word.contains('=') {
            return Some(word.clone());
        }
        let free = || fields.iter().filter(|field| !taken.contains(&field.name));
        let is_choice = |field: &&Field| match &field.shape {
            Shape::Choice(choices) => choices.contains(word),
            Shape::List(each) => matches!(&**each, Shape::Choice(choices) if choices.contains(word)),
            _ => false,
        };
        let field = free().find(is_choice).or_else(|| free().find(|field| field.shape == Shape::Text))?;
        if field.shape == Shape::Text || matches!(field.shape, Shape::Choice(_)) {
            taken.insert(field.name.clone());
        }
        Some(format!("{}={word}", field.name))
    };
    words.iter().map(name).collect()
}

/// How the parameters are written: what has to be given, and what may be.
pub(crate) fn usage(fields: &[Field]) -> String {
    let words = fields.iter().map(|field| {
        let value = field.shape.placeholder();
        let word = match &field.shape {
            shape if shape.takes_json() => format!("{}:={value}", field.name),
            Shape::Map(_) => format!("{}.NAME={value}", field.name),
            _ => format!("{}={value}", field.name),
        };
        let is_repeated = matches!(field.shape, Shape::List(_) | Shape::Map(_)) && !field.shape.takes_json();
        let more = if is_repeated { "…" } else { "" };
        if field.required { format!("{word}{more}") } else { format!("[{word}]{more}") }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use fleetward_api::testing::of_everything;
    use fleetward_api::work::kind::schema::fields;

    use super::*;

    #[test]
    fn words_without_names_are_given_those_that_were_meant() {
        let named = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            meant(&fields(&of_everything()), &words).map(|words| words.join(" "))
        };
        assert_eq!(named(&["nginx", "slow"]).as_deref(), Some("what=nginx mode=slow"));
        assert_eq!(named(&["slow", "on=true", "x"]).as_deref(), Some("mode=slow on=true what=x"));
        assert_eq!(named(&["down", "up"]).as_deref(), Some("ways=down ways=up"));
        assert_eq!(named(&["what=a", "z"]), None);
    }

    #[test]
    fn the_usage_line_is_made_from_the_schema() {
        assert_eq!(
            usage(&fields(&of_everything())),
            "what=TEXT mode=fast|slow [at=TIME] [count=NUMBER] [deep:=JSON] [kind=a|b] [labels.NAME=TEXT]… \
             [maybe=fast|slow] [names=TEXT]… [on=true|false] [share=NUMBER] [stairs:=JSON] [tree:=JSON] [ways=TEXT]…"
        );
    }
}
