//! One query's stream: the order comes down, the answer goes up as fast as it is taken.

use fleetward_protocol::message::{OpenQuery, QueryUp};
use fleetward_protocol::wire::MAX_QUERY_FRAME;

use super::frame::FrameError;
use super::stream::Stream;
use crate::query::Queries;

/// Serves a query's stream after its first frame, to its end: that of the answer, or of the controller's direction.
pub(super) async fn serve(stream: &mut Stream, queries: &Queries) -> Result<(), FrameError> {
    stream.reader.limit(MAX_QUERY_FRAME);
    stream.writer.limit(MAX_QUERY_FRAME);
    let Some(open) = stream.reader.next::<OpenQuery>(&mut stream.receive).await? else { return Ok(()) };
    let mut answer = match queries.open(&open).await {
        Ok(answer) => answer,
        Err(refusal) => {
            tracing::info!(?refusal, "query_refused");
            stream.writer.push(&QueryUp::Refused(refusal))?;
            return stream.finish().await;
        }
    };
    drop(open);
    loop {
        tokio::select! {
            biased;
            message = stream.reader.next::<OpenQuery>(&mut stream.receive) => match message? {
                // Nobody listens any more. What looks for it ends with the answer.
                None => return Ok(()),
                Some(_) => return stream.broken("a query's stream has one message down"),
            },
            written = stream.writer.write(&mut stream.send), if !stream.writer.is_empty() => written?,
            // Nothing is taken from the process while there is something to send: a slow reader slows it down.
            said = answer.next(), if stream.writer.is_empty() => match said {
                Some(said) => stream.writer.push(&said)?,
                None => return stream.finish().await,
            },
        }
    }
}
