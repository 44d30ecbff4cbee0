//! A small server for tests, which answers as the test says.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::address::Address;

/// What one connection does, request by request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Answers with this text.
    Answer(String),
    /// Writes this text and hangs up.
    Break(String),
    /// Writes the first text and then the second one again and again, until the client hangs up.
    Endless(String, String),
    /// Reads the request and hangs up.
    HangUp,
}

/// An answer with a JSON body.
pub(crate) fn answer(status: &str, body: &str) -> Step {
    Step::Answer(format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// Serves connections one after another, each with its own steps; tells every request it reads.
pub(crate) async fn serve(connections: Vec<Vec<Step>>) -> (Address, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let (told, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for steps in connections {
            let (stream, _) = listener.accept().await.unwrap();
            play(stream, steps, told.clone()).await;
        }
    });
    (address, requests)
}

/// Plays one connection's steps.
pub(super) async fn play(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    steps: Vec<Step>,
    told: mpsc::UnboundedSender<String>,
) {
    for step in steps {
        let mut request = Vec::new();
        while !is_whole(&request) {
            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
        }
        told.send(String::from_utf8(request).unwrap()).unwrap();
        match step {
            Step::Answer(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Step::Break(text) => return stream.write_all(text.as_bytes()).await.unwrap(),
            Step::Endless(head, more) => {
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(more.as_bytes()).await.is_ok() {}
                return;
            }
            Step::HangUp => return,
        }
    }
    // Reads until the client hangs up, so that an answer is never cut by a reset.
    let _ = stream.read(&mut [0; 64]).await;
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

/// A header of a request.
pub(crate) fn header(request: &str, name: &str) -> Option<String> {
    request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
}
