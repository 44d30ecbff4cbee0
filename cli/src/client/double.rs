//! A small server for tests, which answers as the test says.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

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
    /// Writes the first text, waits until so many requests have come on all connections, writes the second one and hangs up.
    Await(String, usize, String),
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

/// The same, with all connections at once, in the order in which they are made.
pub(crate) async fn serve_at_once(connections: Vec<Vec<Step>>) -> (Address, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let (told, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let count = watch::Sender::new(0);
        for steps in connections {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(play_counted(stream, steps, told.clone(), count.clone()));
        }
    });
    (address, requests)
}

/// Plays one connection's steps.
pub(super) async fn play(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    steps: Vec<Step>,
    told: mpsc::UnboundedSender<String>,
) {
    play_counted(stream, steps, told, watch::Sender::new(0)).await;
}

async fn play_counted(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    steps: Vec<Step>,
    told: mpsc::UnboundedSender<String>,
    count: watch::Sender<usize>,
) {
    for step in steps {
        let mut request = Vec::new();
        while !is_whole(&request) {
            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
        }
        told.send(String::from_utf8(request).unwrap()).unwrap();
        count.send_modify(|count| *count += 1);
        match step {
            Step::Answer(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Step::Break(text) => return stream.write_all(text.as_bytes()).await.unwrap(),
            Step::Endless(head, more) => {
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(more.as_bytes()).await.is_ok() {}
                return;
            }
            Step::Await(first, requests, then) => {
                let _ = stream.write_all(first.as_bytes()).await;
                count.subscribe().wait_for(|count| *count >= requests).await.unwrap();
                let _ = stream.write_all(then.as_bytes()).await;
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

/// A request of the test's own, for which a [`Step::Await`] waits; nothing is made of its answer.
pub(crate) async fn open_gate(address: &Address) {
    let at = address.to_string();
    let mut stream =
        TcpStream::connect(at.trim_start_matches("http://").trim_end_matches('/')).await.unwrap();
    stream.write_all(b"GET /gate HTTP/1.1\r\n\r\n").await.unwrap();
    let _ = stream.read(&mut [0; 64]).await;
}

/// Sends this process what Ctrl-C at a terminal sends; somebody in it must listen already.
pub(crate) fn press_ctrl_c() {
    let kill = format!("kill -INT {}", std::process::id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// A header of a request.
pub(crate) fn header(request: &str, name: &str) -> Option<String> {
    request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
}
