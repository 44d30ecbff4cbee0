//! Why a text of JSON is not what it should be, for whoever wrote what is in it.

/// The error without the line and column at which it was found: people write parameters, and programs the JSON that carries them.
#[must_use]
pub fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_place_is_told() {
        for text in ["{\"a\": 1, \"b\": }", "", "[1]", "{\"port\": \"x at line 1 column 2\"}"] {
            let error = serde_json::from_str::<std::collections::BTreeMap<String, u16>>(text).unwrap_err();
            let words = super::words(&error);
            assert!(!words.ends_with(&format!("column {}", error.column())), "{words}");
            assert!(error.to_string().starts_with(&words) && !words.is_empty(), "{words}");
        }
    }
}
