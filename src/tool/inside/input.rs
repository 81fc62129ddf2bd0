//! The model's arguments, checked: a wrong one is answered with the field's name and what it must be.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value};

use super::Refusal;

/// Reads a tool's input.
pub(super) fn parse<T: DeserializeOwned>(
    tool: &str,
    input: Map<String, Value>,
) -> Result<T, Refusal> {
    // A null field means what an absent one means; some models send all fields.
    let given: Map<_, _> = input.into_iter().filter(|(_, value)| !value.is_null()).collect();
    let read = |given: Map<_, _>| serde_json::from_value::<T>(Value::Object(given));
    let problem = match read(given.clone()) {
        Ok(input) => return Ok(input),
        Err(problem) => problem.to_string(),
    };
    // The field whose absence changes the problem is the one that has it.
    let to_blame = given.iter().find(|(name, _)| {
        let mut without = given.clone();
        without.remove(*name);
        read(without).err().map(|other| other.to_string()) != Some(problem.clone())
    });
    let said = match to_blame {
        Some((name, value)) => blame(name, value, &problem),
        None => problem,
    };
    Err(format!("The input of `{tool}` is wrong: {said}."))
}

/// What is wrong with a field, from the parser's words.
fn blame(name: &str, value: &Value, problem: &str) -> String {
    let shown: String = value.to_string().chars().take(80).collect();
    if let Some(rest) = problem.strip_prefix("unknown field ") {
        return match rest.split_once(", expected ") {
            Some((_, fields)) => format!("it has no field `{name}`, only {fields}"),
            None => format!("it has no field {rest}"),
        };
    }
    let must_be = match problem.split_once(", expected ") {
        Some((_, wanted)) => format!("must be {wanted}"),
        None => problem.strip_prefix("it ").unwrap_or(problem).to_owned(),
    };
    format!("`{name}` {must_be}, and is {shown}")
}

/// A whole number, also as a string of digits: models write both.
pub(super) fn number<'de, D: Deserializer<'de>, T>(from: D) -> Result<Option<T>, D::Error>
where
    T: TryFrom<i64>,
{
    let value = match Value::deserialize(from)? {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = value.and_then(|number| T::try_from(number).ok());
    number.map(Some).ok_or_else(|| D::Error::custom("it must be a whole number in range"))
}

fn whole(number: f64) -> Option<i64> {
    let fits = number.fract() == 0.0 && number.abs() < 9e15;
    #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
    fits.then_some(number as i64)
}

/// A truth value, also as a string.
pub(super) fn truth<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    match Value::deserialize(from)? {
        Value::Bool(truth) => Ok(truth),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err(D::Error::custom("it must be true or false")),
    }
}

/// Two line numbers, also as strings.
pub(super) fn range<'de, D: Deserializer<'de>>(from: D) -> Result<Option<(i64, i64)>, D::Error> {
    let wrong = || D::Error::custom("it must be two line numbers, [first, last]");
    let Value::Array(ends) = Value::deserialize(from)? else { return Err(wrong()) };
    let ends: Vec<i64> = ends
        .into_iter()
        .map(|end| number(end).ok().flatten())
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    match ends[..] {
        [first, last] => Ok(Some((first, last))),
        _ => Err(wrong()),
    }
}
