//! The front matter of a `SKILL.md`: the flat part of YAML that skills use, with errors that name the line.

use std::collections::BTreeMap;

/// What a skill says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Front {
    pub name: String,
    pub description: String,
    pub license: Option<String>,
    pub compatibility: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// Patterns of tools; `None`: it says nothing about them.
    pub allowed_tools: Option<Vec<String>>,
    /// Fields that mean nothing here.
    pub unknown: Vec<String>,
}

/// The front matter can not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("SKILL.md, line {line}: {what}")]
pub struct FrontError {
    pub line: usize,
    pub what: String,
}

/// A field: its line, its name, and what stands behind it.
#[derive(Debug)]
struct Field<'a> {
    line: usize,
    name: &'a str,
    value: &'a str,
    /// The lines below it that are set in, with their numbers.
    below: Vec<(usize, &'a str)>,
}

impl Front {
    /// Reads the front matter, and gives the text behind it.
    ///
    /// # Errors
    /// When there is none, a field is written in a way that is not taken, or a rule of the format is
    /// broken.
    pub fn read(text: &str) -> Result<(Self, &str), FrontError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (fields, body) = fields(text)?;
        let mut front = Self::default();
        for field in &fields {
            front.take(field)?;
        }
        let first = |what: &str| FrontError {
            line: 1,
            what: what.to_owned(),
        };
        if front.name.is_empty() {
            return Err(first("the field `name` is missing"));
        }
        if front.description.is_empty() {
            return Err(first("the field `description` is missing"));
        }
        Ok((front, body))
    }

    fn take(&mut self, field: &Field<'_>) -> Result<(), FrontError> {
        match field.name {
            "name" => self.name = named(field)?,
            "description" => self.description = text(field, 1, 1024)?,
            "license" => self.license = Some(text(field, 0, 1024)?),
            "compatibility" => self.compatibility = Some(text(field, 1, 500)?),
            "metadata" => self.metadata = map(field)?,
            "allowed-tools" => self.allowed_tools = Some(list(field)?),
            other => self.unknown.push(other.to_owned()),
        }
        Ok(())
    }
}

/// Divides the text in the fields of the front matter and what stands behind it.
fn fields(text: &str) -> Result<(Vec<Field<'_>>, &str), FrontError> {
    let missing = |line, what: &str| FrontError {
        line,
        what: what.to_owned(),
    };
    let mut lines = text.split_inclusive('\n');
    let mut read = 0;
    let first = lines.next().unwrap_or_default();
    if first.trim_end() != "---" {
        return Err(missing(
            1,
            "the file must begin with a line `---` and the front matter",
        ));
    }
    read += first.len();
    let mut fields: Vec<Field<'_>> = Vec::new();
    for (line, with_end) in (2..).zip(lines) {
        read += with_end.len();
        let text_of = with_end.trim_end();
        if text_of == "---" {
            check_once(&fields)?;
            let body = text.get(read..).unwrap_or_default();
            return Ok((fields, body.trim_start_matches(['\r', '\n'])));
        }
        if text_of.starts_with([' ', '\t']) || text_of.starts_with("- ") {
            match fields.last_mut() {
                Some(field) => field.below.push((line, text_of)),
                None => return Err(missing(line, "this line is set in and belongs to no field")),
            }
        } else if text_of.is_empty() {
            if let Some(field) = fields.last_mut() {
                field.below.push((line, ""));
            }
        } else if !text_of.starts_with('#') {
            let (name, value) = text_of
                .split_once(':')
                .filter(|(_, value)| value.is_empty() || value.starts_with(' '))
                .ok_or_else(|| missing(line, "this is no field; write `name: value`"))?;
            fields.push(Field {
                line,
                name: name.trim(),
                value: value.trim(),
                below: Vec::new(),
            });
        }
    }
    Err(missing(
        1,
        "the front matter does not end; close it with a line `---`",
    ))
}

fn check_once(fields: &[Field<'_>]) -> Result<(), FrontError> {
    for (place, field) in fields.iter().enumerate() {
        let before = fields.iter().take(place);
        if before.clone().any(|other| other.name == field.name) {
            return Err(wrong(field, "stands twice"));
        }
    }
    Ok(())
}

fn wrong(field: &Field<'_>, what: &str) -> FrontError {
    FrontError {
        line: field.line,
        what: format!("`{}` {what}", field.name),
    }
}

/// The name of a skill, by its rules.
fn named(field: &Field<'_>) -> Result<String, FrontError> {
    let name = text(field, 1, 64)?;
    let is_plain = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !is_plain || name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        return Err(wrong(
            field,
            "must be lower-case letters, digits and single hyphens between them",
        ));
    }
    Ok(name)
}

/// A text of so many characters: on its line, or as a block below (`|`, `>`).
fn text(field: &Field<'_>, least: usize, most: usize) -> Result<String, FrontError> {
    let below = || field.below.iter().map(|(_, line)| line.trim());
    let has_below = below().any(|line| !line.is_empty());
    let found = match field.value {
        "|" | "|-" => below().collect::<Vec<_>>().join("\n").trim().to_owned(),
        ">" | ">-" => below()
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
        _ if has_below => {
            return Err(wrong(
                field,
                "goes on below; write `>` behind it, or one line",
            ));
        }
        value => scalar(value).map_err(|what| wrong(field, what))?,
    };
    let length = found.chars().count();
    if length < least {
        return Err(wrong(field, "is empty"));
    }
    if length > most {
        return Err(wrong(
            field,
            &format!("has {length} characters; at most {most} are taken"),
        ));
    }
    Ok(found)
}

/// A plain or quoted value.
fn scalar(value: &str) -> Result<String, &'static str> {
    if let Some(inner) = value.strip_prefix('\'') {
        let inner = inner
            .strip_suffix('\'')
            .ok_or("has a quote that does not end")?;
        return Ok(inner.replace("''", "'"));
    }
    if let Some(inner) = value.strip_prefix('"') {
        return quoted(inner);
    }
    if value.starts_with(['[', '{', '&', '*', '!', '|', '>', '%', '@', '`']) {
        return Err("is written in a way that is not taken here; put it in quotes");
    }
    let value = value
        .split_once(" #")
        .map_or(value, |(value, _)| value)
        .trim_end();
    if value.contains(": ") || value.ends_with(':') {
        return Err("has a colon in it; put it in quotes");
    }
    Ok(value.to_owned())
}

/// What stands in double quotes, without the first of them.
fn quoted(inner: &str) -> Result<String, &'static str> {
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                let rest = chars.as_str().trim_start();
                let is_end = rest.is_empty() || rest.starts_with('#');
                return if is_end {
                    Ok(out)
                } else {
                    Err("has text behind its quotes")
                };
            }
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(c) if "\"\\/".contains(c) => out.push(c),
                _ => return Err("has an escape that is not taken here"),
            },
            c => out.push(c),
        }
    }
    Err("has a quote that does not end")
}

/// Names and texts, one below the other.
fn map(field: &Field<'_>) -> Result<BTreeMap<String, String>, FrontError> {
    if !field.value.is_empty() {
        return Err(wrong(
            field,
            "must be a map: `name: value` on lines below, set in",
        ));
    }
    let mut found = BTreeMap::new();
    for (line, text) in field.below.iter().filter(|(_, text)| !text.is_empty()) {
        let told = |what: &str| FrontError {
            line: *line,
            what: format!("`{}`: {what}", field.name),
        };
        let (name, value) = text
            .trim()
            .split_once(':')
            .ok_or_else(|| told("this is no `name: value`"))?;
        let value = scalar(value.trim()).map_err(told)?;
        let name = scalar(name.trim()).map_err(told)?;
        found.insert(name, value);
    }
    Ok(found)
}

/// Words: in one line divided by spaces or commas, in brackets, or one below the other with `- `.
fn list(field: &Field<'_>) -> Result<Vec<String>, FrontError> {
    let below: Vec<_> = field
        .below
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .collect();
    if field.value.is_empty() {
        let item = |(line, text): &&(usize, &str)| {
            let told = |what: &str| FrontError {
                line: *line,
                what: format!("`{}`: {what}", field.name),
            };
            let item = text.trim().strip_prefix("- ");
            let item = item.ok_or_else(|| told("this is no item; write `- name`"))?;
            scalar(item.trim()).map_err(told)
        };
        return below.iter().map(item).collect();
    }
    if !below.is_empty() {
        return Err(wrong(
            field,
            "goes on below; write all of it there with `- `, or in one line",
        ));
    }
    let (inner, is_bracketed) = match field.value.strip_prefix('[') {
        Some(inner) => (inner.strip_suffix(']'), true),
        None => (Some(field.value), false),
    };
    let inner = inner.ok_or_else(|| wrong(field, "has a bracket that does not end"))?;
    let inner = if is_bracketed {
        inner.to_owned()
    } else {
        scalar(inner).map_err(|what| wrong(field, what))?
    };
    let words = inner.split(|c: char| c == ',' || c.is_whitespace());
    let words = words.map(|word| word.trim_matches(['"', '\'']));
    Ok(words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect())
}
