//! A site as a person keeps it: a file in YAML, or in JSON, which is YAML, too.

use std::path::Path;

use fleetward_domain::fleet::inventory;
use fleetward_protocol::action::site::{Site, SiteVerb};

use crate::failure::Failure;
use crate::input;

/// The largest file, in bytes.
const MAX_FILE: usize = 1 << 20;

/// The site that a file describes.
///
/// # Errors
/// If it cannot be read, or describes none.
pub(super) fn read(path: &Path) -> Result<Site, Failure> {
    let content = input::read(path, MAX_FILE)?;
    parse(&input::name(path), &content).map_err(Failure::Usage)
}

fn parse(file: &str, content: &[u8]) -> Result<Site, String> {
    let value = inventory::read_yaml(file, content).map_err(|problems| {
        problems.first().map_or_else(|| format!("{file} is no YAML"), ToString::to_string)
    })?;
    let site: Site =
        serde_json::from_value(value).map_err(|error| format!("{file} describes no site: {error}"))?;
    match site.verb {
        SiteVerb::Ensure => Ok(site),
        verb => Err(format!(
            "{file} says `verb: {verb}`; a file describes a site, and commands say what is done with it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the document shows is a site.
    #[test]
    fn the_documents_example_is_a_site() {
        use fleetward_protocol::action::Contract as _;

        let document = include_str!("../../../docs/sites.md");
        let (_, example) = document.split_once("```yaml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let site = parse("shop.yaml", example.as_bytes()).unwrap();
        assert_eq!((site.validate(), site.locations.len()), (Ok(()), 5));
    }

    #[test]
    fn a_file_is_a_site() {
        let text = "\
name: shop
server_names: [shop.example.com, '*.shop.example.com']
access_log: off
locations:
  - path: /
    proxy:
      upstreams: [{ server: 127.0.0.1:3000, weight: 2 }]
      buffering: no
";
        let error = parse("shop.yaml", text.as_bytes()).unwrap_err();
        assert!(error.contains("shop.yaml describes no site") && error.contains("boolean"), "{error}");
        let site = parse("shop.yaml", text.replace("no\n", "false\n").as_bytes()).unwrap();
        assert_eq!(site.access_log.unwrap().as_str(), "off", "which is no boolean in YAML 1.2");
        assert_eq!(site.locations[0].proxy.as_ref().unwrap().upstreams[0].weight, Some(2));
        let json = br#"{"name":"a","server_names":["b"],"locations":[{"path":"/","deny":true}]}"#;
        assert!(parse("a.json", json).is_ok());
        for (text, told) in [
            ("", "a.yaml:1:1: is empty"),
            ("name: [", "a.yaml:"),
            ("name: a\nname: b\n", "a.yaml:2"),
            ("name: a\ncolour: red\n", "unknown field `colour`"),
            ("name: ../a\n", "only lower-case letters"),
            ("name: a\nverb: remove\n", "commands say what is done"),
        ] {
            let error = parse("a.yaml", text.as_bytes()).unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }
}
