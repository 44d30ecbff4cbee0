//! Who is logged in, as systemd-logind has it (org.freedesktop.login1(5)).

use std::collections::HashMap;

use fleetward_protocol::query::logins::{LoginItem, Part};
use fleetward_protocol::text::Text;
use tokio::task::JoinSet;
use zbus::{Connection, OwnedObjectPath, OwnedVariant};

use super::reboot::{LOGIN, LOGIN_MANAGER, LOGIN_PATH, is_nobody};
use super::units::{AT_ONCE, Units};
use super::{PROPERTIES, SystemdError, body, microseconds, patiently};

const SESSION: &str = "org.freedesktop.login1.Session";
/// The most sessions that are asked about.
const MAX_SESSIONS: usize = 4096;

type Row = (String, u32, String, String, OwnedObjectPath);

impl Units {
    /// The sessions of those who are logged in; `None` where there is no logind.
    ///
    /// # Errors
    /// If it does not tell.
    pub async fn read_sessions(&self) -> Result<Option<Vec<LoginItem>>, SystemdError> {
        let connection = self.connection();
        let listed =
            connection.call_method(Some(LOGIN), LOGIN_PATH, Some(LOGIN_MANAGER), "ListSessions", &());
        let rows: Vec<Row> = match patiently(listed).await {
            Err(error) if is_nobody(&error) => return Ok(None),
            listed => body(&listed?)?,
        };
        let mut rows = rows.into_iter().take(MAX_SESSIONS);
        let (mut asked, mut sessions) = (JoinSet::new(), Vec::new());
        loop {
            while asked.len() < AT_ONCE
                && let Some(row) = rows.next()
            {
                let connection = connection.clone();
                asked.spawn(async move { read_session(&connection, row).await });
            }
            match asked.join_next().await {
                None => return Ok(Some(sessions)),
                // A task that fell down has fallen with the runtime.
                Some(session) => {
                    sessions.extend(session.map_err(|error| SystemdError::Runtime(error.into()))??);
                }
            }
        }
    }
}

/// What a session is; `None` if it has ended meanwhile, or is none of a user: logind has one for whoever shows the prompt, and
/// one for each user's own services.
async fn read_session(
    connection: &Connection,
    (id, uid, user, seat, path): Row,
) -> Result<Option<LoginItem>, SystemdError> {
    let asked = connection.call_method(Some(LOGIN), path.as_str(), Some(PROPERTIES), "GetAll", &(SESSION,));
    let properties: HashMap<String, OwnedVariant> = match patiently(asked).await {
        Err(SystemdError::Refused { .. }) => return Ok(None),
        properties => body(&properties?)?,
    };
    let value = |name: &str| properties.get(name).and_then(|value| value.try_clone().ok());
    let text = |name| {
        let text = value(name).and_then(|value| String::try_from(value).ok());
        text.filter(|text| !text.is_empty()).map(Text::of)
    };
    let class = value("Class").and_then(|value| String::try_from(value).ok()).unwrap_or_default();
    if class.starts_with("manager") || class == "greeter" || class == "background" {
        return Ok(None);
    }
    let since = value("Timestamp").and_then(|value| u64::try_from(value).ok());
    Ok(Some(LoginItem {
        uid: Some(uid),
        since: since.filter(|at| *at > 0).map(microseconds),
        from: text("RemoteHost"),
        terminal: text("TTY").or_else(|| (!seat.is_empty()).then(|| Text::of(&seat))),
        session: Some(Text::of(&id)),
        service: text("Service"),
        state: text("State"),
        pid: value("Leader").and_then(|value| u32::try_from(value).ok()).filter(|pid| *pid > 0),
        ..LoginItem::new(Part::Session, &user)
    }))
}
