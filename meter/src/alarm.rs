//! What a budget tells people before it is spent: thresholds reached, and a forecast beyond the limit.
//! Each is told once for each window, by an id that stays the same however often it is noticed.

use serde_json::json;

use crate::budget::Budget;
use crate::hold::Meter;
use crate::ledger::Tell;
use crate::money::NanoUsd;
use crate::standing::Unit;
use crate::window::Period;

/// A forecast is made when so many per cent of the window are over.
const FORECAST_FROM: i64 = 20;
/// Stands for the forecast among the thresholds that were told.
const FORECAST: u8 = u8::MAX;

impl Meter {
    /// What is to be told now, and was not told by this process before.
    pub fn alarms(&self, now_ms: i64) -> Vec<Tell> {
        let mut tells = Vec::new();
        for account in &self.accounts {
            let mut books = account.value().lock();
            for budget in books.budgets.values_mut() {
                if budget.unit == Unit::Usd && !budget.retired {
                    budget.roll(now_ms);
                    tells.append(&mut reached(budget, now_ms));
                }
            }
        }
        tells
    }

    /// The ledger has not taken what [`Meter::alarms`] gave: it is to be given again.
    pub fn alarms_lost(&self) {
        for account in &self.accounts {
            let mut books = account.value().lock();
            for budget in books.budgets.values_mut() {
                budget.told = (0, Vec::new());
            }
        }
    }
}

/// Where the window that alarms are told for begins: a rolling one is taken in whole lengths.
fn window_start(budget: &Budget, now_ms: i64) -> i64 {
    match budget.window.period {
        Period::Rolling(length) => now_ms
            .div_euclid(length.max(1))
            .saturating_mul(length.max(1)),
        _ => budget.span.start_ms,
    }
}

fn reached(budget: &mut Budget, now_ms: i64) -> Vec<Tell> {
    let start_ms = window_start(budget, now_ms);
    if budget.told.0 != start_ms {
        budget.told = (start_ms, Vec::new());
    }
    let limit = budget.limit.saturating_add(budget.extra(now_ms));
    let settled = budget.settled().max(budget.lease.settled);
    let mut tells = Vec::new();
    for per_cent in budget.thresholds.clone() {
        let share = i128::from(limit).saturating_mul(i128::from(per_cent));
        let spent = i128::from(settled).saturating_mul(100);
        if limit > 0 && spent >= share && !budget.told.1.contains(&per_cent) {
            budget.told.1.push(per_cent);
            let what = json!({ "threshold_percent": per_cent });
            tells.push(tell(
                budget,
                "budget.threshold",
                &per_cent.to_string(),
                &what,
                now_ms,
            ));
        }
    }
    if let Some(forecast) = forecast(budget, settled, now_ms)
        && forecast > limit
        && !budget.told.1.contains(&FORECAST)
    {
        budget.told.1.push(FORECAST);
        let what = json!({ "forecast_usd": NanoUsd(forecast).to_usd() });
        tells.push(tell(budget, "budget.forecast", "forecast", &what, now_ms));
    }
    tells
}

/// What will be settled at the window's end if spending goes on as it did.
fn forecast(budget: &Budget, settled: i64, now_ms: i64) -> Option<i64> {
    if matches!(budget.window.period, Period::Rolling(_)) {
        return None;
    }
    let end = budget.span.end_ms?;
    let length = end.saturating_sub(budget.span.start_ms);
    let gone = now_ms.saturating_sub(budget.span.start_ms);
    if gone.saturating_mul(100) < length.saturating_mul(FORECAST_FROM) {
        return None;
    }
    let whole = i128::from(settled)
        .saturating_mul(i128::from(length))
        .checked_div(i128::from(gone))?;
    Some(i64::try_from(whole).unwrap_or(i64::MAX))
}

fn tell(budget: &Budget, topic: &str, what: &str, more: &serde_json::Value, now_ms: i64) -> Tell {
    let id = format!("{topic}/{}/{}/{what}", budget.id, budget.told.0);
    let settled = budget.settled().max(budget.lease.settled);
    let mut payload = json!({
        "id": id,
        "type": topic,
        "at_ms": now_ms,
        "tenant": &*budget.tenant,
        "budget": &*budget.id,
        "name": budget.name,
        "hard": budget.hard,
        "window_start_ms": budget.told.0,
        "window_end_ms": budget.span.end_ms,
        "limit_usd": NanoUsd(budget.limit.saturating_add(budget.extra(now_ms))).to_usd(),
        "settled_usd": NanoUsd(settled).to_usd(),
    });
    if let (Some(whole), Some(more)) = (payload.as_object_mut(), more.as_object()) {
        whole.extend(more.clone());
    }
    Tell {
        id,
        topic: topic.to_owned(),
        payload: payload.to_string(),
        at_ms: now_ms,
    }
}
