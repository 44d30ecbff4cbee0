//! Speaks HTTP/1.1 to one controller.
//!
//! **What it promises.** One connection is kept and used again; a second one is made only while the first carries
//! a stream. A write is sent with an `Idempotency-Key` and repeated with the same key when the connection breaks,
//! so it takes effect once. An answer that is an error becomes a [`Failure`] with the controller's own words.
//!
//! **Deliberately absent.** Redirects, proxies, cookies, compression: the controller is talked to directly.

pub(crate) mod address;
mod connection;
pub(crate) mod sse;
pub(crate) mod trust;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fleetward_api::error::{ErrorBody, code};
use fleetward_api::page::{MAX_LIMIT, Page};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response};
use rand::Rng as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use uuid::Uuid;

use self::address::{Address, Scheme};
use self::connection::Connection;
use self::trust::{Tls, Trust};
use crate::failure::Failure;

/// How long an answer may take to begin and to end.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long a synchronisation of a repository may take.
const SLOW_ANSWER_WITHIN: Duration = Duration::from_secs(600);
/// The longest answer that is read whole, in bytes. A page of a list is far below.
const MAX_ANSWER: usize = 64 << 20;
/// How many seconds a download may bring nothing.
const SILENCE_S: u32 = 60;
/// How often a request is made before the controller counts as unreachable.
const ATTEMPTS: u32 = 3;
/// How long to wait before the second attempt; tripled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(150);

/// A client of one controller. Clones share the connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: Address,
    tls: Option<Tls>,
    token: Option<String>,
    /// The connection that carries nothing at the moment.
    idle: Arc<Mutex<Option<Connection>>>,
}

/// What a request is allowed to do when its connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It is made again; writes carry an idempotency key.
    Safely,
    /// It is made again, and also when the controller cannot do it now or does not know whether it has: the request
    /// names what it makes, so that the same request makes the same thing. It has no key: the controller answers one
    /// that it knows no answer to with a refusal.
    ByName,
    /// It is not: the other side does not take a key.
    Never,
}

/// How patient a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As long as a database takes.
    Usual,
    /// As long as a git fetch takes.
    Long,
}

impl Client {
    /// A client that will connect to `address` when first used.
    ///
    /// # Errors
    /// If there is nothing to verify the controller's certificate with.
    pub(crate) fn new(address: Address, trust: Trust, token: Option<String>) -> Result<Self, Failure> {
        let tls = match address.scheme() {
            Scheme::Http => None,
            Scheme::Https => Some(Tls::new(trust).map_err(|error| {
                let what = "cannot prepare TLS; give the controller's CA with --ca-cert";
                Failure::Other(anyhow::Error::new(error).context(what))
            })?),
        };
        Ok(Self { address, tls, token, idle: Arc::default() })
    }

    /// Where the controller is.
    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// The same client with a token.
    pub(crate) fn with_token(mut self, token: String) -> Self {
        self.token = Some(token);
        self
    }

    /// Reads `path`, which begins after `/api/v1/`.
    pub(crate) async fn get(&self, path: &str) -> Result<Bytes, Failure> {
        self.exchange(&Method::GET, path, None, Repeat::Safely, Patience::Usual).await
    }

    /// Sends `body` to `path`.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Bytes, Failure> {
        self.exchange(&method, path, Some(json(body)?), Repeat::Safely, Patience::Usual).await
    }

    /// Asks for something to be made whose id is in `body`.
    pub(crate) async fn make(&self, path: &str, body: &impl Serialize) -> Result<Bytes, Failure> {
        self.exchange(&Method::POST, path, Some(json(body)?), Repeat::ByName, Patience::Usual).await
    }

    /// Sends `body` to `path` once, whatever happens to the connection.
    pub(crate) async fn send_once(&self, path: &str, body: &impl Serialize) -> Result<Bytes, Failure> {
        self.exchange(&Method::POST, path, Some(json(body)?), Repeat::Never, Patience::Usual).await
    }

    /// As [`Self::send`], for what waits for another machine.
    pub(crate) async fn send_patiently(&self, path: &str, body: &impl Serialize) -> Result<Bytes, Failure> {
        self.exchange(&Method::POST, path, Some(json(body)?), Repeat::Safely, Patience::Long).await
    }

    /// Asks for `path` to be done, without a body.
    pub(crate) async fn act(&self, method: Method, path: &str, patience: Patience) -> Result<Bytes, Failure> {
        self.exchange(&method, path, None, Repeat::Safely, patience).await
    }

    /// Reads the pages of a list, one after another, and gives every item to `take` as the API wrote it; `most`
    /// items at most.
    ///
    /// # Errors
    /// If a page cannot be read, or `take` fails.
    pub(crate) async fn pages(
        &self,
        path: &str,
        query: &impl Serialize,
        most: Option<u32>,
        mut take: impl FnMut(&RawValue) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct PageOf<'a> {
            limit: u32,
            #[serde(skip_serializing_if = "Option::is_none")]
            cursor: Option<&'a str>,
        }
        let filtered = with_query(path, query)?;
        let separator = if filtered.contains('?') { '&' } else { '?' };
        let mut left = most.unwrap_or(u32::MAX);
        let mut cursor: Option<String> = None;
        while left > 0 {
            let page = PageOf { limit: left.min(MAX_LIMIT), cursor: cursor.as_deref() };
            let page = encode(&page)?;
            let bytes = self.get(&format!("{filtered}{separator}{page}")).await?;
            let page: Page<Box<RawValue>> = self.read(&bytes)?;
            for item in page.items.iter().take(left as usize) {
                take(item)?;
            }
            if page.items.is_empty() && page.next_cursor.is_some() {
                return Err(self.odd("its list has an empty page before its end".to_owned()));
            }
            left = left.saturating_sub(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
            match page.next_cursor {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => break,
            }
        }
        Ok(())
    }

    /// Opens a stream and returns it with its connection, which ends with it.
    ///
    /// # Errors
    /// If the controller cannot be reached or says no. Nothing is tried again.
    pub(crate) async fn open(&self, path: &str, last_event: Option<&str>) -> Result<Stream, Failure> {
        let mut request = self.request(&Method::GET, path, None, None)?;
        let accept =
            if last_event.is_some() || path.contains("/events") { "text/event-stream" } else { "*/*" };
        request.headers_mut().insert(ACCEPT, hyper::header::HeaderValue::from_static(accept));
        if let Some(id) = last_event.and_then(|id| id.parse().ok()) {
            request.headers_mut().insert("last-event-id", id);
        }
        self.stream(request).await
    }

    /// Sends `body` to `path` and returns the stream of events that answers it, as [`Self::open`].
    ///
    /// # Errors
    /// If the controller cannot be reached or says no. Nothing is tried again.
    pub(crate) async fn ask(&self, path: &str, body: &impl Serialize) -> Result<Stream, Failure> {
        let mut request = self.request(&Method::POST, path, Some(json(body)?), None)?;
        request.headers_mut().insert(ACCEPT, hyper::header::HeaderValue::from_static("text/event-stream"));
        self.stream(request).await
    }

    async fn stream(&self, request: Request<Full<Bytes>>) -> Result<Stream, Failure> {
        let (response, connection) = self.deliver(request, Patience::Usual).await?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let body = self.collect(response, Patience::Usual).await?;
            return Err(self.refusal(status, &body));
        }
        Ok(Stream { body: response.into_body(), _connection: connection })
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// If it is not what this version of the API answers.
    pub(crate) fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(bytes)
            .map_err(|error| self.odd(format!("its answer cannot be read ({error})")))
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        repeat: Repeat,
        patience: Patience,
    ) -> Result<Bytes, Failure> {
        let key = (*method != Method::GET && repeat == Repeat::Safely).then(Uuid::new_v4);
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let request = self.request(method, path, body.clone(), key)?;
            match self.answer(request, patience).await {
                Err(failure) if attempt < ATTEMPTS && may_pass(&failure, attempt, repeat) => {
                    tokio::time::sleep(jittered(pause)).await;
                    pause *= 3;
                }
                result => return result,
            }
        }
        Err(self.odd("it was never asked".to_owned()))
    }

    async fn answer(&self, request: Request<Full<Bytes>>, patience: Patience) -> Result<Bytes, Failure> {
        let (response, connection) = self.deliver(request, patience).await?;
        let status = response.status();
        let body = self.collect(response, patience).await?;
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        if status.is_success() { Ok(body) } else { Err(self.refusal(status.as_u16(), &body)) }
    }

    /// Sends a request on the idle connection, or on a new one where there is none or it has gone stale.
    async fn deliver(
        &self,
        request: Request<Full<Bytes>>,
        patience: Patience,
    ) -> Result<(Response<Incoming>, Connection), Failure> {
        let delivery = async {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
            let ready = match idle {
                Some(mut connection) => connection.is_ready().await.then_some(connection),
                None => None,
            };
            let mut connection = match ready {
                Some(connection) => connection,
                None => Connection::open(&self.address, self.tls.as_ref()).await?,
            };
            let response = connection.send(request).await.map_err(|error| self.unreachable(error))?;
            Ok((response, connection))
        };
        self.within(patience, delivery).await
    }

    async fn collect(&self, response: Response<Incoming>, patience: Patience) -> Result<Bytes, Failure> {
        let body = async {
            match Limited::new(response.into_body(), MAX_ANSWER).collect().await {
                Ok(collected) => Ok(collected.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => {
                    Err(self.odd(format!("its answer is longer than {} MiB", MAX_ANSWER >> 20)))
                }
                Err(error) => Err(self.unreachable(io::Error::other(error))),
            }
        };
        self.within(patience, body).await
    }

    async fn within<T>(
        &self,
        patience: Patience,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let limit = match patience {
            Patience::Usual => ANSWER_WITHIN,
            Patience::Long => SLOW_ANSWER_WITHIN,
        };
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => {
                let what = format!("no answer within {} s", limit.as_secs());
                Err(self.unreachable(io::Error::new(io::ErrorKind::TimedOut, what)))
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        key: Option<Uuid>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let target = if path.starts_with('/') { path.to_owned() } else { format!("/api/v1/{path}") };
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, self.address.authority())
            .header(USER_AGENT, concat!("fleetward/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key.to_string());
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| Failure::Usage(format!("cannot make the request: {error}")))
    }

    fn refusal(&self, status: u16, body: &[u8]) -> Failure {
        let Ok(body) = serde_json::from_slice::<ErrorBody>(body) else {
            return self.odd(format!("it answered with status {status}"));
        };
        if status == 401 && self.token.is_some() {
            return Failure::LoggedOut(format!(
                "the controller at {} no longer takes this login; run `fleetward login {}`, or correct FLEETWARD_TOKEN \
                 if that is set",
                self.address, self.address
            ));
        }
        Failure::Refused { status, body: Box::new(body) }
    }

    fn unreachable(&self, source: io::Error) -> Failure {
        Failure::Unreachable { url: self.address.to_string(), source }
    }

    fn odd(&self, problem: String) -> Failure {
        Failure::NotAController { url: self.address.to_string(), problem }
    }
}

/// A body that arrives bit by bit, and the connection it comes over.
#[derive(Debug)]
pub(crate) struct Stream {
    body: Incoming,
    _connection: Connection,
}

impl Stream {
    /// The next bytes; `None` at the end. Safe to drop and call again.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(bytes) => return Some(Ok(bytes)),
                    Err(_) => continue,
                },
                Err(error) => return Some(Err(io::Error::other(error))),
            }
        }
    }

    /// As [`Self::next`]; an error when nothing comes for a minute.
    pub(crate) async fn next_in_time(&mut self) -> Option<Result<Bytes, io::Error>> {
        // Counted second by second: time in which this process was stopped is nobody's silence.
        for _ in 0..SILENCE_S {
            if let Ok(next) = tokio::time::timeout(Duration::from_secs(1), self.next()).await {
                return next;
            }
        }
        let what = format!("nothing came for {SILENCE_S} s");
        Some(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }
}

/// Whether what failed may go well when it is sent again.
fn may_pass(failure: &Failure, attempt: u32, repeat: Repeat) -> bool {
    match (failure, repeat) {
        (_, Repeat::Never) => false,
        (Failure::Unreachable { .. }, _) => true,
        // The connection of the first sending broke, and the controller is still carrying it out.
        (Failure::Refused { body, .. }, Repeat::Safely) => {
            attempt > 1 && body.code == code::IDEMPOTENCY_KEY_IN_USE
        }
        (Failure::Refused { status, .. }, Repeat::ByName) => matches!(status, 503 | 504),
        _ => false,
    }
}

/// `pause`, shortened or lengthened by up to a quarter, so that many clients do not come back at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.75..1.25))
}

/// `path` with `query` behind it.
pub(crate) fn with_query(path: &str, query: &impl Serialize) -> Result<String, Failure> {
    let query = encode(query)?;
    Ok(if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") })
}

fn encode(query: &impl Serialize) -> Result<String, Failure> {
    serde_urlencoded::to_string(query)
        .map_err(|error| Failure::Other(anyhow::Error::new(error).context("cannot write the query")))
}

fn json(body: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| Failure::Other(anyhow::Error::new(error).context("cannot write the request")))
}

#[cfg(test)]
pub(crate) mod double;
#[cfg(test)]
mod tests;
