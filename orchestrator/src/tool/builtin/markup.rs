//! Tags and text, as they come: enough of HTML and XML to read what a page says and what an office file
//! holds. Nothing is loaded, run or believed.

/// A piece of markup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Text as it stands, with its entities.
    Text(&'a str),
    Open {
        name: &'a str,
        attributes: &'a str,
        /// It ends itself: `<br/>`.
        is_empty: bool,
    },
    Close(&'a str),
}

/// The pieces of a document, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self(text)
    }

    /// Passes over everything to the end of the element `name`, which holds no markup: `script`.
    pub(super) fn pass_over(&mut self, name: &str) {
        let end = format!("</{name}");
        let mut rest = self.0;
        while let Some((_, behind)) = rest.split_once("</") {
            let is_end = behind
                .get(..name.len())
                .is_some_and(|found| found.eq_ignore_ascii_case(name));
            if is_end {
                rest = behind.split_once('>').map_or("", |(_, rest)| rest);
                break;
            }
            rest = behind;
        }
        let is_there = self.0.to_ascii_lowercase().contains(&end);
        self.0 = if is_there { rest } else { "" };
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            if self.0.is_empty() {
                return None;
            }
            let Some(tag) = self.0.strip_prefix('<') else {
                let at = self.0.find('<').unwrap_or(self.0.len());
                let (text, rest) = self.0.split_at_checked(at)?;
                self.0 = rest;
                return Some(Token::Text(text));
            };
            if let Some(comment) = tag.strip_prefix("!--") {
                self.0 = comment.split_once("-->").map_or("", |(_, rest)| rest);
                continue;
            }
            let is_tag = tag.starts_with(|c: char| c.is_ascii_alphabetic() || "/!?".contains(c));
            if !is_tag {
                // A `<` that is none, as in `a < b`.
                let at = tag.find('<').map_or(self.0.len(), |at| at + 1);
                let (text, rest) = self.0.split_at_checked(at)?;
                self.0 = rest;
                return Some(Token::Text(text));
            }
            let (inner, rest) = tag.split_at_checked(end_of(tag))?;
            self.0 = rest.strip_prefix('>').unwrap_or(rest);
            if inner.starts_with(['!', '?']) {
                continue;
            }
            return Some(token(inner));
        }
    }
}

/// Where a tag ends: the first `>` outside quotes.
fn end_of(tag: &str) -> usize {
    let mut quote = None;
    for (at, c) in tag.char_indices() {
        match (quote, c) {
            (None, '>') => return at,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    tag.len()
}

fn token(inner: &str) -> Token<'_> {
    if let Some(name) = inner.strip_prefix('/') {
        return Token::Close(name.trim());
    }
    let is_empty = inner.ends_with('/');
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let (name, attributes) = inner
        .split_once(|c: char| c.is_ascii_whitespace())
        .unwrap_or((inner, ""));
    Token::Open {
        name,
        attributes,
        is_empty,
    }
}

/// The value of an attribute, with its entities resolved.
pub(super) fn attribute(attributes: &str, wanted: &str) -> Option<String> {
    let mut rest = attributes;
    while let Some((before, behind)) = rest.split_once('=') {
        let name = before
            .trim()
            .rsplit(|c: char| c.is_ascii_whitespace())
            .next();
        let behind = behind.trim_start();
        let quote = behind.chars().next().filter(|c| "\"'".contains(*c));
        let (value, after) = match quote {
            Some(quote) => behind
                .strip_prefix(quote)
                .and_then(|inner| inner.split_once(quote))
                .unwrap_or((behind, "")),
            None => behind
                .split_once(|c: char| c.is_ascii_whitespace())
                .unwrap_or((behind, "")),
        };
        if name.is_some_and(|name| name.eq_ignore_ascii_case(wanted)) {
            return Some(resolved(value));
        }
        rest = after;
    }
    None
}

/// Text with its entities resolved: those by number, and the names that are common.
pub(super) fn resolved(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        out.push_str(before);
        let entity = behind.split_once(';').filter(|(name, _)| name.len() < 10);
        if let Some((found, after)) = entity.and_then(|(name, after)| Some((named(name)?, after))) {
            out.push(found);
            rest = after;
        } else {
            out.push('&');
            rest = behind;
        }
    }
    out.push_str(rest);
    out
}

fn named(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "copy" => '©',
        "reg" => '®',
        "euro" => '€',
        "pound" => '£',
        "ndash" => '–',
        "mdash" => '—',
        "hellip" => '…',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "bull" => '•',
        "middot" => '·',
        "times" => '×',
        "deg" => '°',
        "auml" => 'ä',
        "ouml" => 'ö',
        "uuml" => 'ü',
        "Auml" => 'Ä',
        "Ouml" => 'Ö',
        "Uuml" => 'Ü',
        "szlig" => 'ß',
        "eacute" => 'é',
        "egrave" => 'è',
        "agrave" => 'à',
        "ccedil" => 'ç',
        _ => return None,
    })
}

/// What a page says: headings, lists and links as Markdown has them, everything else as plain text.
pub(super) fn text_of_page(page: &str) -> String {
    let mut out = Page::default();
    let mut tokens = Tokens::of(page);
    while let Some(token) = tokens.next() {
        match token {
            Token::Text(text) => out.text(&resolved(text)),
            Token::Open {
                name,
                attributes,
                is_empty,
            } => {
                let name = name.to_ascii_lowercase();
                if SILENT.contains(&name.as_str()) && !is_empty {
                    tokens.pass_over(&name);
                } else {
                    out.open(&name, attributes);
                }
            }
            Token::Close(name) => out.close(&name.to_ascii_lowercase()),
        }
    }
    out.done()
}

/// Elements that say nothing to a reader.
const SILENT: &[&str] = &[
    "script", "style", "noscript", "template", "svg", "iframe", "object", "textarea", "select",
];
const BLOCKS: &[&str] = &[
    "p",
    "div",
    "section",
    "article",
    "main",
    "header",
    "footer",
    "nav",
    "aside",
    "ul",
    "ol",
    "table",
    "tr",
    "blockquote",
    "pre",
    "form",
    "figure",
    "figcaption",
    "dl",
    "dt",
    "dd",
    "title",
    "body",
    "br",
    "hr",
];

#[derive(Default)]
struct Page {
    out: String,
    /// Addresses of links that are open.
    links: Vec<Option<String>>,
    in_pre: bool,
}

impl Page {
    fn text(&mut self, text: &str) {
        if self.in_pre {
            self.out.push_str(text);
            return;
        }
        for (place, word) in text.split(char::is_whitespace).enumerate() {
            if place > 0 && !self.out.ends_with([' ', '\n']) && !self.out.is_empty() {
                self.out.push(' ');
            }
            self.out.push_str(word);
        }
    }

    fn line(&mut self) {
        let kept = self.out.trim_end_matches(' ').len();
        self.out.truncate(kept);
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
    }

    fn open(&mut self, name: &str, attributes: &str) {
        match name {
            "a" => {
                let to = attribute(attributes, "href");
                let to = to.filter(|to| !to.starts_with(['#']) && !to.starts_with("javascript:"));
                if to.is_some() {
                    self.out.push('[');
                }
                self.links.push(to);
            }
            "li" => {
                self.line();
                self.out.push_str("- ");
            }
            "td" | "th" if !self.out.ends_with('\n') => self.out.push_str(" | "),
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                self.line();
                let level = name.chars().filter_map(|c| c.to_digit(10)).sum::<u32>();
                (0..level).for_each(|_| self.out.push('#'));
                self.out.push(' ');
            }
            "img" => {
                let said = attribute(attributes, "alt").filter(|alt| !alt.trim().is_empty());
                if let Some(alt) = said {
                    self.text(&format!("[picture: {}]", alt.trim()));
                }
            }
            _ if BLOCKS.contains(&name) => {
                self.line();
                self.in_pre = self.in_pre || name == "pre";
            }
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "a" => {
                if let Some(to) = self.links.pop().flatten() {
                    self.out.extend(["](", &to, ")"]);
                }
            }
            "pre" => {
                self.in_pre = false;
                self.line();
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "li" => self.line(),
            _ if BLOCKS.contains(&name) => self.line(),
            _ => {}
        }
    }

    fn done(self) -> String {
        let lines = self.out.lines().map(str::trim_end);
        let mut text = String::new();
        for line in lines.filter(|line| !["", "-", "#"].contains(line)) {
            text.push_str(line);
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text
    }
}
