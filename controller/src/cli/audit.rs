//! `audit`: works on the audit log.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use fleetward_app::people::audit::{self, Whole};
use fleetward_store::Store;
use fleetward_store::people::audit::{Checkpoint, Event, Verifier, get_extent, list_chain};
use serde::{Deserialize, Serialize};

use super::{Settings, block_on, print};

/// Events that are read together.
const STRETCH: u32 = 1000;

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that no event was changed or taken out.
    Verify {
        /// Check this export instead of the database
        #[arg(long, value_name = "EXPORT")]
        file: Option<PathBuf>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print all events, one JSON object per line, for `audit verify --file` elsewhere.
    Export(Settings),
}

/// The first line of an export: what its events follow.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    checkpoint: Checkpoint,
}

impl Audit {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Verify { file: Some(file), .. } => tell(verify_export(&file)?),
            Command::Verify { file: None, settings } => {
                let config = settings.load()?;
                let whole = block_on(async {
                    let store = Store::open_existing(&config.database).await?;
                    let mut conn = store.read().await?;
                    anyhow::Ok(audit::verify(&mut conn).await?)
                })??;
                tell(whole);
            }
            Command::Export(settings) => {
                let config = settings.load()?;
                block_on(export(&config.database))??;
            }
        }
        Ok(())
    }
}

fn tell(whole: Whole) {
    let Whole { events, removed } = whole;
    let before = match removed {
        0 => String::new(),
        removed => format!(
            " The {removed} before them were removed by the settings in `[retention]`, as the chain says."
        ),
    };
    print(&format!("The chain of {events} audit events is whole.{before}\n"));
}

async fn export(database: &str) -> anyhow::Result<()> {
    let store = Store::open_existing(database).await?;
    let mut conn = store.read().await?;
    let checkpoint = get_extent(&mut conn).await?.checkpoint;
    let mut out = BufWriter::new(std::io::stdout().lock());
    writeln!(out, "{}", serde_json::to_string(&Head { checkpoint })?)?;
    let mut next = checkpoint.number + 1;
    loop {
        let events = list_chain(&mut conn, next, STRETCH).await?;
        let Some(last) = events.last() else { break };
        // The oldest may be removed while they are read.
        anyhow::ensure!(
            events.first().is_some_and(|event| event.number == next),
            "events were removed meanwhile; export again"
        );
        next = last.number + 1;
        for event in &events {
            writeln!(out, "{}", serde_json::to_string(event)?)?;
        }
    }
    Ok(out.flush()?)
}

fn verify_export(path: &Path) -> anyhow::Result<Whole> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut lines = BufReader::new(file).lines();
    let head = lines.next().context("the export is empty")??;
    let Head { checkpoint } = serde_json::from_str(&head).context("line 1 is not the head of an export")?;
    let mut verifier = Verifier::new(checkpoint);
    for (line, number) in lines.zip(2u64..) {
        let event: Event =
            serde_json::from_str(&line?).with_context(|| format!("line {number} is not an audit event"))?;
        verifier.take(&[event])?;
    }
    Ok(Whole { events: verifier.finish()?, removed: checkpoint.number })
}
