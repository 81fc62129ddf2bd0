//! What a session may use, and what it cost: exact in the log, whole cents on the wire.

use std::ops::AddAssign;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::MAX_BUDGET_CENTS;

/// A price in picodollars: a millionth of a dollar for a million tokens is one for each token, so that every list
/// price is whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cost(u64);

impl Cost {
    const PER_CENT: u64 = 10_000_000_000;

    /// So many picodollars.
    #[must_use]
    pub fn picodollars(n: u64) -> Self {
        Self(n)
    }

    /// The number of picodollars.
    #[must_use]
    pub fn as_picodollars(self) -> u64 {
        self.0
    }

    /// The nearest whole cents.
    #[must_use]
    pub fn rounded(self) -> Money {
        Money { cents: self.0.saturating_add(Self::PER_CENT / 2) / Self::PER_CENT }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

/// Whole cents of US dollars; on the wire `{"amount": "2500", "currency": "USD"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money {
    /// How many.
    pub cents: u64,
}

impl Money {
    /// The same, exactly.
    #[must_use]
    pub fn cost(self) -> Cost {
        Cost(self.cents.saturating_mul(Cost::PER_CENT))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMoney {
    amount: String,
    currency: Currency,
}

#[derive(Serialize, Deserialize)]
enum Currency {
    #[serde(rename = "USD")]
    Usd,
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        WireMoney { amount: self.cents.to_string(), currency: Currency::Usd }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let WireMoney { amount, currency: Currency::Usd } = WireMoney::deserialize(from)?;
        let cents = amount
            .parse::<u64>()
            .ok()
            .filter(|cents| *cents <= MAX_BUDGET_CENTS && cents.to_string() == amount);
        let wrong = "amount must be whole cents as text, without sign, point or leading zeros";
        Ok(Self { cents: cents.ok_or_else(|| serde::de::Error::custom(wrong))? })
    }
}

/// What a session may use: `max_list_cost` is the protocol's, the other limits are casemate's own. All are looked at
/// before each request to the model, so that the last one may overshoot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Always `limit`.
    #[serde(default)]
    pub r#type: BudgetKind,
    /// The sum of list prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_list_cost: Option<Money>,
    /// Tokens in and out, cached ones included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Time in which it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_active_seconds: Option<u64>,
    /// Time in which its tools run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tool_seconds: Option<u64>,
    /// Bytes that its programs send to the network and receive from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_egress_bytes: Option<u64>,
}

/// The one kind of budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetKind {
    /// A limit.
    #[default]
    Limit,
}

/// What a session has used of what a budget limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// The sum of list prices.
    pub cost: Cost,
    /// Tokens in and out.
    pub tokens: u64,
    /// Time in which it worked.
    pub active_ms: u64,
    /// Time in which its tools ran.
    pub tool_ms: u64,
    /// Bytes that went to and from the network.
    pub egress_bytes: u64,
}

impl Budget {
    /// Whether nothing more may be asked of a model.
    #[must_use]
    pub fn is_reached(&self, used: &Used) -> bool {
        let over = |limit: Option<u64>, used: u64| limit.is_some_and(|limit| used >= limit);
        let millis = |seconds: Option<u64>| seconds.map(|s| s.saturating_mul(1000));
        self.max_list_cost.is_some_and(|limit| used.cost >= limit.cost())
            || over(self.max_tokens, used.tokens)
            || over(millis(self.max_active_seconds), used.active_ms)
            || over(millis(self.max_tool_seconds), used.tool_ms)
            || over(self.max_egress_bytes, used.egress_bytes)
    }

    /// Of each limit: what is used of it and what there is, in units of which there are the same in both, and in words.
    #[must_use]
    pub fn shares(&self, used: &Used) -> Vec<Share> {
        let share = |used: u64, limit: u64, words: String| Share { used, limit, words };
        let time = |ms: u64, seconds: u64, what: &str| {
            let words = format!("{} s of {seconds} s of {what}", ms / 1000);
            share(ms, seconds.saturating_mul(1000), words)
        };
        let money = |limit: Money| {
            let (now, all) = (used.cost.rounded().cents, limit.cents);
            let dollars = |cents: u64| format!("${}.{:02}", cents / 100, cents % 100);
            let words = format!("{} of {}", dollars(now), dollars(all));
            share(used.cost.as_picodollars(), limit.cost().as_picodollars(), words)
        };
        let tokens =
            |limit| share(used.tokens, limit, format!("{} of {limit} tokens", used.tokens));
        let bytes = |limit| {
            let words = format!("{} of {limit} bytes to and from the network", used.egress_bytes);
            share(used.egress_bytes, limit, words)
        };
        let shares = [
            self.max_list_cost.map(money),
            self.max_tokens.map(tokens),
            self.max_active_seconds.map(|s| time(used.active_ms, s, "working time")),
            self.max_tool_seconds.map(|s| time(used.tool_ms, s, "tool time")),
            self.max_egress_bytes.map(bytes),
        ];
        shares.into_iter().flatten().collect()
    }
}

/// One limit of a budget, and what is used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// What is used.
    pub used: u64,
    /// What there is.
    pub limit: u64,
    /// Both in words.
    pub words: String,
}

impl Share {
    /// Whether less than one part of so many is left.
    #[must_use]
    pub fn leaves_less_than(&self, part: u64) -> bool {
        self.limit.saturating_sub(self.used).saturating_mul(part) < self.limit
    }
}
