//! The text of office files: paragraphs of a .docx, tables of an .xlsx. What is unpacked is bounded, however
//! small it was packed.

use std::io::{Cursor, Read as _};

use serde::Deserialize;
use serde_json::Value;
use zip::ZipArchive;

use super::files::arguments;
use super::markup::{Token, Tokens, attribute, resolved, text_of_page};
use super::place::Place;
use super::workspace::{Workspace, WorkspaceError};
use crate::tool::ToolResult;

/// Bytes of one part of an office file, unpacked.
const MOST_UNPACKED: u64 = 32 << 20;
/// Sheets that are read.
const MOST_SHEETS: usize = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfPath {
    path: String,
}

pub(super) fn document(at: &Workspace, given: &Value) -> Result<ToolResult, WorkspaceError> {
    let given: OfPath = arguments(given)?;
    let place = at.place(&given.path)?;
    let bytes = at.read_file(&place)?;
    let mut text = text_of(&place, bytes)?;
    let most = usize::try_from(at.limits().read_bytes).unwrap_or(usize::MAX);
    let whole = text.len();
    if whole > most {
        let mut end = most;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.extend([format!("\n[cut; {whole} bytes in all]")]);
    }
    Ok(ToolResult::text(text))
}

/// The text of a file, by what its name says it is.
pub(super) fn text_of(place: &Place, bytes: Vec<u8>) -> Result<String, WorkspaceError> {
    match place.suffix().as_str() {
        "docx" => words(&bytes),
        "xlsx" => tables(&bytes),
        "html" | "htm" => Ok(text_of_page(&String::from_utf8_lossy(&bytes))),
        _ => String::from_utf8(bytes).map_err(|_| {
            WorkspaceError::Refused(format!("`{}` is no text that can be read", place.as_str()))
        }),
    }
}

fn wrong(error: impl std::fmt::Display) -> WorkspaceError {
    WorkspaceError::Refused(format!("the file can not be unpacked: {error}"))
}

fn part(zip: &mut ZipArchive<Cursor<&[u8]>>, name: &str) -> Result<String, WorkspaceError> {
    let file = zip.by_name(name).map_err(wrong)?;
    let mut text = String::new();
    let limited = file.take(MOST_UNPACKED).read_to_string(&mut text);
    limited.map_err(wrong)?;
    Ok(text)
}

/// The paragraphs of a Word file; cells of a table are divided by ` | `.
fn words(bytes: &[u8]) -> Result<String, WorkspaceError> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(wrong)?;
    let main = part(&mut zip, "word/document.xml")?;
    let mut text = paragraphs(&main);
    if let Ok(notes) = part(&mut zip, "word/footnotes.xml") {
        for (number, note) in (1..).zip(paragraphs(&notes).lines().filter(|line| !line.is_empty()))
        {
            text.extend([format!("\n[^{number}]: {note}")]);
        }
    }
    Ok(text)
}

fn paragraphs(xml: &str) -> String {
    let mut text = String::new();
    let (mut in_text, mut in_row) = (false, false);
    for token in Tokens::of(xml) {
        match token {
            Token::Open {
                name: "w:t",
                is_empty,
                ..
            } => in_text = !is_empty,
            Token::Close("w:t") => in_text = false,
            Token::Text(piece) if in_text => text += &resolved(piece),
            Token::Open {
                name: "w:tab" | "w:br",
                ..
            } => text.push(' '),
            Token::Open {
                name: "w:pStyle",
                attributes,
                ..
            } => {
                let style = attribute(attributes, "w:val").unwrap_or_default();
                let level = style.strip_prefix("Heading").and_then(|it| it.parse().ok());
                (0..level.unwrap_or(0)).for_each(|_| text.push('#'));
                if level.is_some() {
                    text.push(' ');
                }
            }
            Token::Open {
                name: "w:footnoteReference",
                attributes,
                ..
            } => {
                let number = attribute(attributes, "w:id").unwrap_or_default();
                text.extend([format!("[^{number}]")]);
            }
            Token::Open { name: "w:tr", .. } => in_row = true,
            Token::Close("w:tr") => {
                in_row = false;
                text.push('\n');
            }
            Token::Close("w:tc") => text += " | ",
            Token::Close("w:p") if !in_row => text.push('\n'),
            _ => {}
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// The tables of an Excel file, a line for each row, cells divided by tabs.
fn tables(bytes: &[u8]) -> Result<String, WorkspaceError> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(wrong)?;
    let shared =
        part(&mut zip, "xl/sharedStrings.xml").map_or_else(|_| Vec::new(), |xml| strings(&xml));
    let book = part(&mut zip, "xl/workbook.xml")?;
    let names = Tokens::of(&book).filter_map(|token| match token {
        Token::Open {
            name: "sheet",
            attributes,
            ..
        } => attribute(attributes, "name"),
        _ => None,
    });
    let mut text = String::new();
    for (number, name) in (1..).zip(names.take(MOST_SHEETS)) {
        let sheet = part(&mut zip, &format!("xl/worksheets/sheet{number}.xml"))?;
        text.extend([format!("## {name}\n{}\n", rows(&sheet, &shared))]);
    }
    text.truncate(text.trim_end().len());
    Ok(text)
}

fn strings(xml: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut open, mut in_text) = (String::new(), false);
    for token in Tokens::of(xml) {
        match token {
            Token::Open {
                name: "t",
                is_empty,
                ..
            } => in_text = !is_empty,
            Token::Close("t") => in_text = false,
            Token::Text(piece) if in_text => open += &resolved(piece),
            Token::Close("si") => found.push(std::mem::take(&mut open)),
            _ => {}
        }
    }
    found
}

fn rows(xml: &str, shared: &[String]) -> String {
    let mut text = String::new();
    let (mut is_shared, mut reads, mut formula) = (false, false, String::new());
    let mut in_formula = false;
    for token in Tokens::of(xml) {
        match token {
            Token::Open {
                name: "c",
                attributes,
                is_empty,
            } => {
                is_shared = attribute(attributes, "t").as_deref() == Some("s");
                if is_empty {
                    text.push('\t');
                }
            }
            Token::Open {
                name: "f",
                is_empty,
                ..
            } => in_formula = !is_empty,
            Token::Close("f") => in_formula = false,
            Token::Text(piece) if in_formula => formula += &resolved(piece),
            Token::Open {
                name: "v" | "t",
                is_empty,
                ..
            } => reads = !is_empty,
            Token::Close("v" | "t") => reads = false,
            Token::Text(piece) if reads && formula.is_empty() => {
                let place: Option<usize> = piece.parse().ok().filter(|_| is_shared);
                match place.and_then(|place| shared.get(place)) {
                    Some(found) => text += found,
                    None => text += &resolved(piece),
                }
            }
            Token::Close("c") => {
                if !formula.is_empty() {
                    text.extend([format!("={formula}")]);
                    formula.clear();
                }
                text.push('\t');
            }
            Token::Close("row") => {
                text.truncate(text.trim_end_matches('\t').len());
                text.push('\n');
            }
            _ => {}
        }
    }
    text
}
