//! What the benchmarks share: contestants that are measured in interleaved rounds, and the table that compares them.
//!
//! A machine changes its mood by the minute, so a figure means something only beside another of the same round. Each
//! round runs every contestant once, the first round is dropped, and a ratio is taken within a round. The least time is
//! the estimate for a quiet machine, the median for this one, whose load stands above the table.

use std::io::Write;
use std::time::{Duration, Instant};

pub(crate) type AnyError = Box<dyn std::error::Error>;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// With the one that is dropped.
    pub(crate) rounds: usize,
    /// Per contestant and round.
    pub(crate) calls: usize,
}

impl Effort {
    /// `cargo test --benches` runs this too, and only wants to know that it works.
    pub(crate) fn of(rounds: usize, calls: usize) -> Self {
        if std::env::args().any(|arg| arg == "--bench") {
            Self { rounds, calls }
        } else {
            Self { rounds: 2, calls: 2 }
        }
    }
}

/// One who is measured: a name, and a round that yields a time for each call.
pub(crate) struct Contestant<'a> {
    name: &'a str,
    round: Box<dyn FnMut() -> Result<Vec<Duration>, AnyError> + 'a>,
    rounds: Vec<Vec<Duration>>,
}

impl<'a> Contestant<'a> {
    pub(crate) fn new(
        name: &'a str,
        round: impl FnMut() -> Result<Vec<Duration>, AnyError> + 'a,
    ) -> Self {
        Self { name, round: Box::new(round), rounds: Vec::new() }
    }

    /// One that does the same thing so many times in a round.
    pub(crate) fn timed(
        name: &'a str,
        calls: usize,
        mut call: impl FnMut() -> Result<(), AnyError> + 'a,
    ) -> Self {
        let mut one = move || {
            let started = Instant::now();
            call().map(|()| started.elapsed())
        };
        Self::new(name, move || (0..calls).map(|_| one()).collect())
    }

    fn least(&self) -> Duration {
        self.rounds.iter().flatten().min().copied().unwrap_or_default()
    }

    /// A figure of each round.
    fn each(&self, figure: fn(Vec<Duration>) -> Duration) -> impl Iterator<Item = Duration> {
        self.rounds.iter().map(move |calls| figure(calls.clone()))
    }

    /// The median over all rounds of its ratio to the other's figure.
    fn ratio(&self, other: &Self, figure: fn(Vec<Duration>) -> Duration) -> f64 {
        let pairs = self.each(figure).zip(other.each(figure));
        let mut ratios: Vec<f64> =
            pairs.map(|(one, other)| one.as_secs_f64() / other.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

/// Measures all contestants and compares them with the first.
pub(crate) fn compare(
    title: &str,
    rounds: usize,
    mut contestants: Vec<Contestant<'_>>,
) -> Result<(), AnyError> {
    for round in 0..rounds {
        for contestant in &mut contestants {
            let calls = (contestant.round)()?;
            if round > 0 {
                contestant.rounds.push(calls);
            }
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\n{title:<46} |  min us | med us | p99 us | min ratio | med ratio | p99 ratio   [{}]",
        load()
    )?;
    let floor = &contestants[0];
    for contestant in &contestants {
        writeln!(
            out,
            "{:<46} | {:>7.0} | {:>6.0} | {:>6.0} | {:>9.2} | {:>9.2} | {:>9.2}",
            contestant.name,
            micros(contestant.least()),
            micros(median(contestant.each(median).collect())),
            micros(median(contestant.each(tail).collect())),
            contestant.least().as_secs_f64() / floor.least().as_secs_f64(),
            contestant.ratio(floor, median),
            contestant.ratio(floor, tail),
        )?;
    }
    Ok(())
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// What one call in a hundred takes, or the longest of fewer.
fn tail(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

/// How busy the machine is: running processes, and the share of time in which some process waited for a processor.
pub(crate) fn load() -> String {
    let first_words = |path: &str, count| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().take(count).collect::<Vec<_>>().join(" ")
    };
    format!(
        "load {}, cpu pressure {}",
        first_words("/proc/loadavg", 1),
        first_words("/proc/pressure/cpu", 2)
    )
}
