//! `model` of an agent: an id, or an object around one.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::agent::Effort;
use crate::api::body::Node;
use crate::api::error::ApiError;

/// Longest model id in characters: that of a script is a path.
pub(super) const MAX_MODEL_CHARS: usize = 4096;
/// Shown for a model whose effort nobody chose. It is not sent: the provider's own default applies.
const DEFAULT_EFFORT: Effort = Effort::High;

/// A checked model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Model {
    pub(super) id: String,
    /// As it was chosen, if it was.
    pub(super) effort: Option<Effort>,
    inference_geo: Option<String>,
    speed: Speed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Speed {
    Standard,
    Fast,
}

impl Model {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, ApiError> {
        if node.value().is_string() {
            let (id, speed) = (read_id(node)?, Speed::Standard);
            return Ok(Self { id, effort: None, inference_geo: None, speed });
        }
        if !node.value().is_object() {
            return Err(node.refuse("must be a model id, or an object with one"));
        }
        let mut object = node.object()?;
        let id = read_id(&object.need("id")?)?;
        let effort = object.maybe("effort").map(|effort| read_effort(&effort)).transpose()?;
        let inference_geo = object.maybe("inference_geo").map(|geo| match geo.string()? {
            place @ ("us" | "global") => Ok(place.to_owned()),
            _ => Err(geo.refuse("must be \"us\" or \"global\"")),
        });
        let speed = object.maybe("speed").map(|speed| match speed.string()? {
            "standard" => Ok(Speed::Standard),
            "fast" => Ok(Speed::Fast),
            _ => Err(speed.refuse("must be \"standard\" or \"fast\"")),
        });
        let (inference_geo, speed) = (inference_geo.transpose()?, speed.transpose()?);
        object.done()?;
        Ok(Self { id, effort, inference_geo, speed: speed.unwrap_or(Speed::Standard) })
    }

    /// The model of an update: the whole object is new, but an effort that is left out stays with the same id.
    pub(super) fn update(&self, node: &Node<'_>) -> Result<Self, ApiError> {
        let mut new = Self::read(node)?;
        if new.id == self.id && new.effort.is_none() {
            new.effort = self.effort;
        }
        Ok(new)
    }

    /// The model of a session's override: effort is no part of it.
    pub(super) fn without_effort(self) -> Self {
        Self { effort: None, ..self }
    }

    pub(super) fn view(&self) -> Value {
        let effort = self.effort.unwrap_or(DEFAULT_EFFORT);
        json!({
            "id": self.id,
            "effort": { "type": effort },
            "inference_geo": self.inference_geo,
            "speed": self.speed,
        })
    }
}

/// A model's id.
pub(super) fn read_id(node: &Node<'_>) -> Result<String, ApiError> {
    let id = node.text(1, MAX_MODEL_CHARS)?;
    if id.trim().is_empty() || id.contains(char::is_control) {
        return Err(node.refuse("must be the id of a model"));
    }
    Ok(id.to_owned())
}

fn read_effort(node: &Node<'_>) -> Result<Effort, ApiError> {
    let level = |node: &Node<'_>| {
        let level = Effort::deserialize(node.value());
        level.map_err(|_| node.refuse("must be one of low, medium, high, xhigh, max"))
    };
    if !node.value().is_object() {
        return level(node);
    }
    let mut object = node.object()?;
    let effort = level(&object.need("type")?)?;
    object.done()?;
    Ok(effort)
}
