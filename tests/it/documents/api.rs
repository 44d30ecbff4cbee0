//! What the documents send to the API is a request that it has, of the shape that it takes.

use fleetward_api::work::operation::OperationCreate;
use fleetward_api::work::query::QueryCreate;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::line::{commands, page};
use crate::laws::{assert_none, files, root};

/// Options of curl that have a value.
const WITH_VALUE: [&str; 4] = ["--cacert", "--config", "--header", "--json"];

/// What the API has at a path: each part is the one that stands there, or has a name.
fn place<'a>(path: &str, paths: &'a Value) -> Option<&'a Value> {
    let is_it = |known: &str| {
        let parts = || path.split('/').zip(known.split('/'));
        path.split('/').count() == known.split('/').count()
            && parts().all(|(part, known)| part == known || known.starts_with('{'))
    };
    paths.as_object()?.iter().find(|(known, _)| is_it(known)).map(|(_, place)| place)
}

/// What is wrong with a body: it cannot be read, or holds what is not read.
fn fault<T: DeserializeOwned + Serialize>(body: &Value) -> Option<String> {
    let read: T = match serde_json::from_value(body.clone()) {
        Ok(read) => read,
        Err(error) => return Some(error.to_string()),
    };
    let again = serde_json::to_value(read).unwrap_or_default();
    let unread = body.as_object().into_iter().flatten().find(|(name, value)| !covers(&again[name], value));
    unread.map(|(name, _)| format!("`{name}` is not read as it stands there"))
}

/// Whether all that is `given` is in what was read.
fn covers(read: &Value, given: &Value) -> bool {
    match (read, given) {
        (Value::Object(read), Value::Object(given)) => {
            given.iter().all(|(name, value)| read.get(name).is_some_and(|read| covers(read, value)))
        }
        (Value::Array(read), Value::Array(given)) => {
            read.len() == given.len() && read.iter().zip(given).all(|(read, given)| covers(read, given))
        }
        (read, given) => read == given,
    }
}

/// What is wrong with a call of curl, seen with the paths that the API has.
fn problem(words: &[String], paths: &Value) -> Option<String> {
    let (mut address, mut body) = (None, None);
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        if word == "--json" {
            body = words.next();
        } else if WITH_VALUE.contains(&word.as_str()) {
            words.next();
        } else if !word.starts_with("--") {
            address = Some(word);
        }
    }
    let Some((_, path)) = address.and_then(|address| address.split_once("https://ctl.example.com:7444"))
    else {
        return Some("it has no address of the examples' controller".to_owned());
    };
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    let method = if body.is_some() { "post" } else { "get" };
    let known = place(path, paths).is_some_and(|place| place[method].is_object());
    // What a file holds is not in the document.
    let Some(body) = body.filter(|body| known && !body.starts_with('@')) else {
        return (!known).then(|| format!("the API has no {method} {path}"));
    };
    let body: Value = match serde_json::from_str(body) {
        Ok(body) => body,
        Err(error) => return Some(format!("{body} is no JSON: {error}")),
    };
    match path {
        "/api/v1/operations" => fault::<OperationCreate>(&body),
        "/api/v1/queries" => fault::<QueryCreate>(&body),
        path => Some(format!("this test does not know what {path} takes")),
    }
}

#[test]
fn every_request_in_the_documents_is_one_that_the_api_takes() {
    let document = std::fs::read_to_string(root().join("controller/openapi.json")).expect("the document");
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in files(&[".md"]) {
        for words in page(&file.text).blocks.iter().flat_map(|block| commands(block)) {
            if words.first().is_some_and(|word| word == "curl") {
                count += 1;
                let problem = problem(&words, &document["paths"]);
                wrong.extend(
                    problem.map(|problem| format!("{}: `{}`: {problem}", file.path, words.join(" "))),
                );
            }
        }
    }
    assert!(count >= 5, "only {count} requests were found");
    assert_none("a request in the documents that the API does not take", &wrong);
}
