//! The least that a program can do that runs tools for a model and loses nothing: it asks, commits the answer, runs the
//! command in a lasting shell or reads the file, commits the result, and asks again. No sandbox, no schema, no checks.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::AnyError;

/// The argument that makes the benchmark this program; the server's address and a database's path follow.
pub(crate) const FLOOR: &str = "floor-agent";

pub(crate) fn run(address: &str, database: &str) -> Result<(), AnyError> {
    let log = Connection::open(database)?;
    log.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE event (seq INTEGER PRIMARY KEY, body TEXT NOT NULL);",
    )?;
    let mut commit = log.prepare("INSERT INTO event (body) VALUES (?1)")?;
    let mut server = TcpStream::connect(address)?;
    server.set_nodelay(true)?;
    let mut answers = BufReader::new(server.try_clone()?);
    let mut shell = None;
    let mut messages = String::from(r#"{"role":"user","content":"do it"}"#);
    loop {
        let body = format!(r#"{{"model":"bench","stream":true,"messages":[{messages}]}}"#);
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        server.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        let answer = answer(&mut answers)?;
        let calls = calls(&answer)?;
        if calls.is_empty() {
            return Ok(());
        }
        commit.execute([&answer])?;
        let mut results = String::new();
        for (id, input) in &calls {
            let output = match (input["command"].as_str(), input["file_path"].as_str()) {
                (Some(command), _) => shell.get_or_insert_with(Shell::start).run(command)?,
                (None, Some(path)) => std::fs::read_to_string(path)?,
                (None, None) => return Err("a call without work".into()),
            };
            let separator = if results.is_empty() { "" } else { "," };
            let output = Value::from(output);
            results += &format!(
                r#"{separator}{{"type":"tool_result","tool_use_id":"{id}","content":{output}}}"#
            );
        }
        commit.execute([&results])?;
        let used = calls
            .iter()
            .map(|(id, input)| format!(r#"{{"type":"tool_use","id":"{id}","input":{input}}}"#));
        let used = used.collect::<Vec<_>>().join(",");
        messages += &format!(
            r#",{{"role":"assistant","content":[{used}]}},{{"role":"user","content":[{results}]}}"#
        );
    }
}

/// The body of a response that comes in one chunk.
fn answer(reader: &mut BufReader<TcpStream>) -> Result<String, AnyError> {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err("the server is gone".into());
        }
    }
    line.clear();
    reader.read_line(&mut line)?;
    let length = usize::from_str_radix(line.trim_end(), 16)?;
    let mut body = vec![0; length + "\r\n0\r\n\r\n".len()];
    reader.read_exact(&mut body)?;
    body.truncate(length);
    Ok(String::from_utf8(body)?)
}

/// The ids and arguments of the calls in an answer.
fn calls(answer: &str) -> Result<Vec<(String, Value)>, AnyError> {
    let mut calls = Vec::new();
    for data in answer.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(data)?;
        if let Some(id) = event["content_block"]["id"].as_str() {
            calls.push((id.to_owned(), Value::Null));
        }
        if let (Some(json), Some(last)) =
            (event["delta"]["partial_json"].as_str(), calls.last_mut())
        {
            last.1 = serde_json::from_str(json)?;
        }
    }
    Ok(calls)
}

/// A lasting bash behind two pipes.
struct Shell {
    child: Child,
    pipes: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Shell {
    fn start() -> Self {
        let mut child = Command::new("bash")
            .args(["--norc", "--noprofile"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this machine has bash");
        let pipes = child.stdin.take().zip(child.stdout.take().map(BufReader::new));
        Self { child, pipes }
    }

    fn run(&mut self, command: &str) -> Result<String, AnyError> {
        let (input, output) = self.pipes.as_mut().ok_or("the shell has no pipes")?;
        input.write_all(format!("{command}; echo \"[exit code $?]\"\n").as_bytes())?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.pipes.take());
        // The end of its input ends it.
        drop(self.child.wait());
    }
}
