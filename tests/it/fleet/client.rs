//! The API as a client sees it.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

/// No wait of a test is longer.
const PATIENCE: Duration = Duration::from_secs(100);

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// An answer with a status of 400 or above.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Refused {
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// An operation that has ended, and its runs in the order of their hosts.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) operation: Value,
    pub(crate) runs: Vec<Value>,
}

impl Ended {
    pub(crate) fn status(&self) -> &str {
        self.operation["status"].as_str().unwrap_or_default()
    }

    pub(crate) fn states(&self) -> Vec<&str> {
        self.runs.iter().filter_map(|run| run["state"].as_str()).collect()
    }
}

impl Client {
    pub(crate) fn new(http: SocketAddr) -> Self {
        Self { http: reqwest::Client::new(), base: format!("http://{http}/api/v1"), token: None }
    }

    pub(crate) async fn login(&mut self, user: &str, password: &str) {
        let body = json!({ "username": user, "password": password });
        let answer = self.post("/auth/login", &body).await.expect("the login is good");
        self.token = Some(answer["token"].as_str().expect("a token").to_owned());
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Refused> {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Refused> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value, Refused> {
        self.call(Method::PUT, path, Some(body)).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Refused> {
        let answer = self.send(method, path, body, None).await;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.expect("a whole answer");
        let value =
            if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
        if status < 400 { Ok(value) } else { Err(Refused { status, body: value }) }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        last_event: Option<&str>,
    ) -> Response {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(id) = last_event {
            request = request.header("Last-Event-ID", id);
        }
        timeout(PATIENCE, request.send()).await.expect("an answer in time").expect("an answer")
    }

    /// Starts an operation; returns its id.
    pub(crate) async fn start(&self, script: &str, on: &str, arguments: &[&str]) -> String {
        let body = json!({ "scripts": [{ "name": script, "arguments": arguments }], "on": on });
        self.start_as(&body).await
    }

    pub(crate) async fn start_as(&self, body: &Value) -> String {
        let operation = self.post("/operations", body).await.expect("the operation is taken");
        operation["id"].as_str().expect("an id").to_owned()
    }

    /// Runs a script and waits for the operation's end.
    pub(crate) async fn run(&self, script: &str, on: &str, arguments: &[&str]) -> Ended {
        let operation = self.start(script, on, arguments).await;
        self.ended(&operation).await
    }

    /// Waits for an operation's end, by its events.
    pub(crate) async fn ended(&self, operation: &str) -> Ended {
        self.events(operation, None).await.until(|name, _| name == "end").await;
        let runs = self.get(&format!("/operations/{operation}/runs?limit=1000")).await.expect("its runs");
        let operation = self.get(&format!("/operations/{operation}")).await.expect("the operation");
        Ended { operation, runs: runs["items"].as_array().expect("a list").clone() }
    }

    /// Waits until a run of the operation is as wanted; returns it.
    pub(crate) async fn until_run(&self, operation: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.events(operation, None).await.until(|name, data| name == "run" && wanted(data)).await
    }

    /// Waits until a host is as wanted, by the fleet's events.
    pub(crate) async fn until_host(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut events = self.open("/events", None).await;
        let host = self.get(&format!("/hosts/{name}")).await.expect("the host");
        if wanted(&host) {
            return host;
        }
        events.until(|kind, data| kind == "host" && data["name"] == name && wanted(data)).await
    }

    /// An operation's events, after `last_event`.
    pub(crate) async fn events(&self, operation: &str, last_event: Option<&str>) -> Events {
        self.open(&format!("/operations/{operation}/events"), last_event).await
    }

    /// What hosts answer to a query.
    pub(crate) async fn ask(&self, query: &Value) -> Events {
        let answer = self.send(Method::POST, "/queries", Some(query), None).await;
        assert_eq!(answer.status(), 200, "{query}");
        Events { answer, buffer: Vec::new(), last_id: None }
    }

    async fn open(&self, path: &str, last_event: Option<&str>) -> Events {
        let answer = self.send(Method::GET, path, None, last_event).await;
        assert_eq!(answer.status(), 200, "{path}");
        Events { answer, buffer: Vec::new(), last_id: None }
    }

    /// The whole output of a run, as it is downloaded.
    pub(crate) async fn output(&self, run: &Value, stream: Option<&str>) -> Vec<u8> {
        let id = run["id"].as_str().expect("an id");
        let query = stream.map(|stream| format!("?stream={stream}")).unwrap_or_default();
        let answer = self.send(Method::GET, &format!("/runs/{id}/output{query}"), None, None).await;
        assert_eq!(answer.status(), 200);
        answer.bytes().await.expect("the whole output").to_vec()
    }
}

/// A stream of server-sent events.
pub(crate) struct Events {
    answer: Response,
    buffer: Vec<u8>,
    pub(crate) last_id: Option<String>,
}

impl Events {
    /// The next event's name and data; `None` when the stream ends.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = self.parse(&String::from_utf8(block).expect("UTF-8")) {
                    return Some(event);
                }
                continue;
            }
            let chunk =
                timeout(PATIENCE, self.answer.chunk()).await.expect("an event in time").ok().flatten()?;
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// Reads until an event is as wanted; returns its data.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&str, &Value) -> bool) -> Value {
        let search = async {
            loop {
                let (name, data) = self.next().await.expect("the event comes before the stream ends");
                if wanted(&name, &data) {
                    return data;
                }
            }
        };
        timeout(PATIENCE, search).await.expect("the event comes in time")
    }

    fn parse(&mut self, block: &str) -> Option<(String, Value)> {
        let mut name = String::from("message");
        let mut data = String::new();
        for line in block.lines() {
            match line.split_once(':') {
                Some(("event", value)) => name = value.trim().to_owned(),
                Some(("data", value)) => data.push_str(value.trim()),
                Some(("id", value)) => self.last_id = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let data = if data.is_empty() { Value::Null } else { serde_json::from_str(&data).ok()? };
        (name != "message").then_some((name, data))
    }
}
