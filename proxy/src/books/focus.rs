//! FOCUS, the FinOps Open Cost and Usage Specification: one row an hour, tenant, project, key, model,
//! lane, price tier and token class. Amounts have twelve places, so that unit price times quantity is
//! the cost, exactly; what rounding made of the entries is a row of its own.

mod names;

use std::collections::HashMap;

use meter::NanoUsd;
use meter::books::Group;
use meter::books::change::{CLASSES, half_even};
use meter::books::split::split;
use meter::books::statement::{Month, Statement, Used};
use serde_json::json;

use super::export::Version;

const HOUR_MS: i64 = 3_600_000;

/// Names of closed statements, by tenant and month.
pub(super) struct Invoices(HashMap<(String, Month), String>);

impl Invoices {
    pub(super) fn of(closed: &[Statement]) -> Self {
        let names = closed
            .iter()
            .map(|it| ((it.tenant.clone(), it.month), it.name()));
        Self(names.collect())
    }
}

/// The columns of a version, ours behind the specification's.
pub(super) fn columns(version: Version) -> Vec<&'static str> {
    let gone = |name: &&&str| version == Version::V14 && names::GONE_IN_14.contains(name);
    let mut columns: Vec<&str> = names::V12
        .iter()
        .filter(|name| !gone(name))
        .copied()
        .collect();
    if version != Version::V12 {
        columns.extend(names::NEW_IN_13);
    }
    if version == Version::V14 {
        columns.extend(names::NEW_IN_14);
    }
    columns.sort_unstable();
    columns.extend(names::OURS);
    columns
}

/// One row. Money is in pico-USD.
#[derive(Debug, Clone)]
pub(super) struct Row<'a> {
    tenant: &'a str,
    group: Option<&'a Group>,
    start_ms: i64,
    end_ms: i64,
    category: &'static str,
    is_correction: bool,
    description: String,
    class: Option<usize>,
    quantity: Option<i64>,
    list_unit: i64,
    unit: i64,
    list: i128,
    cost: i128,
    billed: i128,
    /// Calls and baseline stand on one row of their group.
    calls: u64,
    baseline: i128,
    invoice: Option<String>,
}

/// The rows of a group; their costs are the group's.
pub(super) fn rows<'a>(
    group: &'a Group,
    units: Option<[i64; 9]>,
    invoices: &Invoices,
) -> Vec<Row<'a>> {
    let sum = &group.change;
    let pico = |nano: i64| i128::from(nano) * 1_000;
    let month = Month::of(group.start_ms);
    let whole = Row {
        tenant: &group.tenant,
        group: Some(group),
        start_ms: group.start_ms,
        end_ms: group.start_ms + HOUR_MS,
        category: "Usage",
        is_correction: group.kind != "settle",
        description: format!("{} {}", group.model, group.kind),
        class: None,
        quantity: None,
        list_unit: 0,
        unit: 0,
        list: pico(sum.list.0),
        cost: pico(sum.cost.0),
        billed: pico(sum.sell.0),
        calls: group.rows,
        baseline: pico(sum.baseline.0),
        invoice: invoices.0.get(&(group.tenant.clone(), month)).cloned(),
    };
    if whole.is_correction {
        return vec![whole];
    }
    let mut found: Vec<Row<'_>> = Vec::new();
    let mut rest = Row {
        category: "Adjustment",
        description: format!(
            "{}: rounding, and estimates without a unit price",
            group.model
        ),
        ..whole.clone()
    };
    for it in split(sum, group.rows, units).parts {
        let list_unit = portion(sum.list, it.unit_pico.into(), sum.cost);
        let row = Row {
            description: format!("{} {} tokens", group.model, class_name(it.class)),
            class: Some(it.class),
            quantity: Some(it.quantity),
            list_unit,
            unit: it.unit_pico,
            list: i128::from(list_unit) * i128::from(it.quantity),
            cost: it.cost_pico,
            billed: i128::from(portion(sum.sell, it.cost_pico, sum.cost)),
            calls: if found.is_empty() { whole.calls } else { 0 },
            baseline: if found.is_empty() { whole.baseline } else { 0 },
            ..whole.clone()
        };
        rest.list -= row.list;
        rest.cost -= row.cost;
        rest.billed -= row.billed;
        found.push(row);
    }
    if !found.is_empty() {
        (rest.calls, rest.baseline) = (0, 0);
    }
    if rest.cost != 0 || rest.billed != 0 || rest.list != 0 || found.is_empty() {
        found.push(rest);
    }
    found
}

/// A credit that a statement used.
pub(super) fn credit<'a>(statement: &'a Statement, used: &Used) -> Row<'a> {
    let amount = -i128::from(used.amount.0) * 1_000;
    Row {
        tenant: &statement.tenant,
        group: None,
        start_ms: statement.month.start_ms(),
        end_ms: statement.month.end_ms(),
        category: "Credit",
        is_correction: false,
        description: format!("Credit {}: {}", used.grant, used.reason),
        class: None,
        quantity: None,
        list_unit: 0,
        unit: 0,
        list: 0,
        cost: 0,
        billed: amount,
        calls: 0,
        baseline: 0,
        invoice: Some(statement.name()),
    }
}

fn class_name(class: usize) -> &'static str {
    CLASSES.get(class).copied().unwrap_or_default()
}

fn unit_name(class: &str) -> &'static str {
    if class == "web_searches" {
        "Requests"
    } else {
        "Tokens"
    }
}

/// The part of an amount in nano-USD that goes with a part of the cost, both in pico-USD.
fn portion(amount: NanoUsd, cost_pico: i128, cost: NanoUsd) -> i64 {
    let product = i128::from(amount.0).saturating_mul(cost_pico);
    half_even(product, i128::from(cost.0)).unwrap_or(0)
}

impl Row<'_> {
    /// What stands in a column; `None` for null.
    pub(super) fn cell(&self, column: &str) -> Option<String> {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let usd = "USD".to_owned();
        let month = Month::of(self.start_ms);
        match column {
            "BilledCost" => Some(amount(self.billed)),
            "EffectiveCost" | "ContractedCost" | "PricingCurrencyEffectiveCost" => {
                Some(amount(self.cost))
            }
            "ListCost" => Some(amount(self.list)),
            "BillingAccountId" | "BillingAccountName" => text(self.tenant),
            "BillingAccountType" => text("Tenant"),
            "BillingCurrency" | "PricingCurrency" => Some(usd),
            "BillingPeriodStart" => Some(moment(month.start_ms())),
            "BillingPeriodEnd" => Some(moment(month.end_ms())),
            "ChargeCategory" => text(self.category),
            "ChargeClass" => self.is_correction.then(|| "Correction".to_owned()),
            "ChargeDescription" => text(&self.description),
            "ChargeFrequency" => text(if self.group.is_some() {
                "Usage-Based"
            } else {
                "One-Time"
            }),
            "ChargePeriodStart" => Some(moment(self.start_ms)),
            "ChargePeriodEnd" => Some(moment(self.end_ms)),
            "InvoiceId" => self.invoice.clone(),
            // Who sells to the tenant and is paid is who bills; the vendor published the model.
            "InvoiceIssuerName" | "ProviderName" => text("Pareto"),
            "ServiceCategory" => text("AI and Machine Learning"),
            "ServiceSubcategory" => text("Generative AI"),
            "ServiceName" => text("Model API"),
            "PublisherName" | "ServiceProviderName" | "HostProviderName" => Some(self.vendor()),
            "x_Requests" => Some(self.calls.to_string()),
            "x_BaselineCost" => Some(amount(self.baseline)),
            _ => self.priced(column).or_else(|| self.grouped(column)),
        }
    }

    /// Columns of rows that have a quantity at a unit price.
    fn priced(&self, column: &str) -> Option<String> {
        let quantity = self.quantity?;
        let group = self.group?;
        let class = self.class.map(class_name)?;
        let unit = unit_name(class);
        let answer = matches!(class, "output" | "reasoning" | "audio_output");
        let cache = match class {
            "cache_read" => "Read",
            "cache_write_5m" | "cache_write_1h" => "Write",
            _ => "Uncached",
        };
        let direction = if answer { "Output" } else { "Input" };
        match column {
            // A column of whole numbers would be read as one of integers, and must be of decimals.
            "ConsumedQuantity" | "PricingQuantity" => Some(format!("{quantity}.0")),
            "ConsumedUnit" | "PricingUnit" => Some(unit.to_owned()),
            "ListUnitPrice" | "PricingCurrencyListUnitPrice" => Some(amount(self.list_unit.into())),
            "ContractedUnitPrice" | "PricingCurrencyContractedUnitPrice" => {
                Some(amount(self.unit.into()))
            }
            "PricingCategory" => Some(
                if group.lane == "standard" {
                    "Standard"
                } else {
                    "Other"
                }
                .to_owned(),
            ),
            "SkuId" => Some(group.model.clone()),
            "SkuMeter" => Some(format!("{direction} {unit}")),
            "SkuPriceId" => Some(format!(
                "{}/{}/{}/{}/{class}",
                group.model, group.lane, group.context_tier, group.price
            )),
            "SkuPriceDetails" => Some(
                json!({ "x_TokenDirection": direction, "x_TokenCacheAction": cache,
                    "x_Lane": group.lane, "x_ContextTier": group.context_tier })
                .to_string(),
            ),
            "x_TokenClass" => Some(class.to_owned()),
            "x_TokenDirection" => Some(direction.to_owned()),
            "x_TokenCacheAction" => Some(cache.to_owned()),
            _ => None,
        }
    }

    /// Columns that tell groups apart.
    fn grouped(&self, column: &str) -> Option<String> {
        let group = self.group?;
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        match column {
            "SubAccountId" | "SubAccountName" => text(&group.project),
            "SubAccountType" => text(&group.project).map(|_| "Project".to_owned()),
            "Tags" => Some(json!({ "team": group.team, "key": group.key }).to_string()),
            "x_Team" => text(&group.team),
            "x_KeyId" => text(&group.key),
            "x_Model" => text(&group.model),
            "x_Endpoint" => text(&group.endpoint),
            "x_Lane" => text(&group.lane),
            "x_UsageSource" => text(&group.source),
            "x_CorrectionKind" => self.is_correction.then(|| group.kind.clone()),
            _ => None,
        }
    }

    /// Who made the model: the first part of its price's id, else the endpoint.
    fn vendor(&self) -> String {
        let Some(group) = self.group else {
            return "Pareto".to_owned();
        };
        let named = group.price.split_once('/').map(|(vendor, _)| vendor);
        let named = named.unwrap_or(&group.endpoint);
        if named.is_empty() { "Unknown" } else { named }.to_owned()
    }
}

/// Pico-USD as decimal USD, without needless zeros.
fn amount(pico: i128) -> String {
    let sign = if pico < 0 { "-" } else { "" };
    let pico = pico.unsigned_abs();
    let (whole, part) = (pico / 1_000_000_000_000, pico % 1_000_000_000_000);
    let part = format!("{part:012}");
    let part = part.trim_end_matches('0');
    let point = if part.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{part}")
}

fn moment(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| String::new(), |at| at.to_string())
}

#[cfg(test)]
mod tests;
