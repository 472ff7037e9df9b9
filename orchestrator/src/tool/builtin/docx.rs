//! Markdown as a Word document: headings, paragraphs, emphasis, code, lists, tables, links and footnotes.
//! The same text gives the same bytes, because every date in the file is one of 2000.

mod parts;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use parts::escaped;

/// The bytes of a .docx file.
///
/// # Errors
/// When the archive can not be put together.
pub(super) fn docx(markdown: &str, title: &str) -> std::io::Result<Vec<u8>> {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS;
    let mut writer = Writer::default();
    if !title.trim().is_empty() {
        writer.run(title);
        writer.paragraph("<w:pStyle w:val=\"Title\"/>");
    }
    for event in Parser::new_ext(markdown, options) {
        writer.event(event);
    }
    writer.flush();
    parts::archive(&writer.document(), title)
}

/// A document as it grows.
#[derive(Debug, Default)]
struct Writer {
    body: String,
    /// What stands in `body` is kept here while a footnote is written.
    outer: Option<(String, usize)>,
    /// Labels of footnotes in the order of their numbers, and what they say.
    notes: Vec<(String, String)>,
    /// Addresses of links, in the order of their numbers.
    links: Vec<String>,
    /// The runs of the paragraph that is being written.
    runs: String,
    bold: usize,
    italic: usize,
    strike: usize,
    /// Links that are open.
    in_links: usize,
    heading: Option<usize>,
    quotes: usize,
    /// Lists that are open: the number of each list's numbering.
    lists: Vec<usize>,
    /// Ordered lists so far, with where each begins.
    ordered: Vec<(usize, u64)>,
    /// The item has no paragraph yet, so the next one has its mark.
    is_marked: bool,
    code: Option<String>,
    /// The table's head is being written.
    in_head: bool,
    in_cell: bool,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None => self.run(&text),
            },
            Event::Code(text) => self.styled(&text, "<w:rStyle w:val=\"CodeText\"/>"),
            Event::InlineHtml(html) if html.starts_with("<br") => self.runs += "<w:r><w:br/></w:r>",
            Event::Html(text) | Event::InlineHtml(text) => self.run(text.trim_end()),
            Event::InlineMath(text) | Event::DisplayMath(text) => self.run(&text),
            Event::SoftBreak => self.run(" "),
            Event::HardBreak => self.runs += "<w:r><w:br/></w:r>",
            Event::Rule => {
                self.flush();
                self.paragraph("<w:pBdr><w:bottom w:val=\"single\" w:sz=\"6\" w:space=\"1\" w:color=\"999999\"/></w:pBdr>");
            }
            Event::FootnoteReference(label) => {
                let number = self.note(&label);
                self.runs.extend([format!(
                    "<w:r><w:rPr><w:rStyle w:val=\"FootnoteReference\"/></w:rPr><w:footnoteReference w:id=\"{number}\"/></w:r>"
                )]);
            }
            Event::TaskListMarker(is_done) => self.run(if is_done { "☒ " } else { "☐ " }),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } => {
                self.flush();
                self.heading = Some(level_of(level));
            }
            Tag::BlockQuote(_) => {
                self.flush();
                self.quotes += 1;
            }
            Tag::CodeBlock(kind) => {
                self.flush();
                let _language = matches!(kind, CodeBlockKind::Fenced(_));
                self.code = Some(String::new());
            }
            Tag::List(first) => {
                self.flush();
                let number = first.map_or(1, |first| {
                    self.ordered.push((self.lists.len(), first));
                    self.ordered.len() + 1
                });
                self.lists.push(number);
            }
            Tag::Item => self.is_marked = true,
            Tag::FootnoteDefinition(label) => {
                self.flush();
                let number = self.note(&label);
                self.outer = Some((std::mem::take(&mut self.body), number));
            }
            Tag::Table(columns) => {
                self.flush();
                self.body += parts::TABLE;
                self.body += "<w:tblGrid>";
                for _ in columns {
                    self.body += "<w:gridCol w:w=\"2000\"/>";
                }
                self.body += "</w:tblGrid>";
            }
            Tag::TableHead => {
                self.in_head = true;
                self.body += "<w:tr><w:trPr><w:tblHeader/></w:trPr>";
            }
            Tag::TableRow => self.body += "<w:tr>",
            Tag::TableCell => {
                self.in_cell = true;
                self.body += "<w:tc><w:tcPr><w:tcW w:w=\"0\" w:type=\"auto\"/></w:tcPr>";
                self.bold += usize::from(self.in_head);
            }
            Tag::Emphasis => self.italic += 1,
            Tag::Strong => self.bold += 1,
            Tag::Strikethrough => self.strike += 1,
            Tag::Link { dest_url, .. } => {
                self.links.push(dest_url.to_string());
                self.runs
                    .extend([format!("<w:hyperlink r:id=\"link{}\">", self.links.len())]);
                self.in_links += 1;
            }
            Tag::Image { .. } => self.run("[picture: "),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph | TagEnd::Item => self.flush(),
            TagEnd::Heading(_) => {
                self.flush();
                self.heading = None;
            }
            TagEnd::BlockQuote(_) => {
                self.flush();
                self.quotes = self.quotes.saturating_sub(1);
            }
            TagEnd::CodeBlock => self.code_block(),
            TagEnd::List(_) => {
                self.flush();
                self.lists.pop();
                self.is_marked = false;
            }
            TagEnd::FootnoteDefinition => {
                self.flush();
                if let Some((outer, number)) = self.outer.take() {
                    let said = std::mem::replace(&mut self.body, outer);
                    if let Some(note) = self.notes.get_mut(number.saturating_sub(1)) {
                        note.1 += &said;
                    }
                }
            }
            // A table must not be the last thing before another, or before the end.
            TagEnd::Table => self.body += "</w:tbl><w:p/>",
            TagEnd::TableHead => {
                self.in_head = false;
                self.body += "</w:tr>";
            }
            TagEnd::TableRow => self.body += "</w:tr>",
            TagEnd::TableCell => {
                self.paragraph("");
                self.bold = self.bold.saturating_sub(usize::from(self.in_head));
                self.in_cell = false;
                self.body += "</w:tc>";
            }
            TagEnd::Emphasis => self.italic = self.italic.saturating_sub(1),
            TagEnd::Strong => self.bold = self.bold.saturating_sub(1),
            TagEnd::Strikethrough => self.strike = self.strike.saturating_sub(1),
            TagEnd::Link => {
                self.runs += "</w:hyperlink>";
                self.in_links = self.in_links.saturating_sub(1);
            }
            TagEnd::Image => self.run("]"),
            _ => {}
        }
    }

    /// The number of the footnote of this label, which counts from its first mention.
    fn note(&mut self, label: &str) -> usize {
        if let Some(at) = self.notes.iter().position(|(known, _)| known == label) {
            return at + 1;
        }
        self.notes.push((label.to_owned(), String::new()));
        self.notes.len()
    }

    fn run(&mut self, text: &str) {
        let style = if self.in_links > 0 {
            "<w:rStyle w:val=\"Hyperlink\"/>"
        } else {
            ""
        };
        self.styled(text, style);
    }

    fn styled(&mut self, text: &str, style: &str) {
        let mut format = style.to_owned();
        for (is_on, mark) in [
            (self.bold, "<w:b/>"),
            (self.italic, "<w:i/>"),
            (self.strike, "<w:strike/>"),
        ] {
            if is_on > 0 {
                format += mark;
            }
        }
        if !format.is_empty() {
            format = format!("<w:rPr>{format}</w:rPr>");
        }
        let text = escaped(text);
        self.runs.extend([format!(
            "<w:r>{format}<w:t xml:space=\"preserve\">{text}</w:t></w:r>"
        )]);
    }

    /// Ends the paragraph that is being written, if there is one.
    fn flush(&mut self) {
        if self.runs.is_empty() || self.in_cell {
            return;
        }
        let format = if let Some(level) = self.heading {
            format!("<w:pStyle w:val=\"Heading{level}\"/>")
        } else if let Some(list) = self.lists.last() {
            let level = (self.lists.len() - 1).min(8);
            if self.is_marked {
                format!(
                    "<w:pStyle w:val=\"ListParagraph\"/><w:numPr><w:ilvl w:val=\"{level}\"/><w:numId w:val=\"{list}\"/></w:numPr>"
                )
            } else {
                let left = 720 * (level + 1);
                format!("<w:pStyle w:val=\"ListParagraph\"/><w:ind w:left=\"{left}\"/>")
            }
        } else if self.outer.is_some() {
            "<w:pStyle w:val=\"FootnoteText\"/>".to_owned()
        } else if self.quotes > 0 {
            "<w:pStyle w:val=\"Quote\"/>".to_owned()
        } else {
            String::new()
        };
        self.is_marked = false;
        self.paragraph(&format);
    }

    fn paragraph(&mut self, format: &str) {
        let runs = std::mem::take(&mut self.runs);
        self.body
            .extend([format!("<w:p><w:pPr>{format}</w:pPr>{runs}</w:p>")]);
    }

    fn code_block(&mut self) {
        let code = self.code.take().unwrap_or_default();
        for line in code.lines() {
            self.run(line);
            self.paragraph("<w:pStyle w:val=\"Code\"/>");
        }
    }

    fn document(self) -> parts::Document {
        parts::Document {
            body: self.body,
            notes: self.notes.into_iter().map(|(_, said)| said).collect(),
            links: self.links,
            ordered: self.ordered,
        }
    }
}

fn level_of(level: HeadingLevel) -> usize {
    match level {
        HeadingLevel::H1 => 1,
        HeadingLevel::H2 => 2,
        HeadingLevel::H3 => 3,
        HeadingLevel::H4 => 4,
        HeadingLevel::H5 => 5,
        HeadingLevel::H6 => 6,
    }
}
