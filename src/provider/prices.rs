//! What models cost by the public lists: data, and exact sums of it.

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Deserializer};

use super::routes::Route;
use crate::event::{Cost, Usage};

/// The list that is built in.
const BUILT_IN: &str = include_str!("prices.toml");

/// What a token costs, in picodollars: the millionth of a dollar for a million of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Price {
    input: u64,
    output: u64,
    cache_write: u64,
    cache_read: u64,
}

impl Price {
    /// Of a model that runs on the user's own machine.
    pub const FREE: Self = Self { input: 0, output: 0, cache_write: 0, cache_read: 0 };

    /// What these tokens cost.
    #[must_use]
    pub fn of(&self, usage: &Usage) -> Cost {
        let counted = [
            (usage.input_tokens, self.input),
            (usage.output_tokens, self.output),
            (usage.cache_creation_input_tokens, self.cache_write),
            (usage.cache_read_input_tokens, self.cache_read),
        ];
        let sum = counted
            .into_iter()
            .fold(0_u64, |sum, (tokens, price)| sum.saturating_add(tokens.saturating_mul(price)));
        Cost::picodollars(sum)
    }
}

/// The price of the models that a pattern matches.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceRule {
    /// Matches `PROVIDER/MODEL`.
    #[serde(deserialize_with = "glob")]
    r#match: GlobMatcher,
    #[serde(deserialize_with = "dollars")]
    input: u64,
    #[serde(deserialize_with = "dollars")]
    output: u64,
    /// As fresh input if absent.
    #[serde(default, deserialize_with = "some_dollars")]
    cache_write: Option<u64>,
    /// As fresh input if absent.
    #[serde(default, deserialize_with = "some_dollars")]
    cache_read: Option<u64>,
}

impl PriceRule {
    fn price(&self) -> Price {
        let PriceRule { input, output, cache_write, cache_read, .. } = *self;
        Price {
            input,
            output,
            cache_write: cache_write.unwrap_or(input),
            cache_read: cache_read.unwrap_or(input),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    price: Vec<PriceRule>,
}

/// All prices that are known.
#[derive(Debug, Clone)]
pub struct Prices {
    own: Vec<PriceRule>,
    public: Vec<PriceRule>,
}

impl Prices {
    /// The built-in list, after the user's own.
    #[must_use]
    pub fn new(own: Vec<PriceRule>) -> Self {
        let List { price: public } = toml::from_str(BUILT_IN).expect("the built-in list is right");
        Self { own, public }
    }

    /// What the model costs; `None` if nobody has said. A local one costs nothing unless the user says so.
    #[must_use]
    pub fn of(&self, route: &Route, is_local: bool) -> Option<Price> {
        let name = route.to_string();
        let find = |rules: &[PriceRule]| {
            rules.iter().find(|rule| rule.r#match.is_match(&name)).map(PriceRule::price)
        };
        let local = is_local.then_some(Price::FREE);
        find(&self.own).or(local).or_else(|| find(&self.public))
    }
}

fn glob<'de, D: Deserializer<'de>>(from: D) -> Result<GlobMatcher, D::Error> {
    let text = String::deserialize(from)?;
    Glob::new(&text).map(|glob| glob.compile_matcher()).map_err(serde::de::Error::custom)
}

/// Dollars as text with at most six decimals, in millionths.
fn dollars<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || format!("`{text}` is not dollars as text, such as \"0.25\"");
    millionths(&text).ok_or_else(|| serde::de::Error::custom(wrong()))
}

fn some_dollars<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    dollars(from).map(Some)
}

fn millionths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 6 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(1_000_000)?;
    whole.checked_add(format!("{part:0<6}").parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(millionths(text), expected, "{text}");
        check("3", Some(3_000_000));
        check("0.05", Some(50_000));
        check("18.75", Some(18_750_000));
        check("0.000001", Some(1));
        for wrong in ["", ".5", "1.", "-1", "1e3", "0.0000001", "1,5", "99999999999999999999"] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_price_is_the_users_or_none_on_his_machine_or_the_public_one() {
        let own = "[[price]]\nmatch = \"openai/gpt-5-mini\"\ninput = \"1\"\noutput = \"2\"";
        let List { price } = toml::from_str(own).unwrap();
        let prices = Prices::new(price);
        let usage = Usage {
            input_tokens: 1000,
            output_tokens: 100,
            cache_creation_input_tokens: 10,
            cache_read_input_tokens: 1,
        };
        let check = |provider: &str, model: &str, is_local: bool, expected: Option<u64>| {
            let route = Route { provider: provider.to_owned(), model: model.to_owned() };
            let cost = prices.of(&route, is_local).map(|price| price.of(&usage).as_picodollars());
            assert_eq!(cost, expected, "{provider}/{model}");
        };
        check(
            "anthropic",
            "claude-sonnet-5-5",
            false,
            Some(3_000_000_000 + 1_500_000_000 + 37_800_000),
        );
        check("openai", "gpt-5-mini", false, Some(1_011_000_000 + 200_000_000));
        check("openai", "gpt-5-mini", true, Some(1_011_000_000 + 200_000_000));
        check("openai", "gpt-5-nano", false, Some(50_000_000 + 500_000 + 5_000 + 40_000_000));
        check("ollama", "q", true, Some(0));
        check("mine", "q", false, None);
    }
}
