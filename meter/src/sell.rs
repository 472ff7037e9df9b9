//! What tenants pay: plans with a rule, a monthly fee and included credits. Cost and sell price are two
//! books over one usage; nothing here changes what a call costs us.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use wire::Usage;

use crate::config::{Overage, SellConfig, SellMeasure, SellRule};
use crate::money::{NanoUsd, ParseMoneyError, PicoPerUnit, PicoSum, Ratio};
use crate::price::{ReadBookError, Unpriced};
use crate::{PriceBook, price};

/// The plans, and who is on which.
#[derive(Debug, Default)]
pub struct SellBook {
    plans: Vec<Plan>,
    by_tenant: HashMap<String, usize>,
    /// The plan of all others.
    rest: Option<usize>,
}

/// What a group of tenants pays.
#[derive(Debug)]
pub struct Plan {
    pub name: String,
    pub monthly_fee: NanoUsd,
    /// USD each month that pay for use before anything else does.
    pub included: NanoUsd,
    /// USD of one credit.
    pub credit_value: NanoUsd,
    pub overage: Overage,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    Markup(Ratio),
    Fixed(std::sync::Arc<price::Rates>),
    Graduated(SellMeasure, Vec<Step>),
    Volume(SellMeasure, Vec<Step>),
    Package {
        measure: SellMeasure,
        size: u64,
        price: NanoUsd,
    },
}

/// Units up to a number, with their price.
#[derive(Debug, Clone, Copy)]
struct Step {
    up_to: u64,
    price: StepPrice,
    flat: NanoUsd,
}

#[derive(Debug, Clone, Copy)]
enum StepPrice {
    /// For one unit.
    Each(PicoPerUnit),
    /// On cost in nano-USD.
    OnCost(Ratio),
}

/// A tenant's month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MonthUse {
    pub usage: Usage,
    pub calls: u64,
    pub cost: NanoUsd,
    /// The sum of what [`SellBook::unit`] gave for each charge, for rules that go by the charge.
    pub sold: NanoUsd,
}

/// A line of a month's bill. Credits are below zero; the sum of all lines is to be paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SellLine {
    pub kind: SellLineKind,
    /// What it is for, for people.
    pub label: String,
    /// Tokens, calls, packages, credits, nano-USD of cost, or 1.
    pub quantity: u64,
    pub amount: NanoUsd,
}

/// What a line of a bill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SellLineKind {
    MonthlyFee,
    Usage,
    StepFee,
    /// What rounding each line took or gave.
    Rounding,
    CreditsUsed,
    /// Use beyond the credits of a plan that blocks: not charged.
    Waived,
}

/// The plans can not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadSellError {
    #[error("plan `{0}`: {1}")]
    Amount(String, ParseMoneyError),
    #[error("plan `{0}`: {1}")]
    Price(String, ReadBookError),
    #[error("plan `{0}`: {1}")]
    Unpriced(String, Unpriced),
    #[error("plan `{0}`: {1}")]
    Shape(String, &'static str),
    #[error("tenant `{0}` is on two plans; take it out of one")]
    Twice(String),
}

impl SellBook {
    /// Reads the plans.
    ///
    /// # Errors
    /// When an amount can not be read, a rule lacks what it needs, or a tenant is on two plans.
    pub fn read(plans: &[SellConfig]) -> Result<Self, ReadSellError> {
        let mut book = Self::default();
        for (place, config) in plans.iter().enumerate() {
            book.plans.push(Plan::read(config)?);
            for tenant in &config.tenants {
                if book.by_tenant.insert(tenant.clone(), place).is_some() {
                    return Err(ReadSellError::Twice(tenant.clone()));
                }
            }
            if config.tenants.is_empty() && book.rest.replace(place).is_some() {
                let what = "two plans name no tenants; one alone can be the plan of all the rest";
                return Err(ReadSellError::Shape(config.plan.clone(), what));
            }
        }
        Ok(book)
    }

    /// The plan of `tenant`; `None` where it has none and pays what its calls cost.
    pub fn plan(&self, tenant: &str) -> Option<&Plan> {
        let place = self.by_tenant.get(tenant).copied().or(self.rest)?;
        self.plans.get(place)
    }

    /// What `tenant` pays for one charge: rounded once, halves to even. Nothing where its rule goes by
    /// the month.
    pub fn unit(&self, tenant: &str, usage: &Usage, cost: NanoUsd) -> NanoUsd {
        match self.plan(tenant).map(|plan| &plan.rule) {
            None => cost,
            Some(Rule::Markup(factor)) => PicoSum::of(cost).times(*factor).round(),
            Some(Rule::Fixed(rates)) => rates.cost(usage),
            Some(Rule::Graduated(..) | Rule::Volume(..) | Rule::Package { .. }) => NanoUsd::ZERO,
        }
    }

    /// What a month adds to the sum of what [`SellBook::unit`] gave for each of its charges.
    pub fn beside_charges(&self, tenant: &str, used: &MonthUse) -> Vec<SellLine> {
        let by_charge = self
            .plan(tenant)
            .is_none_or(|plan| matches!(plan.rule, Rule::Markup(_) | Rule::Fixed(_)));
        let mut lines = self.month(tenant, used);
        if by_charge {
            lines.retain(|line| line.kind != SellLineKind::Usage);
        }
        lines
    }

    /// The bill of a month. Each line is rounded, and a line of its own brings their sum to the exact
    /// one, rounded once.
    pub fn month(&self, tenant: &str, used: &MonthUse) -> Vec<SellLine> {
        let Some(plan) = self.plan(tenant) else {
            return vec![line(
                SellLineKind::Usage,
                "usage at cost",
                used.calls,
                used.cost,
            )];
        };
        let mut lines = Vec::new();
        if plan.monthly_fee > NanoUsd::ZERO {
            let label = format!("plan {}", plan.name);
            lines.push(line(SellLineKind::MonthlyFee, &label, 1, plan.monthly_fee));
        }
        let exact = plan.used(used);
        let whole = exact
            .iter()
            .fold(PicoSum::default(), |sum, (_, amount)| sum.plus(*amount))
            .round();
        let mut shown = NanoUsd::ZERO;
        for (mut line, amount) in exact {
            line.amount = amount.round();
            shown += line.amount;
            lines.push(line);
        }
        if whole != shown {
            lines.push(line(SellLineKind::Rounding, "rounding", 1, whole - shown));
        }
        lines.extend(plan.credits(whole));
        lines
    }
}

fn line(kind: SellLineKind, label: &str, quantity: u64, amount: NanoUsd) -> SellLine {
    SellLine {
        kind,
        label: label.to_owned(),
        quantity,
        amount,
    }
}

impl Plan {
    /// What is left of this month's credits after use worth `sold`.
    pub fn left(&self, sold: NanoUsd) -> NanoUsd {
        (self.included - sold).max(NanoUsd::ZERO)
    }

    fn read(config: &SellConfig) -> Result<Self, ReadSellError> {
        let wrong = |error| ReadSellError::Amount(config.plan.clone(), error);
        let amount = |text: &Option<String>| match text {
            Some(text) => positive(text).map_err(wrong),
            None => Ok(NanoUsd::ZERO),
        };
        let credit_value = match &config.credit_value {
            Some(text) => positive(text).map_err(wrong)?,
            None => NanoUsd::from_usd("1").map_err(wrong)?,
        };
        // Credits may have decimals: their number in billionths times their value.
        let credits = u64::try_from(amount(&config.included_credits)?.0).unwrap_or(0);
        let included = PicoSum::of(credit_value).parts(credits, 1_000_000_000);
        Ok(Self {
            name: config.plan.clone(),
            monthly_fee: amount(&config.monthly_fee)?,
            included: included.round(),
            credit_value,
            overage: config.overage,
            rule: Rule::read(config)?,
        })
    }

    /// The lines of use, with their exact amounts.
    fn used(&self, used: &MonthUse) -> Vec<(SellLine, PicoSum)> {
        let flat = |amount: NanoUsd| {
            (
                line(SellLineKind::Usage, "usage", used.calls, amount),
                PicoSum::of(amount),
            )
        };
        match &self.rule {
            Rule::Markup(_) | Rule::Fixed(_) => vec![flat(used.sold)],
            Rule::Graduated(measure, steps) => graduated(steps, measured(*measure, used)),
            Rule::Volume(measure, steps) => volume(steps, measured(*measure, used)),
            Rule::Package {
                measure,
                size,
                price,
            } => {
                let packages = measured(*measure, used).div_ceil((*size).max(1));
                let label = format!("packages of {size}");
                let amount = PicoSum::of(*price).parts(packages, 1);
                vec![(
                    line(SellLineKind::Usage, &label, packages, NanoUsd::ZERO),
                    amount,
                )]
            }
        }
    }

    /// What credits pay of use worth `sold`, and what is not charged beyond them.
    fn credits(&self, sold: NanoUsd) -> Vec<SellLine> {
        let paid = sold.min(self.included);
        let mut lines = Vec::new();
        if paid > NanoUsd::ZERO {
            let count = i128::from(paid.0).checked_div(i128::from(self.credit_value.0));
            let count = u64::try_from(count.unwrap_or(0)).unwrap_or(0);
            lines.push(line(
                SellLineKind::CreditsUsed,
                "included credits",
                count,
                -paid,
            ));
        }
        let beyond = sold - paid;
        if self.overage == Overage::Block && self.included > NanoUsd::ZERO && beyond > NanoUsd::ZERO
        {
            lines.push(line(SellLineKind::Waived, "beyond the credits", 1, -beyond));
        }
        lines
    }
}

impl Rule {
    fn read(config: &SellConfig) -> Result<Self, ReadSellError> {
        let lacks = |what| ReadSellError::Shape(config.plan.clone(), what);
        let wrong = |error| ReadSellError::Amount(config.plan.clone(), error);
        unused(config).map_or(Ok(()), |what| Err(lacks(what)))?;
        Ok(match config.rule {
            SellRule::Markup => {
                let pct = config
                    .pct
                    .as_deref()
                    .ok_or_else(|| lacks("`markup` needs `pct`"))?;
                Self::Markup(Ratio::read(pct).map_err(wrong)?.and_percent())
            }
            SellRule::Fixed => Self::fixed(config)?,
            SellRule::Graduated => Self::Graduated(config.measure, steps(config)?),
            SellRule::Volume => Self::Volume(config.measure, steps(config)?),
            SellRule::Package => {
                let needs = || lacks("`package` needs `package_size` and `package_price`");
                let size = config
                    .package_size
                    .filter(|size| *size > 0)
                    .ok_or_else(needs)?;
                let price = config.package_price.as_deref().ok_or_else(needs)?;
                Self::Package {
                    measure: config.measure,
                    size,
                    price: positive(price).map_err(wrong)?,
                }
            }
        })
    }

    /// Class prices are rated as a price of one's own is.
    fn fixed(config: &SellConfig) -> Result<Self, ReadSellError> {
        const CLASSES: [&str; 9] = [
            "input",
            "output",
            "cache_read",
            "cache_write",
            "cache_write_5m",
            "cache_write_1h",
            "reasoning",
            "audio_input",
            "web_search",
        ];
        if config
            .prices
            .keys()
            .any(|class| !CLASSES.contains(&class.as_str()))
        {
            let what = "`prices` has a class that [[price]] does not know";
            return Err(ReadSellError::Shape(config.plan.clone(), what));
        }
        let of = |class: &str| config.prices.get(class).cloned();
        let price = crate::config::PriceConfig {
            id: config.plan.clone(),
            input: of("input"),
            output: of("output"),
            cache_read: of("cache_read"),
            cache_write: of("cache_write"),
            cache_write_5m: of("cache_write_5m"),
            cache_write_1h: of("cache_write_1h"),
            reasoning: of("reasoning"),
            audio_input: of("audio_input"),
            web_search: of("web_search"),
            ..crate::config::PriceConfig::default()
        };
        let book = PriceBook::default().with_overrides(&[price]);
        let book = book.map_err(|error| ReadSellError::Price(config.plan.clone(), error))?;
        let rates = book.rates(&config.plan, price::STANDARD, 0);
        rates
            .map(Self::Fixed)
            .map_err(|error| ReadSellError::Unpriced(config.plan.clone(), error))
    }
}

/// The steps from the lowest up; a step without an end is the last one.
fn steps(config: &SellConfig) -> Result<Vec<Step>, ReadSellError> {
    let lacks = |what| ReadSellError::Shape(config.plan.clone(), what);
    let wrong = |error| ReadSellError::Amount(config.plan.clone(), error);
    let mut steps: Vec<Step> = Vec::with_capacity(config.tiers.len());
    for tier in &config.tiers {
        let up_to = match (&tier.up_to, config.measure) {
            (None, _) => u64::MAX,
            (Some(text), SellMeasure::Cost) => {
                u64::try_from(positive(text).map_err(wrong)?.0).unwrap_or(0)
            }
            (Some(text), SellMeasure::Tokens | SellMeasure::Calls) => {
                let units = text.parse();
                units.map_err(|_| lacks("`up_to` must be a whole number in quotes"))?
            }
        };
        if steps.last().is_some_and(|before| before.up_to >= up_to) {
            return Err(lacks(
                "`tiers` must rise, and the last one alone has no `up_to`",
            ));
        }
        let price = match config.measure {
            SellMeasure::Tokens => {
                StepPrice::Each(PicoPerUnit::per_million(&tier.unit_price).map_err(wrong)?)
            }
            SellMeasure::Calls => {
                StepPrice::Each(PicoPerUnit::each(&tier.unit_price).map_err(wrong)?)
            }
            SellMeasure::Cost => {
                StepPrice::OnCost(Ratio::read(&tier.unit_price).map_err(wrong)?.and_percent())
            }
        };
        let flat = tier
            .flat_fee
            .as_deref()
            .map(positive)
            .transpose()
            .map_err(wrong)?;
        steps.push(Step {
            up_to,
            price,
            flat: flat.unwrap_or(NanoUsd::ZERO),
        });
    }
    if steps.last().is_none_or(|last| last.up_to != u64::MAX) {
        return Err(lacks(
            "`graduated` and `volume` need `tiers`, the last one without `up_to`",
        ));
    }
    Ok(steps)
}

/// What is said and would change nothing: who wrote it takes it for what tenants pay.
fn unused(config: &SellConfig) -> Option<&'static str> {
    let goes_with = |rules: &[SellRule]| rules.contains(&config.rule);
    let steps = goes_with(&[SellRule::Graduated, SellRule::Volume]);
    let package = goes_with(&[SellRule::Package]);
    let measured = steps || package || config.measure == SellMeasure::default();
    let size = package || (config.package_size.is_none() && config.package_price.is_none());
    let all = [
        (
            goes_with(&[SellRule::Markup]) || config.pct.is_none(),
            "`pct` goes with the rule `markup` alone; leave it out",
        ),
        (
            goes_with(&[SellRule::Fixed]) || config.prices.is_empty(),
            "`prices` go with the rule `fixed` alone; leave them out",
        ),
        (
            steps || config.tiers.is_empty(),
            "`tiers` go with the rules `graduated` and `volume` alone; leave them out",
        ),
        (
            measured,
            "`measure` goes with the rules `graduated`, `volume` and `package` alone; leave it out",
        ),
        (
            size,
            "`package_size` and `package_price` go with the rule `package` alone; leave them out",
        ),
    ];
    all.into_iter()
        .find(|(is_used, _)| !is_used)
        .map(|(_, what)| what)
}

/// An amount that is not below zero.
fn positive(text: &str) -> Result<NanoUsd, ParseMoneyError> {
    NanoUsd::from_usd(text)
        .ok()
        .filter(|amount| *amount >= NanoUsd::ZERO)
        .ok_or_else(|| ParseMoneyError::of_usd(text))
}

/// Units of a month. Cost is counted in nano-USD.
fn measured(measure: SellMeasure, used: &MonthUse) -> u64 {
    match measure {
        SellMeasure::Tokens => used.usage.prompt().saturating_add(used.usage.answer()),
        SellMeasure::Calls => used.calls,
        SellMeasure::Cost => u64::try_from(used.cost.0).unwrap_or(0),
    }
}

impl Step {
    fn price(&self, units: u64) -> PicoSum {
        match self.price {
            StepPrice::Each(price) => {
                let mut sum = PicoSum::default();
                sum.add(units, price);
                sum
            }
            StepPrice::OnCost(factor) => {
                let nano = NanoUsd(i64::try_from(units).unwrap_or(i64::MAX));
                PicoSum::of(nano).times(factor)
            }
        }
    }

    fn lines(&self, units: u64) -> Vec<(SellLine, PicoSum)> {
        let label = match self.up_to {
            u64::MAX => "highest step".to_owned(),
            up_to => format!("step up to {up_to}"),
        };
        let mut lines = vec![(
            line(SellLineKind::Usage, &label, units, NanoUsd::ZERO),
            self.price(units),
        )];
        if self.flat > NanoUsd::ZERO {
            let fee = line(SellLineKind::StepFee, &label, 1, NanoUsd::ZERO);
            lines.push((fee, PicoSum::of(self.flat)));
        }
        lines
    }
}

/// Each unit at the price of its own step.
fn graduated(steps: &[Step], units: u64) -> Vec<(SellLine, PicoSum)> {
    let (mut lines, mut below) = (Vec::new(), 0);
    for step in steps {
        let within = units.min(step.up_to).saturating_sub(below);
        if within == 0 {
            break;
        }
        lines.extend(step.lines(within));
        below = step.up_to;
    }
    lines
}

/// All units at the price of the step that they reach.
fn volume(steps: &[Step], units: u64) -> Vec<(SellLine, PicoSum)> {
    let reached = steps.iter().find(|step| units <= step.up_to);
    match reached {
        Some(step) if units > 0 => step.lines(units),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
