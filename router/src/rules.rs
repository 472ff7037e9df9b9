//! Rules of the operator's own: which calls they mean, and what those may become. They are asked
//! before anything is scored.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::Tier;

use crate::policy::Model;
use crate::step::Step;

/// `[[policy.rule]]`: what holds for some calls. Every list that is given must have a pattern that
/// fits (`*` stands for any text); what is absent fits all. All rules that fit apply, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// What it is called in the ledger and in explanations.
    pub name: String,
    /// It is noted where it would apply, and changes nothing.
    pub dry_run: bool,
    pub tenants: Vec<String>,
    pub teams: Vec<String>,
    pub projects: Vec<String>,
    pub users: Vec<String>,
    pub workflows: Vec<String>,
    /// Sensitivity labels that a call bears.
    pub labels: Vec<String>,
    pub steps: Vec<Step>,
    /// What the caller wrote as `model`.
    pub asked: Vec<String>,
    /// Headers of the request, all of which must fit.
    pub headers: std::collections::BTreeMap<String, String>,
    /// Only these models.
    pub allow: Vec<String>,
    /// Not these models.
    pub deny: Vec<String>,
    /// Only endpoints in these regions.
    pub regions: Vec<String>,
    /// The tier, for calls that leave it to the router.
    pub tier: Option<Tier>,
    /// The class whose split counts the call.
    pub class: Option<String>,
    /// The least sensitivity label the call has.
    pub label: Option<String>,
    /// The longest time to the first content that a model may have shown lately, in milliseconds.
    pub max_first_byte_ms: Option<u32>,
    /// The call is refused with these words.
    pub refuse: Option<String>,
}

/// Who calls, and as what.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    pub tenant: &'a str,
    pub team: &'a str,
    pub project: &'a str,
    pub user: &'a str,
    pub workflow: &'a str,
    /// The sensitivity label that the call bears; empty where it bears none.
    pub label: &'a str,
    /// Regions that it may go to; empty: any.
    pub regions: &'a [String],
    pub step: Step,
    /// What was written as `model`.
    pub asked: &'a str,
    /// The value of a header, by its name.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
}

impl std::fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller")
            .field("tenant", &self.tenant)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

/// The rules in force, and the sensitivity labels from the least to the most sensitive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    pub(crate) rules: Vec<Rule>,
    pub(crate) labels: Vec<String>,
}

/// What the rules make of one call. Nothing is allocated where none applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruling {
    /// Places of the rules that apply, and of those that would if they were no dry runs.
    pub applied: Vec<usize>,
    pub would: Vec<usize>,
    pub tier: Option<Tier>,
    pub class: Option<Arc<str>>,
    /// The place of its label among the labels.
    pub label: usize,
    /// Regions that the caller keeps to; empty: any.
    pub regions: Vec<String>,
    /// The words it is refused with.
    pub refused: Option<String>,
}

/// Why a model may not have a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Barred {
    /// A rule names other models, or this one as forbidden.
    Rule,
    /// Its endpoint is not in a region that is asked for.
    Region,
    /// It may not see what is as sensitive.
    Label,
    /// It can not do what the call needs.
    Capability,
    /// Its window is smaller than the prompt, and another model's is not.
    Window,
    /// It has been slower lately than a rule allows.
    Latency,
}

impl Barred {
    /// The word used in the ledger and in explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Region => "region",
            Self::Label => "label",
            Self::Capability => "capability",
            Self::Window => "window",
            Self::Latency => "latency",
        }
    }
}

/// The label is none that the operator has named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label `{label}` is not known; {}", labels(known))]
pub struct UnknownLabel {
    pub label: String,
    pub known: String,
}

fn labels(known: &str) -> String {
    if known.is_empty() {
        return "the operator has named none, so leave it out".to_owned();
    }
    format!("write one of {known}, or none")
}

impl Rules {
    /// Rules over labels that go from the least to the most sensitive.
    pub fn new(rules: Vec<Rule>, labels: Vec<String>) -> Self {
        Self { rules, labels }
    }

    /// What the rules say of a call.
    ///
    /// # Errors
    /// When the call bears a label that nobody has named.
    pub fn judge(&self, caller: &Caller<'_>) -> Result<Ruling, UnknownLabel> {
        let mut ruling = Ruling {
            label: self.place(caller.label)?,
            regions: caller.regions.to_vec(),
            ..Ruling::default()
        };
        for (place, rule) in self.rules.iter().enumerate() {
            if !self.fits(rule, caller) {
                continue;
            }
            if rule.dry_run {
                ruling.would.push(place);
                continue;
            }
            ruling.applied.push(place);
            ruling.tier = ruling.tier.or(rule.tier);
            if let (None, Some(class)) = (&ruling.class, &rule.class) {
                ruling.class = Some(Arc::from(class.as_str()));
            }
            if let Some(label) = &rule.label {
                ruling.label = ruling.label.max(self.place(label)?);
            }
            if ruling.refused.is_none() {
                ruling.refused.clone_from(&rule.refuse);
            }
        }
        Ok(ruling)
    }

    /// The names of the rules at `places`.
    pub fn names<'a>(&'a self, places: &'a [usize]) -> impl Iterator<Item = &'a str> {
        places
            .iter()
            .filter_map(|place| self.rules.get(*place))
            .map(|rule| rule.name.as_str())
    }

    /// The label that a call was taken to bear; empty for the least sensitive.
    pub fn label(&self, ruling: &Ruling) -> &str {
        let worn = self.labels.get(ruling.label).filter(|_| ruling.label > 0);
        worn.map_or("", String::as_str)
    }

    /// Headers that any rule looks at.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        let names = self.rules.iter().flat_map(|rule| rule.headers.keys());
        names.map(String::as_str)
    }

    /// Why the rules keep `model` from a call, if they do. `first_byte_ms` is what it has shown lately.
    pub fn bar(
        &self,
        ruling: &Ruling,
        model: &Model,
        first_byte_ms: Option<u32>,
    ) -> Option<Barred> {
        let region = model.region.as_deref().unwrap_or_default();
        for rule in ruling.applied.iter().filter_map(|it| self.rules.get(*it)) {
            let is_listed = |list: &[String]| list.iter().any(|it| fits(it, &model.name));
            if (!rule.allow.is_empty() && !is_listed(&rule.allow)) || is_listed(&rule.deny) {
                return Some(Barred::Rule);
            }
            if !rule.regions.is_empty() && !rule.regions.iter().any(|it| fits(it, region)) {
                return Some(Barred::Region);
            }
        }
        if !ruling.regions.is_empty() && !ruling.regions.iter().any(|it| it == region) {
            return Some(Barred::Region);
        }
        // Where labels are in use, a model that has none may see the least sensitive calls alone.
        if ruling.label > model.label.unwrap_or(0) {
            return Some(Barred::Label);
        }
        // Last: a model that is named may be slow, and must not pass what stands behind for that.
        let slow = |rule: &Rule| Some(rule.max_first_byte_ms? < first_byte_ms?);
        let mut applied = ruling.applied.iter().filter_map(|it| self.rules.get(*it));
        let is_slow = applied.any(|rule| slow(rule) == Some(true));
        is_slow.then_some(Barred::Latency)
    }

    /// The place of a label; none at all is the least sensitive.
    fn place(&self, label: &str) -> Result<usize, UnknownLabel> {
        if label.is_empty() {
            return Ok(0);
        }
        let place = self.labels.iter().position(|known| known == label);
        place.ok_or_else(|| UnknownLabel {
            label: label.to_owned(),
            known: self.labels.join(", "),
        })
    }

    fn fits(&self, rule: &Rule, caller: &Caller<'_>) -> bool {
        let any = |list: &[String], text: &str| {
            list.is_empty() || list.iter().any(|pattern| fits(pattern, text))
        };
        any(&rule.tenants, caller.tenant)
            && any(&rule.teams, caller.team)
            && any(&rule.projects, caller.project)
            && any(&rule.users, caller.user)
            && any(&rule.workflows, caller.workflow)
            && any(&rule.labels, self.worn(caller.label))
            && any(&rule.asked, caller.asked)
            && (rule.steps.is_empty() || rule.steps.contains(&caller.step))
            && rule.headers.iter().all(|(name, pattern)| {
                (caller.header)(name).is_some_and(|value| fits(pattern, value))
            })
    }

    /// The label that a call counts as bearing.
    fn worn<'a>(&'a self, label: &'a str) -> &'a str {
        let least = self.labels.first().map_or("", String::as_str);
        if label.is_empty() { least } else { label }
    }
}

/// Whether `text` is `pattern`, in which each `*` stands for any text.
pub fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, mut rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    while let Some((middle, after)) = rest.split_once('*') {
        let Some(at) = text.find(middle) else {
            return false;
        };
        text = text.get(at + middle.len()..).unwrap_or_default();
        rest = after;
    }
    text.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, is) in [
            ("acme", "acme", true),
            ("acme", "acme2", false),
            ("acme*", "acme", true),
            ("*-eu", "gpt-eu", true),
            ("a*b*c", "a-x-b-y-c", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, text), is, "{pattern} and {text}");
        }
    }

    fn model(name: &str, region: Option<&str>, label: Option<usize>) -> Model {
        Model {
            region: region.map(Arc::from),
            label,
            ..Model::new(name, Tier::Fast, "a")
        }
    }

    fn caller<'a>(label: &'a str, header: &'a dyn Fn(&str) -> Option<&'a str>) -> Caller<'a> {
        Caller {
            tenant: "acme",
            team: "",
            project: "",
            user: "",
            workflow: "",
            label,
            regions: &[],
            step: Step::Plan,
            asked: "auto",
            header,
        }
    }

    #[derive(Deserialize)]
    struct File {
        rule: Vec<Rule>,
    }

    fn rules() -> Rules {
        let text = r#"
            [[rule]]
            name = "secrets stay at home"
            labels = ["secret"]
            regions = ["eu"]
            class = "careful"

            [[rule]]
            name = "mail is fast"
            headers = { "x-app" = "mail*" }
            tier = "fast"
            allow = ["gpt-*"]

            [[rule]]
            name = "nobody plans"
            steps = ["plan"]
            refuse = "no plans"
            dry_run = true
        "#;
        let file: File = toml::from_str(text).expect("rules");
        Rules::new(file.rule, vec!["open".to_owned(), "secret".to_owned()])
    }

    #[test]
    fn what_fits_applies_and_bars_models() {
        let rules = rules();
        let none = |_: &str| None;
        let secret = rules.judge(&caller("secret", &none)).expect("a label");
        assert_eq!(
            (&secret.applied[..], &secret.would[..]),
            (&[0][..], &[2][..])
        );
        assert_eq!(secret.class.as_deref(), Some("careful"));
        assert_eq!(secret.refused, None, "a dry run refuses nothing");
        let bar = |model: &Model| rules.bar(&secret, model, None);
        assert_eq!(bar(&model("m", Some("eu"), Some(1))), None);
        assert_eq!(bar(&model("m", Some("us"), Some(1))), Some(Barred::Region));
        assert_eq!(bar(&model("m", None, Some(1))), Some(Barred::Region));
        assert_eq!(bar(&model("m", Some("eu"), None)), Some(Barred::Label));

        let mail = |name: &str| (name == "x-app").then_some("mail-sorter");
        let mail = rules.judge(&caller("", &mail)).expect("no label");
        assert_eq!((mail.tier, &mail.applied[..]), (Some(Tier::Fast), &[1][..]));
        assert_eq!(rules.bar(&mail, &model("gpt-5", None, None), None), None);
        let other = rules.bar(&mail, &model("claude", None, None), None);
        assert_eq!(other, Some(Barred::Rule));
        assert!(rules.judge(&caller("sekret", &none)).is_err());
    }
}
