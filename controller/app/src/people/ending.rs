//! Tells those who serve a login over a long time that it ended.

use fleetward_protocol::id::{SessionId, UserId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

/// Endings that a listener may have yet to hear; beyond it, it is told that it may have missed its own.
const BACKLOG: usize = 256;

/// Where endings are announced. What it says is committed.
#[derive(Debug)]
pub struct Endings(Sender<Ending>);

/// Which logins ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// This one.
    Session(SessionId),
    /// All of a user's but one.
    AllBut(UserId, Option<SessionId>),
}

/// What a listener heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginEnd {
    /// The login ended.
    Ended,
    /// It may have: the store has to be asked.
    Perhaps,
}

/// Listens for the end of one login.
#[derive(Debug)]
pub struct EndingWatch {
    endings: Receiver<Ending>,
    session: SessionId,
    user: UserId,
}

impl Endings {
    pub(crate) fn new() -> Self {
        Self(channel(BACKLOG).0)
    }

    /// Listens for the end of this login, from now on.
    #[must_use]
    pub fn watch(&self, session: SessionId, user: UserId) -> EndingWatch {
        EndingWatch { endings: self.0.subscribe(), session, user }
    }

    /// Logins ended; their ends are committed.
    pub fn announce(&self, ending: Ending) {
        // Nobody may listen.
        let _ = self.0.send(ending);
    }
}

impl EndingWatch {
    /// Returns when the login has ended, or may have.
    pub async fn heard(&mut self) -> LoginEnd {
        loop {
            match self.endings.recv().await {
                Ok(Ending::Session(session)) if session == self.session => return LoginEnd::Ended,
                Ok(Ending::AllBut(user, kept)) if user == self.user && kept != Some(self.session) => {
                    return LoginEnd::Ended;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_) | RecvError::Closed) => return LoginEnd::Perhaps,
            }
        }
    }
}
