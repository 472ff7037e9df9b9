//! A statement for people and programs: HTML with a style for print, CSV, JSON.

use std::fmt::Write;

use meter::NanoUsd;
use meter::books::statement::{Line, Statement};

use super::export::quoted;

/// How a statement is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Html,
    Csv,
    Json,
}

impl Format {
    /// Its media type.
    pub(crate) const fn media(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

const COLUMNS: [&str; 11] = [
    "kind",
    "project",
    "model",
    "lane",
    "price",
    "class",
    "quantity",
    "unit_usd",
    "cost_usd",
    "sell_usd",
    "margin_usd",
];

const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{padding:.25rem .5rem;border-bottom:1px solid #ccc;text-align:left}\
.n{text-align:right;font-variant-numeric:tabular-nums}tfoot{font-weight:bold}\
.seal{color:#555;font-size:.8rem;overflow-wrap:anywhere}\
@media print{@page{size:A4;margin:15mm}body{margin:0;font-size:10px}thead{display:table-header-group}tr{break-inside:avoid}}";

/// The statement in a format.
pub(crate) fn statement(statement: &Statement, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => {
            let mut json = serde_json::to_value(statement)?;
            if let Some(fields) = json.as_object_mut() {
                fields.insert("hash".to_owned(), statement.hash.as_str().into());
            }
            serde_json::to_string_pretty(&json)?
        }
        Format::Csv => csv(statement),
        Format::Html => html(statement),
    })
}

/// Every line with an amount: those of the month, notes, what waits, what the plan adds, credits, and what is due.
fn rows(statement: &Statement) -> Vec<[String; 11]> {
    let none = String::new;
    let mut rows: Vec<[String; 11]> = statement.lines.iter().map(row).collect();
    let extra = |kind: &str, text: String, cost: String, sell: NanoUsd| {
        [
            kind.to_owned(),
            none(),
            text,
            none(),
            none(),
            none(),
            none(),
            none(),
            cost,
            sell.to_usd(),
            none(),
        ]
    };
    for note in &statement.notes {
        let kind = if note.sell < NanoUsd::ZERO {
            "credit note"
        } else {
            "debit note"
        };
        let text = format!(
            "{} of statement {}, {}",
            note.kind, note.statement, note.month
        );
        rows.push(extra(kind, text, note.cost.to_usd(), note.sell));
    }
    let totals = &statement.totals;
    if totals.suspense != NanoUsd::ZERO {
        let text = "estimates that wait for a bill".to_owned();
        rows.push(extra("not due yet", text, none(), -totals.suspense));
    }
    for line in &statement.plan {
        let text = format!("{}, {}", line.label, line.quantity);
        rows.push(extra("plan", text, none(), line.amount));
    }
    for used in &statement.credits {
        let text = format!("{} ({})", used.grant, used.reason);
        rows.push(extra("credit", text, none(), -used.amount));
    }
    rows
}

fn row(line: &Line) -> [String; 11] {
    let tier = match line.context_tier {
        0 => String::new(),
        above => format!(" above {above} tokens"),
    };
    let pico = u128::from(line.unit_pico.unsigned_abs());
    let unit = format!(
        "{}.{:012}",
        pico / 1_000_000_000_000,
        pico % 1_000_000_000_000
    );
    [
        line.kind.as_str().to_owned(),
        line.project.clone(),
        line.model.clone(),
        line.lane.clone(),
        format!("{}{tier}", line.price),
        line.class.clone(),
        line.quantity.to_string(),
        if pico == 0 { String::new() } else { unit },
        line.cost.to_usd(),
        line.sell.to_usd(),
        line.margin.to_usd(),
    ]
}

fn csv(statement: &Statement) -> String {
    let mut text = COLUMNS.join(",");
    for row in rows(statement) {
        text.push('\n');
        text.push_str(&row.map(|cell| quoted(&cell)).join(","));
    }
    // Writing to a String can not fail.
    let _written = writeln!(text, "\ndue,,,,,,,,,{},", statement.totals.due);
    text
}

fn html(statement: &Statement) -> String {
    let title = format!(
        "Statement {} of {}",
        statement.month,
        escaped(&statement.tenant)
    );
    let status = match statement.number {
        0 => "draft".to_owned(),
        _ if statement.closed_at_ms.is_none() => "draft".to_owned(),
        number => format!("number {number}, closed"),
    };
    let mut text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style><h1>{title}</h1><p>{status}; amounts in {}; calls belong to the month, \
         in UTC, in which they began</p><table><thead><tr>",
        statement.currency
    );
    for (place, name) in COLUMNS.iter().enumerate() {
        let _written = write!(
            text,
            "<th scope=\"col\"{}>{}</th>",
            right(place),
            name.replace('_', " ")
        );
    }
    text.push_str("</tr></thead><tbody>");
    for row in rows(statement) {
        text.push_str("<tr>");
        for (place, cell) in row.iter().enumerate() {
            let _written = write!(text, "<td{}>{}</td>", right(place), escaped(cell));
        }
        text.push_str("</tr>");
    }
    let totals = &statement.totals;
    let _written = write!(
        text,
        "</tbody><tfoot><tr><td colspan=\"8\">lines</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{}</td></tr><tr><td colspan=\"9\">due</td><td class=\"n\">{}</td><td></td></tr>\
         </tfoot></table><p class=\"seal\">SHA-256 {} after {}</p></html>",
        totals.cost, totals.sell, totals.margin, totals.due, statement.hash, statement.previous
    );
    text
}

fn right(place: usize) -> &'static str {
    if place >= 6 { " class=\"n\"" } else { "" }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
