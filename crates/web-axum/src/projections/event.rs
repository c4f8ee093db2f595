use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use evenkeel_core::{Event as RawEvent, Metadata};
use evenkeel_projections::Recorded;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::page::Time;

/// An event as it stands in the log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    id: String,
    stream: String,
    /// Its place in the stream, from 1.
    version: u64,
    /// Its place in its partition's log, from 1.
    position: u64,
    /// What happened.
    kind: String,
    /// The media type of the payload.
    content_type: String,
    /// The details, where they are JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<Box<RawValue>>,
    /// The details, where they are other text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_text: Option<String>,
    /// The details in base64, where they are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// Named texts, numbers and flags.
    #[schema(value_type = Object)]
    metadata: Metadata,
    recorded_at: Time,
}

impl From<Recorded> for Event {
    fn from(recorded: Recorded) -> Self {
        let RawEvent {
            id,
            stream,
            version,
            position,
            kind,
            payload,
            content_type,
            metadata,
            recorded_at,
            ..
        } = recorded.into_raw();
        let (json, payload_text, payload_base64) = match std::str::from_utf8(&payload) {
            Err(_) => (None, None, Some(STANDARD.encode(&payload))),
            Ok(text) => match serde_json::from_str(text) {
                Ok(json) if is_json(&content_type) => (Some(json), None, None),
                _ => (None, Some(text.to_owned()), None),
            },
        };
        Self {
            id: id.to_string(),
            stream,
            version,
            position,
            kind,
            content_type,
            payload: json,
            payload_text,
            payload_base64,
            metadata,
            recorded_at: Time(recorded_at),
        }
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence == "application/json" || essence.ends_with("+json")
}
