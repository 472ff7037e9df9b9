//! The files inside a .docx: styles, numbering, footnotes, relations, and how they are packed.

use std::io::{self, Cursor, Write as _};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// What a document says, apart from how it is packed.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) body: String,
    pub(super) notes: Vec<String>,
    pub(super) links: Vec<String>,
    /// Ordered lists: how deep each lies, and the number it begins with.
    pub(super) ordered: Vec<(usize, u64)>,
}

pub(super) const TABLE: &str = "<w:tbl><w:tblPr><w:tblW w:w=\"0\" w:type=\"auto\"/><w:tblBorders>\
    <w:top w:val=\"single\" w:sz=\"4\" w:color=\"999999\"/><w:left w:val=\"single\" w:sz=\"4\" w:color=\"999999\"/>\
    <w:bottom w:val=\"single\" w:sz=\"4\" w:color=\"999999\"/><w:right w:val=\"single\" w:sz=\"4\" w:color=\"999999\"/>\
    <w:insideH w:val=\"single\" w:sz=\"4\" w:color=\"999999\"/><w:insideV w:val=\"single\" w:sz=\"4\" w:color=\"999999\"/>\
    </w:tblBorders></w:tblPr>";

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n";
const WORDS: &str = "xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\" \
    xmlns:r=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships\"";
const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
const WORD: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml";

/// Packs a document; the same one to the same bytes.
pub(super) fn archive(document: &Document, title: &str) -> io::Result<Vec<u8>> {
    let body = &document.body;
    let page = "<w:sectPr><w:pgSz w:w=\"11906\" w:h=\"16838\"/><w:pgMar w:top=\"1417\" w:right=\"1417\" \
        w:bottom=\"1134\" w:left=\"1417\" w:header=\"708\" w:footer=\"708\" w:gutter=\"0\"/></w:sectPr>";
    let main = format!("{HEAD}<w:document {WORDS}><w:body>{body}{page}</w:body></w:document>");
    let files = [
        ("[Content_Types].xml", kinds()),
        ("_rels/.rels", package()),
        ("docProps/core.xml", properties(title)),
        ("word/document.xml", main),
        ("word/_rels/document.xml.rels", relations(&document.links)),
        ("word/styles.xml", styles()),
        ("word/numbering.xml", numbering(&document.ordered)),
        ("word/footnotes.xml", footnotes(&document.notes)),
        // Links in footnotes are numbered with those of the text.
        ("word/_rels/footnotes.xml.rels", relations(&document.links)),
    ];
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default());
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        zip.start_file(name, options).map_err(io::Error::other)?;
        zip.write_all(text.as_bytes())?;
    }
    Ok(zip.finish().map_err(io::Error::other)?.into_inner())
}

/// Text as XML may hold it: escaped, without the characters that XML can not say.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(' '),
            c if c.is_control() || ['\u{fffe}', '\u{ffff}'].contains(&c) => {}
            c => out.push(c),
        }
    }
    out
}

fn kinds() -> String {
    let parts = [
        ("word/document.xml", "document.main"),
        ("word/styles.xml", "styles"),
        ("word/numbering.xml", "numbering"),
        ("word/footnotes.xml", "footnotes"),
    ];
    let parts = parts.map(|(name, kind)| {
        format!("<Override PartName=\"/{name}\" ContentType=\"{WORD}.{kind}+xml\"/>")
    });
    format!(
        "{HEAD}<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\">\
         <Default Extension=\"rels\" ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/>\
         <Default Extension=\"xml\" ContentType=\"application/xml\"/>\
         <Override PartName=\"/docProps/core.xml\" ContentType=\"application/vnd.openxmlformats-package.core-properties+xml\"/>\
         {}</Types>",
        parts.concat()
    )
}

fn package() -> String {
    format!(
        "{HEAD}<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\">\
         <Relationship Id=\"main\" Type=\"{OFFICE}/officeDocument\" Target=\"word/document.xml\"/>\
         <Relationship Id=\"core\" Type=\"http://schemas.openxmlformats.org/package/2006/relationships/metadata/core-properties\" \
         Target=\"docProps/core.xml\"/></Relationships>"
    )
}

fn properties(title: &str) -> String {
    let at = "2000-01-01T00:00:00Z";
    format!(
        "{HEAD}<cp:coreProperties xmlns:cp=\"http://schemas.openxmlformats.org/package/2006/metadata/core-properties\" \
         xmlns:dc=\"http://purl.org/dc/elements/1.1/\" xmlns:dcterms=\"http://purl.org/dc/terms/\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><dc:title>{}</dc:title>\
         <dcterms:created xsi:type=\"dcterms:W3CDTF\">{at}</dcterms:created>\
         <dcterms:modified xsi:type=\"dcterms:W3CDTF\">{at}</dcterms:modified></cp:coreProperties>",
        escaped(title)
    )
}

fn relations(links: &[String]) -> String {
    let parts = ["styles", "numbering", "footnotes"].map(|part| {
        format!("<Relationship Id=\"{part}\" Type=\"{OFFICE}/{part}\" Target=\"{part}.xml\"/>")
    });
    let links = (1..).zip(links).map(|(n, to)| {
        format!(
            "<Relationship Id=\"link{n}\" Type=\"{OFFICE}/hyperlink\" Target=\"{}\" TargetMode=\"External\"/>",
            escaped(to)
        )
    });
    format!(
        "{HEAD}<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\">{}{}</Relationships>",
        parts.concat(),
        links.collect::<String>()
    )
}

fn styles() -> String {
    let mut text = format!(
        "{HEAD}<w:styles {WORDS}><w:docDefaults><w:rPrDefault><w:rPr><w:rFonts w:ascii=\"Calibri\" \
         w:hAnsi=\"Calibri\" w:cs=\"Calibri\"/><w:sz w:val=\"22\"/></w:rPr></w:rPrDefault><w:pPrDefault><w:pPr>\
         <w:spacing w:after=\"120\" w:line=\"264\" w:lineRule=\"auto\"/></w:pPr></w:pPrDefault></w:docDefaults>\
         <w:style w:type=\"paragraph\" w:default=\"1\" w:styleId=\"Normal\"><w:name w:val=\"Normal\"/></w:style>"
    );
    let mut paragraph = |id: &str, name: &str, format: &str, run: &str| {
        text.extend([format!(
            "<w:style w:type=\"paragraph\" w:styleId=\"{id}\"><w:name w:val=\"{name}\"/><w:basedOn w:val=\"Normal\"/>\
             <w:qFormat/><w:pPr>{format}</w:pPr><w:rPr>{run}</w:rPr></w:style>"
        )]);
    };
    paragraph(
        "Title",
        "Title",
        "<w:spacing w:after=\"240\"/>",
        "<w:b/><w:sz w:val=\"48\"/>",
    );
    for (level, size) in (1..).zip([36, 30, 26, 24, 22, 22]) {
        let outline = level - 1;
        let format = format!(
            "<w:keepNext/><w:spacing w:before=\"240\" w:after=\"80\"/><w:outlineLvl w:val=\"{outline}\"/>"
        );
        let run = format!("<w:b/><w:sz w:val=\"{size}\"/>");
        paragraph(
            &format!("Heading{level}"),
            &format!("heading {level}"),
            &format,
            &run,
        );
    }
    paragraph(
        "ListParagraph",
        "List Paragraph",
        "<w:spacing w:after=\"60\"/>",
        "",
    );
    paragraph(
        "Quote",
        "Quote",
        "<w:ind w:left=\"567\" w:right=\"567\"/>",
        "<w:i/>",
    );
    paragraph(
        "FootnoteText",
        "footnote text",
        "<w:spacing w:after=\"0\"/>",
        "<w:sz w:val=\"18\"/>",
    );
    let mono = "<w:rFonts w:ascii=\"Consolas\" w:hAnsi=\"Consolas\" w:cs=\"Consolas\"/><w:sz w:val=\"20\"/>";
    paragraph(
        "Code",
        "Code",
        "<w:shd w:val=\"clear\" w:fill=\"F2F2F2\"/><w:spacing w:after=\"0\"/>",
        mono,
    );
    text + &characters(mono) + "</w:styles>"
}

fn characters(mono: &str) -> String {
    let mut text = String::new();
    let mut character = |id: &str, name: &str, run: &str| {
        text.extend([format!(
            "<w:style w:type=\"character\" w:styleId=\"{id}\"><w:name w:val=\"{name}\"/><w:rPr>{run}</w:rPr></w:style>"
        )]);
    };
    character("CodeText", "Code Text", mono);
    character(
        "Hyperlink",
        "Hyperlink",
        "<w:color w:val=\"0563C1\"/><w:u w:val=\"single\"/>",
    );
    character(
        "FootnoteReference",
        "footnote reference",
        "<w:vertAlign w:val=\"superscript\"/>",
    );
    text
}

/// Numbering 1 has bullets; each ordered list has one of its own, so that it begins where it says.
fn numbering(ordered: &[(usize, u64)]) -> String {
    let mut text = format!("{HEAD}<w:numbering {WORDS}>");
    for (of, kind) in [(0, "bullet"), (1, "decimal")] {
        text.extend([format!(
            "<w:abstractNum w:abstractNumId=\"{of}\"><w:multiLevelType w:val=\"hybridMultilevel\"/>"
        )]);
        for level in 0..9 {
            let mark = if of == 0 {
                "•".to_owned()
            } else {
                format!("%{}.", level + 1)
            };
            let left = 720 * (level + 1);
            text.extend([format!(
                "<w:lvl w:ilvl=\"{level}\"><w:start w:val=\"1\"/><w:numFmt w:val=\"{kind}\"/><w:lvlText w:val=\"{mark}\"/>\
                 <w:lvlJc w:val=\"left\"/><w:pPr><w:ind w:left=\"{left}\" w:hanging=\"360\"/></w:pPr></w:lvl>"
            )]);
        }
        text += "</w:abstractNum>";
    }
    text += "<w:num w:numId=\"1\"><w:abstractNumId w:val=\"0\"/></w:num>";
    for (number, (level, first)) in (2..).zip(ordered) {
        let level = level.min(&8);
        text.extend([format!(
            "<w:num w:numId=\"{number}\"><w:abstractNumId w:val=\"1\"/><w:lvlOverride w:ilvl=\"{level}\">\
             <w:startOverride w:val=\"{first}\"/></w:lvlOverride></w:num>"
        )]);
    }
    text + "</w:numbering>"
}

fn footnotes(notes: &[String]) -> String {
    let mut text = format!(
        "{HEAD}<w:footnotes {WORDS}><w:footnote w:type=\"separator\" w:id=\"-1\"><w:p><w:r><w:separator/></w:r></w:p>\
         </w:footnote><w:footnote w:type=\"continuationSeparator\" w:id=\"0\"><w:p><w:r><w:continuationSeparator/></w:r>\
         </w:p></w:footnote>"
    );
    for (number, said) in (1..).zip(notes) {
        let mark =
            "<w:r><w:rPr><w:rStyle w:val=\"FootnoteReference\"/></w:rPr><w:footnoteRef/></w:r>";
        let said = if said.is_empty() {
            "<w:p><w:pPr></w:pPr></w:p>"
        } else {
            said
        };
        let marked = said.replacen("</w:pPr>", &format!("</w:pPr>{mark}"), 1);
        text.extend([format!(
            "<w:footnote w:id=\"{number}\">{marked}</w:footnote>"
        )]);
    }
    text + "</w:footnotes>"
}
