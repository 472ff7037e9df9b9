//! The price book as a document: format `pricebook/1`, read and written, and its fingerprint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::ReadBookError;

/// The only format this version reads and writes.
pub const FORMAT: &str = "pricebook/1";

/// Amounts by token class: decimal strings, USD for a million tokens.
pub type Amounts = BTreeMap<String, String>;

/// A whole book. What this version does not know is kept as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub format: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<ScheduleEntry>,
    pub models: Vec<Model>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Hours at which prices are multiplied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleEntry {
    pub id: String,
    /// When it begins to hold; always if absent.
    #[serde(default)]
    pub from: Option<String>,
    pub multiplier: String,
    /// `01:00-04:00`; the end is exclusive.
    pub windows_utc: Vec<String>,
    /// Begins with `mon-fri`, `sat-sun` or `daily`; what follows is for people.
    #[serde(default)]
    pub days: Option<String>,
    /// Days without it, such as public holidays: `2026-12-25`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// One offer of one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    pub id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provider: String,
    #[serde(default)]
    pub context: Context,
    pub rates: Vec<Period>,
    /// Fees for what the provider's own tools do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, Value>,
    /// Factors on every token class: `region_us`, or the name of a lane.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub multipliers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Class to the figures of each source, where they differ.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub conflict: BTreeMap<String, Amounts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_on: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub check: String,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Limits of a model, in tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_input: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output: Option<u64>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Prices from one moment to another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// Inclusive; `None` where only the current price is known.
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_basis: Option<String>,
    pub lanes: BTreeMap<String, Amounts>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Exclusive; `None` while it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Prices of a whole request whose prompt is longer than `above_input_tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    pub above_input_tokens: u64,
    pub lanes: BTreeMap<String, Amounts>,
}

impl Document {
    /// Reads a book.
    ///
    /// # Errors
    /// When it is not JSON of this shape or says that it is of another format.
    pub fn read(json: &str) -> Result<Self, ReadBookError> {
        let document: Self = serde_json::from_str(json)?;
        if document.format == FORMAT {
            Ok(document)
        } else {
            Err(ReadBookError::Format(document.format))
        }
    }

    /// The document as JSON with sorted names and without spaces: equal for equal contents.
    pub fn canonical(&self) -> String {
        canonical(self)
    }
}

/// JSON with sorted names and without spaces.
pub(super) fn canonical(value: &impl Serialize) -> String {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields: BTreeMap<String, Value> = fields
                    .into_iter()
                    .map(|(name, value)| (name, sorted(value)))
                    .collect();
                Value::Object(fields.into_iter().collect())
            }
            Value::Array(items) => items.into_iter().map(sorted).collect(),
            other => other,
        }
    }
    sorted(serde_json::to_value(value).unwrap_or_default()).to_string()
}

/// SHA-256 of a text, in hexadecimal.
pub(super) fn fingerprint(text: &str) -> String {
    use std::fmt::Write;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a string does not fail.
        let _written = write!(hex, "{byte:02x}");
    }
    hex
}
