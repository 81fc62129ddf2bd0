//! The one place that writes to standard output and standard error: data to the first, talk to the second.
//!
//! Both are buffered. Writing to one flushes the other, so that a terminal that shows both shows them in order.
//! A reader that has gone (`casemate … | head`) is no error: what was meant for it is dropped.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use super::terminal;

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Data.
    Stdout,
    /// Talk.
    Stderr,
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stdout => "standard output",
            Self::Stderr => "standard error",
        })
    }
}

/// A stream that cannot be written to, for another reason than that nobody reads it.
#[derive(Debug, thiserror::Error)]
#[error("write to {stream}")]
pub struct OutputError {
    /// Which.
    pub stream: Stream,
    /// Why, in the system's words.
    pub source: io::Error,
}

/// Where a command writes.
pub struct Output {
    stdout: Sink,
    stderr: Sink,
    /// Data goes to a terminal: JSON, too, is a stranger's there.
    seen: bool,
}

impl Output {
    /// The process's own streams.
    #[must_use]
    pub fn of_process() -> Self {
        Self { seen: io::stdout().is_terminal(), ..Self::new(io::stdout(), io::stderr()) }
    }

    /// Any two writers.
    #[must_use]
    pub fn new(stdout: impl Write + Send + 'static, stderr: impl Write + Send + 'static) -> Self {
        Self {
            stdout: Sink::new(Stream::Stdout, stdout),
            stderr: Sink::new(Stream::Stderr, stderr),
            seen: false,
        }
    }

    /// Writes data to standard output.
    ///
    /// # Errors
    /// The system's, but not that nobody reads.
    pub fn data(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), OutputError> {
        self.stderr.flush()?;
        let bytes = bytes.as_ref();
        match std::str::from_utf8(bytes) {
            Ok(text) if self.seen => self.stdout.write(terminal::escape(text).as_bytes()),
            _ => self.stdout.write(bytes),
        }
    }

    /// Writes talk to standard error.
    ///
    /// # Errors
    /// As for [`Output::data`].
    pub fn talk(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), OutputError> {
        self.stdout.flush()?;
        self.stderr.write(bytes.as_ref())
    }

    /// Hands everything to the system. What is not flushed is lost with the process.
    ///
    /// # Errors
    /// As for [`Output::data`].
    pub fn flush(&mut self) -> Result<(), OutputError> {
        self.stdout.flush()?;
        self.stderr.flush()
    }

    /// Whether the reader of standard output has gone: a command that only prints may stop.
    #[must_use]
    pub fn reader_has_gone(&self) -> bool {
        self.stdout.closed
    }
}

struct Sink {
    stream: Stream,
    to: BufWriter<Box<dyn Write + Send>>,
    dirty: bool,
    closed: bool,
}

impl Sink {
    fn new(stream: Stream, to: impl Write + Send + 'static) -> Self {
        Self { stream, to: BufWriter::new(Box::new(to)), dirty: false, closed: false }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        if self.closed {
            return Ok(());
        }
        self.dirty = true;
        let written = self.to.write_all(bytes);
        self.judge(written)
    }

    fn flush(&mut self) -> Result<(), OutputError> {
        if self.closed || !self.dirty {
            return Ok(());
        }
        self.dirty = false;
        let flushed = self.to.flush();
        self.judge(flushed)
    }

    fn judge(&mut self, done: io::Result<()>) -> Result<(), OutputError> {
        match done {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(source) => {
                self.closed = true;
                Err(OutputError { stream: self.stream, source })
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! An output whose bytes a test can look at.

    use std::sync::{Arc, Mutex};

    use super::{Output, Write, io};

    /// What was written, shared with the writer.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Both streams on one screen, as on a terminal.
    pub(crate) fn screen() -> (Output, Captured) {
        let screen = Captured::default();
        (Output::new(screen.clone(), screen.clone()), screen)
    }

    /// The streams apart: standard output, standard error.
    pub(crate) fn apart() -> (Output, Captured, Captured) {
        let (stdout, stderr) = (Captured::default(), Captured::default());
        (Output::new(stdout.clone(), stderr.clone()), stdout, stderr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_streams_interleave_in_the_order_of_writing() {
        let (mut out, screen) = testing::screen();
        out.data("one ").unwrap();
        out.talk("two ").unwrap();
        out.data("three").unwrap();
        out.flush().unwrap();
        assert_eq!(screen.text(), "one two three");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        let mut out = Output::new(Broken(io::ErrorKind::BrokenPipe), io::sink());
        out.data("x").unwrap();
        assert!(!out.reader_has_gone(), "nothing was handed over yet");
        out.flush().unwrap();
        assert!(out.reader_has_gone());
        out.data("more").unwrap();
        out.flush().unwrap();
    }

    #[test]
    fn any_other_error_surfaces_with_its_stream() {
        let mut out = Output::new(Broken(io::ErrorKind::StorageFull), io::sink());
        out.data("x").unwrap();
        let error = out.flush().unwrap_err();
        assert_eq!(error.to_string(), "write to standard output");
        assert_eq!(error.source.kind(), io::ErrorKind::StorageFull);
    }
}
