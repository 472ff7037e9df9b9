//! Secrets in configuration: `${NAME}` is taken from the environment, `${file:PATH}` from a file.
//! They print as `***` and are wiped when dropped.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

/// A value that is never printed.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        resolve(&text)
            .map(Self::new)
            .map_err(serde::de::Error::custom)
    }
}

/// What is said of a reference that is not closed, or not alone: a key with one in it is nobody's.
const BROKEN: &str = "`${` begins a reference, which must be the whole value; write ${NAME} or ${file:PATH}, and \
                      what else belongs to the value into the variable or the file";

/// Resolves a reference; text without one is taken as it is.
pub(super) fn resolve(text: &str) -> Result<String, String> {
    let Some(name) = reference(text) else {
        if text.contains("${") {
            return Err(BROKEN.to_owned());
        }
        return Ok(text.to_owned());
    };
    if let Some(path) = file_of(text) {
        return std::fs::read_to_string(path)
            .map(|value| value.trim_end().to_owned())
            .map_err(|error| format!("file `{path}` of this secret can not be read: {error}"));
    }
    std::env::var(name).map_err(|_| {
        format!("environment variable `{name}` is not set; set it, or use ${{file:PATH}}")
    })
}

/// What stands between the brackets of a reference.
fn reference(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.strip_suffix('}')?;
    (!name.contains(['{', '}'])).then_some(name)
}

/// The file that a reference is to.
pub(crate) fn file_of(text: &str) -> Option<&str> {
    reference(text)?.strip_prefix("file:")
}

/// Puts something as long in place of the reference that `error` is about; `false` where it is about none.
pub(super) fn stood_in(text: &mut String, error: &toml::de::Error) -> bool {
    let Some(span) = error.span() else {
        return false;
    };
    let value = text.get(span.clone()).unwrap_or_default();
    let quoted = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    let inside = quoted('"').or_else(|| quoted('\''));
    let Some(name) = inside.filter(|inside| inside.contains("${")) else {
        return false;
    };
    let instead = format!("\"{}\"", "x".repeat(name.len()));
    text.replace_range(span, &instead);
    true
}
