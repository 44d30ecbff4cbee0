//! How an operation is named.

use std::str::FromStr;

use fleetward_protocol::id::OperationId;

/// How an operation is named on the command line: `OP-17`, `17`, or its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperationName(String);

impl OperationName {
    /// As the API takes it in a path.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OperationName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(id) = text.parse::<OperationId>() {
            return Ok(Self(id.to_string()));
        }
        let upper = text.to_ascii_uppercase();
        let digits = upper.strip_prefix("OP-").unwrap_or(&upper);
        match digits.parse::<u64>() {
            Ok(number) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Self(format!("OP-{number}")))
            }
            _ => Err("an operation is named by its number, such as OP-17, or by its id"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_named_as_people_say_them() {
        for (text, expected) in [
            ("OP-17", "OP-17"),
            ("op-17", "OP-17"),
            ("17", "OP-17"),
            ("01890000-0000-7000-8000-00000000000A", "01890000-0000-7000-8000-00000000000a"),
        ] {
            assert_eq!(text.parse::<OperationName>().unwrap().as_str(), expected);
        }
        for text in ["", "OP-", "OP-1/2", "+17", "OP-99999999999999999999", "latest"] {
            assert!(text.parse::<OperationName>().is_err(), "{text}");
        }
    }
}
