//! A model server in this process whose words are the moments at which it said them. It notes when it is asked.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::support::AnyError;

/// Pause before each word: whatever the word before set off is over by then.
const PACE: Duration = Duration::from_millis(2);

/// Moments that are kept for whoever asks when the model was asked.
const NOTED: usize = 64;

/// What all clocks of this process count from.
static BEGAN: OnceLock<Instant> = OnceLock::new();

/// A moment, as the model says it: always 20 digits.
pub(crate) fn stamp() -> String {
    format!("{:020}", BEGAN.get_or_init(Instant::now).elapsed().as_nanos())
}

/// How long ago a moment was that a line names.
pub(crate) fn since(line: &str) -> Option<Duration> {
    let now = BEGAN.get_or_init(Instant::now).elapsed();
    let (_, rest) = line.split_once("\"text\":\"")?;
    // A space at the end of a word comes with the next one: the message may end there, and would not show it.
    let nanos: u64 = rest.trim_start().get(..20)?.parse().ok()?;
    Some(now.saturating_sub(Duration::from_nanos(nanos)))
}

/// The server; its threads live as long as the process.
pub(crate) struct Model {
    pub(crate) address: SocketAddr,
    asked: Receiver<Instant>,
}

impl Model {
    /// One that answers with so many words.
    pub(crate) fn start(words: usize) -> std::io::Result<Self> {
        BEGAN.get_or_init(Instant::now);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (note, asked) = sync_channel(NOTED);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let note = note.clone();
                // A client that went away shows in what it did not get.
                std::thread::spawn(move || drop(serve(&stream, words, &note)));
            }
        });
        Ok(Self { address, asked })
    }

    /// When it was asked next.
    pub(crate) fn asked(&self) -> Result<Instant, AnyError> {
        Ok(self.asked.recv_timeout(Duration::from_secs(10))?)
    }

    /// Forgets what it was asked so far.
    pub(crate) fn forget(&self) {
        self.asked.try_iter().for_each(drop);
    }
}

/// Answers requests on one connection until the client closes it.
fn serve(stream: &TcpStream, words: usize, note: &SyncSender<Instant>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(length) = head(&mut reader)? {
        let asked = Instant::now();
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        // Only some tables listen.
        note.try_send(asked).ok();
        let mut say = |event: &str| {
            let bytes = format!("{:x}\r\n{event}\r\n", event.len());
            writer.write_all(bytes.as_bytes())
        };
        (&*stream).write_all(HEAD)?;
        say(BEGIN)?;
        for _ in 0..words {
            std::thread::sleep(PACE);
            say(&format!(
                "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
                 \"delta\":{{\"type\":\"text_delta\",\"text\":\"{} \"}}}}\n\n",
                stamp()
            ))?;
        }
        say(END)?;
        writer.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const BEGIN: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"bench\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
const END: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":20}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// Reads a request's head; the length of its body, or nothing at a clean end.
fn head(reader: &mut impl BufRead) -> std::io::Result<Option<u64>> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let lower = line.trim_end().to_ascii_lowercase();
        if lower.is_empty() {
            return Ok(Some(length));
        }
        if let Some(given) = lower.strip_prefix("content-length:") {
            length = given.trim().parse().map_err(std::io::Error::other)?;
        }
    }
}
