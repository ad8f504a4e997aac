//! A client of the control API: HTTP/1.1 over a Unix socket, one connection to a call.
//!
//! Comes in: a method, a target, a body. Goes out: the server's answer, whole or line by line, or one sentence that
//! says what is wrong with the socket or with the call.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// Why a call has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no such socket.
    #[error("there is no control socket {0}; is `holdline serve --control {0}` running?")]
    NoSocket(String),
    /// Nobody listens on it.
    #[error("nobody answers at the control socket {0}: the server that made it has ended; start it again")]
    NobodyAnswers(String),
    /// It is somebody else's.
    #[error("this user may not use the control socket {0}; it is for the user who started the server, or root")]
    NotPermitted(String),
    /// Something else is wrong with it.
    #[error("the control socket {0} cannot be used: {1}")]
    Socket(String, io::Error),
    /// The server broke off.
    #[error("the server ended the connection in the middle of the answer ({0}); ask again")]
    BrokenOff(String),
    /// The server refused the call.
    #[error("{}", sentence(.0))]
    Refused(Answer),
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, if it was JSON.
    pub body: Value,
}

fn sentence(answer: &Answer) -> String {
    match answer.body["error"].as_str() {
        Some(error) => error.to_owned(),
        None => format!("the server answered {}", answer.status),
    }
}

/// A client of one socket.
pub struct Client {
    runtime: Runtime,
    path: PathBuf,
}

impl Client {
    /// For the server behind `path`. Fails only where the system has no event loop left.
    pub fn new(path: &Path) -> io::Result<Client> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Client { runtime, path: path.to_owned() })
    }

    /// Calls, and returns the whole answer.
    pub fn call(&self, method: Method, target: &str, body: Vec<u8>) -> Result<Answer, CallError> {
        self.call_with_key(method, target, None, body)
    }

    /// The same with an `Idempotency-Key`.
    pub fn call_with_key(
        &self,
        method: Method,
        target: &str,
        key: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Answer, CallError> {
        self.runtime.block_on(async {
            let response = self.send(method, target, key, body).await?;
            whole(response).await
        })
    }

    /// Gets a stream of lines and hands on each; ends with the server, or when `take` breaks.
    pub fn lines(&self, target: &str, mut take: impl FnMut(&str) -> ControlFlow<()>) -> Result<(), CallError> {
        self.runtime.block_on(async {
            let mut response = self.send(Method::GET, target, None, Vec::new()).await?;
            if !response.status().is_success() {
                return whole(response).await.map(drop);
            }
            let mut waiting = Vec::new();
            while let Some(frame) = response.body_mut().frame().await {
                let frame = frame.map_err(|error| CallError::BrokenOff(error.to_string()))?;
                let Ok(piece) = frame.into_data() else { continue };
                waiting.extend_from_slice(&piece);
                let mut begin = 0;
                while let Some(length) = waiting[begin..].iter().position(|byte| *byte == b'\n') {
                    let line = String::from_utf8_lossy(&waiting[begin..begin + length]);
                    if take(&line).is_break() {
                        return Ok(());
                    }
                    begin += length + 1;
                }
                waiting.drain(..begin);
            }
            Ok(())
        })
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        key: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, CallError> {
        let broken = |error: hyper::Error| CallError::BrokenOff(error.to_string());
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.cannot_connect(error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // How it ends, the call sees.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(target).header("host", "holdline");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| {
            CallError::Refused(Answer {
                status: StatusCode::BAD_REQUEST,
                body: serde_json::json!({ "error": format!("this cannot be asked for: {error}") }),
            })
        })?;
        sender.send_request(request).await.map_err(broken)
    }

    fn cannot_connect(&self, error: io::Error) -> CallError {
        let path = self.path.display().to_string();
        if std::fs::metadata(&self.path).is_ok_and(|found| !found.file_type().is_socket()) {
            return CallError::NoSocket(path);
        }
        match error.kind() {
            io::ErrorKind::NotFound => CallError::NoSocket(path),
            io::ErrorKind::ConnectionRefused => CallError::NobodyAnswers(path),
            io::ErrorKind::PermissionDenied => CallError::NotPermitted(path),
            _ => CallError::Socket(path, error),
        }
    }
}

async fn whole(response: Response<Incoming>) -> Result<Answer, CallError> {
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| CallError::BrokenOff(error.to_string()))?;
    let body = serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null);
    let answer = Answer { status, body };
    if status.is_success() { Ok(answer) } else { Err(CallError::Refused(answer)) }
}

/// A path and the parameters that are given, encoded.
pub fn target(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let mut target = path.to_owned();
    let given = parameters.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    for (index, (name, value)) in given.enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        target.push_str(name);
        target.push('=');
        target.push_str(&encoded(value));
    }
    target
}

/// A text as a part of a path or a query.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_encoded() {
        assert_eq!(target("/flows", &[("a", None), ("b", None)]), "/flows");
        let given = [("limit", Some("5".to_owned())), ("after", None), ("name", Some("a b&ü".to_owned()))];
        assert_eq!(target("/flows", &given), "/flows?limit=5&name=a%20b%26%C3%BC");
    }

    #[test]
    fn a_socket_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control");
        let error = || {
            let client = Client::new(&path).expect("an event loop");
            client.call(Method::GET, "/stats", Vec::new()).expect_err("nobody is there").to_string()
        };
        assert!(error().contains("there is no control socket"), "{}", error());
        drop(std::os::unix::net::UnixListener::bind(&path).expect("it is free"));
        assert!(error().contains("nobody answers at the control socket"), "{}", error());
        std::fs::remove_file(&path).expect("it is ours");
        std::fs::write(&path, "a file").expect("there is room");
        assert!(error().contains(&path.display().to_string()), "{}", error());
    }
}
