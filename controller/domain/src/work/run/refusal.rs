//! A host's refusal in words.

use fleetward_protocol::run::Refusal;

/// Why a host would not start a run or answer a query, and what to do.
#[must_use]
pub fn detail(refusal: &Refusal) -> String {
    match refusal {
        Refusal::ClientIdMissing => {
            "the host's /etc/fleetward/client_id is missing; enrol it again".to_owned()
        }
        Refusal::ClientIdMismatch { found } => {
            format!(
                "the host's /etc/fleetward/client_id holds `{found}`, which is not its client ID; enrol it again"
            )
        }
        Refusal::Unsupported { kind } => {
            format!("the host's agent does not know the kind `{kind}`; update the agent")
        }
        Refusal::Malformed { detail } => format!("the host could not read the order: {detail}"),
        Refusal::DigestMismatch => "what arrived with the order is not what the order names".to_owned(),
        Refusal::NotAllowed { rule } => {
            format!("the host's own policy does not allow it: {rule}")
        }
        Refusal::NoSuchUser { user } => {
            format!("the host has no user `{user}`, or its agent may not become it")
        }
        Refusal::NoSuchDirectory { path } => format!("the directory `{path}` is not there on the host"),
        Refusal::NotBash => "the script's first line does not name bash".to_owned(),
        Refusal::DeadlinePassed => "the deadline passed before it could start".to_owned(),
        Refusal::DiskFull => "the host has less free space than `runs.min_free_mib` in its agent.toml asks for; free some there, or lower it".to_owned(),
        Refusal::SpawnFailed { detail } => format!("the process could not be started: {detail}"),
        Refusal::CancelledBeforeStart => "cancelled before it started".to_owned(),
        Refusal::NotYet => "the host was asked before the time from which it may start".to_owned(),
        Refusal::NotARun => "the order asks for something else than a run; update the agent".to_owned(),
        Refusal::NotOrdered { detail } => format!("the controller could not make the order: {detail}"),
        Refusal::Busy { detail } => format!("the host has too much to do: {detail}; ask again later"),
    }
}
