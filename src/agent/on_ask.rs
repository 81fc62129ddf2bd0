//! What becomes of a call that asks, where nobody may be there to answer.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `deny`, `fail`, `wait=DURATION` or `webhook=URL`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OnAsk {
    /// It is refused, and the model is told that nobody was there.
    Deny,
    /// The turn ends.
    Fail,
    /// It waits for so long.
    Wait(Duration),
    /// Somebody is asked over HTTP.
    Webhook(String),
}

impl FromStr for OnAsk {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.split_once('=') {
            None if word == "deny" => Ok(Self::Deny),
            None if word == "fail" => Ok(Self::Fail),
            Some(("wait", time)) => duration(time).map(Self::Wait),
            Some(("webhook", url)) if url.starts_with("http://") || url.starts_with("https://") => {
                Ok(Self::Webhook(url.to_owned()))
            }
            Some(("webhook", _)) => Err("a webhook begins with http:// or https://".to_owned()),
            _ => Err("it is deny, fail, wait=DURATION or webhook=URL".to_owned()),
        }
    }
}

impl fmt::Display for OnAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deny => f.write_str("deny"),
            Self::Fail => f.write_str("fail"),
            Self::Wait(time) => write!(f, "wait={}s", time.as_secs()),
            Self::Webhook(url) => write!(f, "webhook={url}"),
        }
    }
}

impl TryFrom<String> for OnAsk {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        word.parse()
    }
}

impl From<OnAsk> for String {
    fn from(on_ask: OnAsk) -> Self {
        on_ask.to_string()
    }
}

/// `90s`, `10m` or `2h`, no more than a day.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let unit = units.iter().find_map(|(unit, n)| Some((text.strip_suffix(unit)?, n)));
    let seconds = unit.and_then(|(n, unit)| n.parse::<u64>().ok()?.checked_mul(*unit));
    match seconds {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("`{text}` is no time such as 90s, 10m or 2h, of at most a day")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for word in ["deny", "fail", "wait=90s", "webhook=http://a.example/ask"] {
            assert_eq!(word.parse::<OnAsk>().map(|on_ask| on_ask.to_string()), Ok(word.to_owned()));
        }
        assert_eq!("wait=2h".parse::<OnAsk>().unwrap().to_string(), "wait=7200s");
        for word in ["", "allow", "wait", "wait=", "wait=0s", "wait=25h", "webhook=ftp://a"] {
            assert!(word.parse::<OnAsk>().is_err(), "{word}");
        }
    }
}
