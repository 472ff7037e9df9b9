//! What must hold between rules, classes, labels and models: a rule that names what is not there is an
//! error of the configuration, not a rule that never fits.

use std::collections::HashSet;

use crate::config::{Config, DEFAULT_CLASS, PolicyConfig};
use crate::rules::{Rule, fits};

/// Headers that bear secrets.
const SECRET: [&str; 5] = [
    "authorization",
    "x-api-key",
    "api-key",
    "cookie",
    "proxy-authorization",
];

/// Something wrong: the path of the key, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub place: String,
    pub message: String,
}

/// What rules may name: models, regions of endpoints, labels that models bear.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    pub models: &'a [&'a str],
    pub regions: &'a [&'a str],
    /// The label of each model, in the order of `models`.
    pub labels: &'a [Option<&'a str>],
}

/// Looks through the policy and the routing of a configuration.
pub fn check(policy: &PolicyConfig, routing: &Config, names: Names<'_>) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let mut say = |place: String, message: String| wrong.push(Wrong { place, message });
    let mut seen = HashSet::new();
    for (index, class) in routing.classes.iter().enumerate() {
        let place = format!("routing.class[{index}].name");
        if class.name.is_empty() || class.name.contains(['/', ':']) {
            say(place, "must be a word without `/` and `:`".to_owned());
        } else if class.name == DEFAULT_CLASS || !seen.insert(&class.name) {
            let message = format!("class `{}` stands twice; rename one", class.name);
            say(place, message);
        }
    }
    for (place, message) in figures(routing) {
        say(place, message);
    }
    let mut seen = HashSet::new();
    for (index, label) in policy.labels.iter().enumerate() {
        if label.is_empty() || !seen.insert(label) {
            let message = format!("label `{label}` is empty or stands twice; leave it out");
            say(format!("policy.labels[{index}]"), message);
        }
    }
    for (index, label) in names.labels.iter().enumerate() {
        let Some(label) = label else { continue };
        if !policy.labels.iter().any(|known| known == label) {
            say(
                format!("model[{index}].label"),
                unknown("label", label, &policy.labels),
            );
        }
    }
    let mut seen = HashSet::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let place = |key: &str| format!("policy.rule[{index}].{key}");
        if rule.name.is_empty() || !seen.insert(&rule.name) {
            let message = format!("rule `{}` needs a name that no other has", rule.name);
            say(place("name"), message);
        }
        for (key, message) in named(rule, policy, routing, names) {
            say(place(key), message);
        }
    }
    wrong
}

/// Shares and weights that are none.
fn figures(routing: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let classes = routing.classes.iter().enumerate();
    let classes = classes.map(|(index, class)| {
        let place = format!("routing.class[{index}].deep_per_thousand");
        (place, class.deep_per_thousand)
    });
    for (place, share) in classes.chain([
        (
            "routing.deep_per_thousand".to_owned(),
            routing.deep_per_thousand,
        ),
        (
            "routing.control_per_thousand".to_owned(),
            routing.control_per_thousand,
        ),
    ]) {
        if share > 1_000 {
            found.push((place, "is a share of a thousand, 0 to 1000".to_owned()));
        }
    }
    for (place, weight) in [
        ("routing.terms.price", routing.terms.price),
        ("routing.terms.latency", routing.terms.latency),
        ("routing.switch.hysteresis", routing.switch.hysteresis),
    ] {
        if !(0.0..=1_000_000.0).contains(&weight) {
            let message = format!("`{weight}` is no weight; write 0.0 or more");
            found.push((place.to_owned(), message));
        }
    }
    found
}

/// Whether a header can be called so.
fn is_header(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

fn unknown(what: &str, name: &str, known: &[String]) -> String {
    if known.is_empty() {
        return format!("no {what} `{name}`: none is configured");
    }
    format!("no {what} `{name}`; write one of {}", known.join(", "))
}

/// What a rule names that is not there.
fn named(
    rule: &Rule,
    policy: &PolicyConfig,
    routing: &Config,
    names: Names<'_>,
) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for header in rule.headers.keys() {
        // What rules look at is kept with the decision, and nobody's secret is to stand there.
        if SECRET.contains(&header.to_ascii_lowercase().as_str()) {
            let message = format!("rules can not look at `{header}`; name teams or users instead");
            found.push(("headers", message));
        } else if !is_header(header) {
            found.push(("headers", format!("`{header}` is no name of a header")));
        } else if header.chars().any(char::is_uppercase) {
            found.push((
                "headers",
                format!("write `{}`", header.to_ascii_lowercase()),
            ));
        }
    }
    for (key, patterns, known) in [
        ("allow", &rule.allow, names.models),
        ("deny", &rule.deny, names.models),
        ("regions", &rule.regions, names.regions),
    ] {
        for pattern in patterns {
            if !known.iter().any(|name| fits(pattern, name)) {
                let known: Vec<String> = known.iter().map(|it| (*it).to_owned()).collect();
                let what = if key == "regions" { "region" } else { "model" };
                found.push((key, unknown(what, pattern, &known)));
            }
        }
    }
    if rule
        .refuse
        .as_ref()
        .is_some_and(|words| words.trim().is_empty())
    {
        let message = "is empty; write what the caller is told, or leave it out";
        found.push(("refuse", message.to_owned()));
    }
    let labels = rule.labels.iter().map(|label| ("labels", label));
    for (key, label) in labels.chain(rule.label.iter().map(|label| ("label", label))) {
        if !policy.labels.iter().any(|known| fits(label, known)) {
            found.push((key, unknown("label", label, &policy.labels)));
        }
    }
    if let Some(class) = &rule.class {
        let is_known = |it: &crate::config::Class| it.name == *class;
        if class != DEFAULT_CLASS && !routing.classes.iter().any(is_known) {
            let known: Vec<String> = routing.classes.iter().map(|it| it.name.clone()).collect();
            found.push(("class", unknown("class", class, &known)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Class;

    #[test]
    fn what_is_not_there_is_told_with_its_place() {
        let rule = Rule {
            name: "eu".to_owned(),
            allow: vec!["gpt-*".to_owned(), "claude".to_owned()],
            regions: vec!["eu".to_owned()],
            labels: vec!["secret".to_owned()],
            class: Some("slow".to_owned()),
            headers: [("Authorization".to_owned(), "*".to_owned())].into(),
            ..Rule::default()
        };
        let policy = PolicyConfig {
            rules: vec![rule.clone(), rule],
            ..PolicyConfig::default()
        };
        let routing = Config {
            classes: vec![Class {
                name: "default".to_owned(),
                deep_per_thousand: 1,
            }],
            ..Config::default()
        };
        let names = Names {
            models: &["gpt-5"],
            regions: &["us"],
            labels: &[Some("top")],
        };
        let places: Vec<String> = check(&policy, &routing, names)
            .into_iter()
            .map(|wrong| wrong.place)
            .collect();
        for place in [
            "routing.class[0].name",
            "model[0].label",
            "policy.rule[0].allow",
            "policy.rule[0].regions",
            "policy.rule[0].labels",
            "policy.rule[0].class",
            "policy.rule[0].headers",
            "policy.rule[1].name",
        ] {
            assert!(places.iter().any(|it| it == place), "{place}: {places:?}");
        }
    }
}
