//! `openapi`: prints the document of the API.

use super::print;

pub(crate) fn run() -> anyhow::Result<()> {
    print(include_str!("../../openapi.json"));
    Ok(())
}
