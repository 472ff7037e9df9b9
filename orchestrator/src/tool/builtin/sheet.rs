//! Tables as .xlsx or .csv. The same tables give the same bytes. Formulas are looked at before they are
//! written: a reference that points at nothing, or out of the file, is an error here and not in a meeting.

use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Workbook, Worksheet, XlsxError};
use serde::Deserialize;
use serde_json::Value;

use super::workspace::WorkspaceError;

/// Rows and columns that a sheet may have; Excel's own limits are far higher.
const MOST_ROWS: usize = 100_000;
const MOST_COLUMNS: usize = 500;
/// Integers beyond this lose digits in a spreadsheet's number, and are written as text.
const EXACT: i64 = 1 << 53;
/// Functions that reach out of the file, or hide from a check where they point.
const FORBIDDEN: &[&str] = &[
    "WEBSERVICE",
    "HYPERLINK",
    "IMPORTDATA",
    "IMPORTXML",
    "IMPORTHTML",
    "IMPORTRANGE",
    "IMPORTFEED",
    "IMAGE",
    "RTD",
    "DDE",
    "CALL",
    "REGISTER.ID",
    "EXEC",
    "INDIRECT",
    "FILTERXML",
    "CUBEVALUE",
    "SQL.REQUEST",
];

/// A sheet as a tool is given it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sheet {
    name: String,
    columns: Vec<String>,
    #[serde(default)]
    rows: Vec<Vec<Value>>,
    #[serde(default)]
    formulas: Vec<Formula>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Formula {
    /// Such as `D2`; row 1 are the names of the columns.
    cell: String,
    formula: String,
}

/// A cell, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    row: usize,
    column: usize,
}

fn refused(text: String) -> WorkspaceError {
    WorkspaceError::Refused(text)
}

/// The bytes of an .xlsx file with these sheets.
///
/// # Errors
/// When a name, a table or a formula is wrong; the words say which.
pub(super) fn xlsx(sheets: &[Sheet]) -> Result<Vec<u8>, WorkspaceError> {
    check(sheets)?;
    let wrong = |error: XlsxError| refused(format!("the spreadsheet can not be written: {error}"));
    let mut book = Workbook::new();
    let made = ExcelDateTime::from_ymd(2000, 1, 1).map_err(wrong)?;
    book.set_properties(&DocProperties::new().set_creation_datetime(&made));
    let head = Format::new().set_bold();
    for sheet in sheets {
        let page = book.add_worksheet();
        page.set_name(&sheet.name).map_err(wrong)?;
        for (column, name) in (0..).zip(&sheet.columns) {
            page.write_string_with_format(0, column, name, &head)
                .map_err(wrong)?;
        }
        for (row, cells) in (1..).zip(&sheet.rows) {
            for (column, cell) in (0..).zip(cells) {
                write(page, row, column, cell).map_err(wrong)?;
            }
        }
        for formula in &sheet.formulas {
            let Some(at) = cell(&formula.cell) else {
                continue;
            };
            let row = u32::try_from(at.row).unwrap_or(u32::MAX);
            let column = u16::try_from(at.column).unwrap_or(u16::MAX);
            page.write_formula(row, column, &*formula.formula)
                .map_err(wrong)?;
        }
        page.set_freeze_panes(1, 0).map_err(wrong)?;
    }
    book.save_to_buffer().map_err(wrong)
}

fn write(page: &mut Worksheet, row: u32, column: u16, cell: &Value) -> Result<(), XlsxError> {
    match cell {
        Value::Null => {}
        Value::Bool(is_so) => {
            page.write_boolean(row, column, *is_so)?;
        }
        Value::String(text) => {
            page.write_string(row, column, text)?;
        }
        Value::Number(number) => {
            let is_exact = number.as_i64().is_none_or(|int| int.abs() < EXACT);
            match number.as_f64().filter(|_| is_exact) {
                Some(value) => page.write_number(row, column, value)?,
                None => page.write_string(row, column, number.to_string())?,
            };
        }
        other => {
            page.write_string(row, column, other.to_string())?;
        }
    }
    Ok(())
}

/// The bytes of a .csv file with the one sheet that a .csv file can hold.
///
/// # Errors
/// When there are several sheets, or formulas.
pub(super) fn csv(sheets: &[Sheet]) -> Result<Vec<u8>, WorkspaceError> {
    check(sheets)?;
    let [sheet] = sheets else {
        return Err(refused("a .csv file holds one sheet; use .xlsx".to_owned()));
    };
    if !sheet.formulas.is_empty() {
        return Err(refused(
            "a .csv file holds no formulas; use .xlsx".to_owned(),
        ));
    }
    let mut text = String::new();
    let line = |cells: Vec<String>| cells.join(",") + "\r\n";
    text += &line(sheet.columns.iter().map(|name| field(name)).collect());
    for row in &sheet.rows {
        let cells = row.iter().map(|cell| match cell {
            Value::Null => String::new(),
            Value::String(text) => field(text),
            other => other.to_string(),
        });
        text += &line(cells.collect());
    }
    Ok(text.into_bytes())
}

/// A field of text. One that a spreadsheet would take for a formula gets an apostrophe before it.
fn field(text: &str) -> String {
    let is_number = text.parse::<f64>().is_ok();
    let acts = text.starts_with(['=', '+', '-', '@', '\t']) && !is_number;
    let text = if acts {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

fn check(sheets: &[Sheet]) -> Result<(), WorkspaceError> {
    if sheets.is_empty() {
        return Err(refused("there is no sheet to write".to_owned()));
    }
    for sheet in sheets {
        let (name, columns) = (&sheet.name, sheet.columns.len());
        if sheet.rows.len() > MOST_ROWS || columns > MOST_COLUMNS {
            return Err(refused(format!(
                "sheet `{name}` is larger than {MOST_ROWS} rows and {MOST_COLUMNS} columns"
            )));
        }
        let is_long = |row: &&Vec<Value>| row.len() > columns;
        if let Some(row) = sheet.rows.iter().find(is_long) {
            return Err(refused(format!(
                "a row of sheet `{name}` has {} cells for {columns} columns",
                row.len()
            )));
        }
        for formula in &sheet.formulas {
            check_formula(sheets, sheet, formula)?;
        }
    }
    Ok(())
}

/// What lies in a sheet: its table, and the cells of formulas beside and below it.
fn contains(sheet: &Sheet, at: Cell) -> bool {
    let in_table = at.row <= sheet.rows.len() && at.column < sheet.columns.len();
    in_table || sheet.formulas.iter().any(|it| cell(&it.cell) == Some(at))
}

fn check_formula(sheets: &[Sheet], sheet: &Sheet, formula: &Formula) -> Result<(), WorkspaceError> {
    let place = format!("{}!{}", sheet.name, formula.cell);
    let wrong = |why: String| refused(format!("the formula in {place} {why}"));
    let at = cell(&formula.cell)
        .filter(|at| at.row > 0 && at.column < MOST_COLUMNS && at.row <= MOST_ROWS);
    if at.is_none() {
        return Err(wrong("is in no cell; name one such as D2".to_owned()));
    }
    let Some(text) = formula.formula.strip_prefix('=') else {
        return Err(wrong("does not begin with `=`".to_owned()));
    };
    for word in words(text) {
        match word {
            Word::Outside => {
                return Err(wrong("points out of the file".to_owned()));
            }
            Word::Function(name) => {
                if FORBIDDEN.contains(&name.to_ascii_uppercase().as_str()) {
                    return Err(wrong(format!("uses {name}, which is not allowed")));
                }
            }
            Word::Reference(page, reference) => {
                let of = match &page {
                    None => sheet,
                    Some(name) => sheets
                        .iter()
                        .find(|it| it.name.eq_ignore_ascii_case(name))
                        .ok_or_else(|| {
                            wrong(format!("names a sheet `{name}` that is not there"))
                        })?,
                };
                let bare = reference.replace('$', "");
                if cell(&bare).is_some_and(|at| !contains(of, at)) {
                    return Err(wrong(format!("refers to {bare}, where nothing is")));
                }
            }
        }
    }
    Ok(())
}

/// What a formula is made of, as far as it is looked at.
enum Word {
    Function(String),
    Reference(Option<String>, String),
    Outside,
}

fn words(formula: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = formula;
    let mut page: Option<String> = None;
    let mut last = None;
    while let Some(first) = rest.chars().next() {
        if let Some(inner) = rest.strip_prefix('"') {
            rest = inner.split_once('"').map_or("", |(_, behind)| behind);
        } else if let Some(inner) = rest.strip_prefix('\'') {
            let (name, behind) = inner.split_once('\'').unwrap_or((inner, ""));
            if name.contains(['[', '\\', '/']) {
                words.push(Word::Outside);
            }
            page = behind.starts_with('!').then(|| name.to_owned());
            rest = behind.strip_prefix('!').unwrap_or(behind);
        } else if first.is_alphabetic() || "_$".contains(first) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && !"_.$".contains(c));
            let (word, behind) = rest
                .split_at_checked(end.unwrap_or(rest.len()))
                .unwrap_or((rest, ""));
            rest = behind;
            if let Some(behind) = behind.strip_prefix('!') {
                page = Some(word.to_owned());
                rest = behind;
            } else if behind.starts_with('(') {
                words.push(Word::Function(word.to_owned()));
            } else {
                last.clone_from(&page);
                words.push(Word::Reference(page.take(), word.to_owned()));
            }
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.');
            rest = rest
                .split_at_checked(end.unwrap_or(rest.len()))
                .map_or("", |it| it.1);
        } else {
            if ['[', '|'].contains(&first) {
                words.push(Word::Outside);
            }
            let mut chars = rest.chars();
            chars.next();
            rest = chars.as_str();
            // The second cell of a range is on the sheet of the first.
            page = last.take().filter(|_| first == ':');
        }
    }
    words
}

/// Reads the name of a cell, such as `AB12`.
fn cell(name: &str) -> Option<Cell> {
    let digits = name.find(|c: char| c.is_ascii_digit())?;
    let (letters, number) = name.split_at_checked(digits)?;
    if letters.is_empty() || letters.len() > 3 || !number.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let column = letters.chars().try_fold(0_usize, |sum, letter| {
        let place = letter.to_ascii_uppercase().to_digit(36)?.checked_sub(9)?;
        Some(sum * 26 + usize::try_from(place).ok()?)
    })?;
    let row: usize = number.parse().ok()?;
    Some(Cell {
        row: row.checked_sub(1)?,
        column: column.checked_sub(1)?,
    })
}
