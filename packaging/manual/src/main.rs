//! Writes the manual pages that the packages hold: one for each program and one for each of its commands.
//!
//! Everything in them comes from the definitions of the command lines, so that `man` says what `--help` says; only the
//! files of a program stand in a list of their own ([`program`]). `cargo xtask package` runs this.

mod notes;
mod page;
mod program;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

/// Write the manual pages
#[derive(Debug, Parser)]
#[command(name = "fleetward-manual")]
struct Arguments {
    /// The day that the pages bear
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: String,
    /// Where they are written: a directory that this program may empty
    #[arg(value_name = "DIR")]
    into: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { date, into } = Arguments::parse();
    if into.exists() {
        // A page of a command that is no longer there must not be packed.
        let entries = fs::read_dir(&into).with_context(|| format!("read {}", into.display()))?;
        for entry in entries {
            let path = entry?.path();
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    fs::create_dir_all(&into).with_context(|| format!("make {}", into.display()))?;
    for program in program::all() {
        let pages = page::pages(&program, &date)?;
        ensure!(!pages.is_empty(), "{} has no page", program.definition.get_name());
        for page in pages {
            let path = into.join(&page.file);
            fs::write(&path, page.text).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}
