//! The process that carries out a query: `fleetward-agent look`.
//!
//! What it is asked comes in one frame on standard input, what it sees goes in frames to standard output. It ends when it
//! has told all, when nobody listens, and when its input ends: that of whoever started it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

use fleetward_protocol::query::{Contract, Query};
use fleetward_protocol::wire::{self, MAX_QUERY_FRAME};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::{Receiver, Sender};

use super::teller::{Stop, Teller};
use super::{Agent, Asked};
use crate::config::Allowed;
use crate::platform::files;

/// The first argument that makes the agent's executable look at what its input asks for.
pub const LOOK: &str = "look";

/// How a kind of query is carried out.
pub(super) trait Look: Contract {
    /// Tells all that there is; if it is to follow, that this was all, and then what changes.
    async fn look(&self, follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop>;
}

/// Answers the query that standard input holds.
#[must_use]
pub fn look() -> ExitCode {
    files::ensure_private_umask();
    let done = prepare().and_then(|(asked, input)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let done = runtime.block_on(answer(asked, input));
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody listens any more, nobody is told.
            drop(writeln!(
                io::stderr(),
                "fleetward-agent: look: {error}; this command is for the agent alone"
            ));
            ExitCode::FAILURE
        }
    }
}

/// What is asked; as whoever looks, from here on.
fn prepare() -> io::Result<(Asked, OwnedFd)> {
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut prefix = [0; 4];
    input.read_exact(&mut prefix)?;
    let mut body = vec![0; wire::frame_length(prefix, MAX_QUERY_FRAME).map_err(io::Error::other)?];
    input.read_exact(&mut body)?;
    let asked: Asked = wire::decode(&body, MAX_QUERY_FRAME).map_err(io::Error::other)?;
    if let Some(identity) = &asked.identity {
        identity.ensure_taken()?;
    }
    Ok((asked, input.into()))
}

async fn answer(asked: Asked, input: OwnedFd) -> io::Result<()> {
    let input = Receiver::from_owned_fd(input)?;
    let out = Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    let Asked { request, follow, allowed, identity: _, agent } = asked;
    let query = Query::parse(&request).map_err(io::Error::other)?;
    tokio::select! {
        () = super::carry_out(&query, follow, Voice { out, allowed, agent }) => {}
        () = ended(input) => {}
    }
    Ok(())
}

/// Where it is told, what the owner allows to be told, and for which agent.
pub(super) struct Voice {
    out: Sender,
    allowed: Allowed,
    agent: Agent,
}

/// Looks, and tells how it went.
pub(super) async fn conclude<C: Look>(query: &C, follow: bool, Voice { out, allowed, agent }: Voice) {
    let mut teller = Teller::new(out, allowed).of(agent);
    let mut how = query.look(follow, &mut teller).await;
    if how.is_ok() && !follow {
        how = teller.complete().await;
    }
    teller.end(how).await;
}

/// Waits for the end of the input, whatever comes before it.
async fn ended(mut input: Receiver) {
    let mut rest = [0; 64];
    while input.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}
