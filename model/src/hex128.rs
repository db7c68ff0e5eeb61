//! 128 bits as 32 hex digits in JSON, for `#[serde(with = "holdfast_model::hex128")]`: numbers that large do not
//! survive every JSON reader, nor serde's own tagged enums.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes the digits.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(bits: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{bits:032x}"))
}

/// Reads the digits.
///
/// # Errors
/// The deserializer's, or when the text is not 32 lower-case hex digits.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::ids::parse_hex_128("128-bit number", &text).map_err(D::Error::custom)
}
