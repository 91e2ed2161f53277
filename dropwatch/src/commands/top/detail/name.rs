//! The default name of a capture.

use std::time::SystemTime;

use crate::model::report::{Row, Value};

/// `dropwatch-NO_SOCKET-20261121T220005.pcapng`
pub fn default(row: &Row) -> String {
    let reason = row.values.iter().find_map(|value| match value {
        Value::Reason(Some(reason)) => Some(reason.to_string()),
        _ => None,
    });
    let time: String = humantime::format_rfc3339_seconds(SystemTime::now())
        .to_string()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take("20261121T220005".len())
        .collect();
    let reason = reason.unwrap_or_else(|| "drops".to_owned());
    let reason: String =
        reason.chars().map(|it| if it.is_ascii_alphanumeric() || it == '_' { it } else { '-' }).collect();
    format!("dropwatch-{reason}-{time}.pcapng")
}
