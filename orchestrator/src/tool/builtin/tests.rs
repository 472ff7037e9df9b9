//! Proves the built-in tools on real folders and a real server: no way out of a workspace, limits, the same
//! state after a call that is repeated, documents that read back, and pages only from listed hosts.

use std::io::{Cursor, Read as _};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::ServiceExt as _;

use super::*;
use crate::digest::Digest;
use crate::outbound::Outbound;

/// Built-in tools with a folder of their own.
struct Bench {
    tools: Builtins,
    folder: TempDir,
    task: TaskId,
}

fn outbound() -> Outbound {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let service = client
        .map_response(|answer: http::Response<hyper::body::Incoming>| {
            answer.map(|body| body.map_err(tower::BoxError::from).boxed_unsync())
        })
        .map_err(tower::BoxError::from);
    Outbound::new(service)
}

impl Bench {
    fn new(limits: Limits, fetch: FetchConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            tools: Builtins::new(folder.path().join("w"), limits, fetch, outbound()),
            folder,
            task: TaskId::new(1, [7; 10]),
        }
    }

    fn plain() -> Self {
        Self::new(Limits::default(), FetchConfig::default())
    }

    async fn outcome(&self, tool: &str, key: &str, arguments: Value) -> Outcome {
        let offered = self.tools.definitions();
        let found = offered.iter().find(|it| it.definition.name == tool);
        let call = ToolCall {
            task: self.task,
            tenant: "acme/../x".to_owned(),
            tool: tool.to_owned(),
            pin: found.map_or_else(Digest::default, |it| it.pin),
            arguments,
            key: key.to_owned(),
            within: Duration::from_secs(30),
            until: crate::tool::Until::always(),
        };
        self.tools.call(&call).await
    }

    /// What the tool says; an error begins with `!`.
    async fn says(&self, tool: &str, key: &str, arguments: Value) -> String {
        match self.outcome(tool, key, arguments).await {
            Outcome::Done(result) if result.is_error => format!("!{}", result.plain()),
            Outcome::Done(result) => result.plain(),
            other => panic!("{other:?}"),
        }
    }

    fn workspace(&self) -> Workspace {
        self.tools.workspace("acme/../x", self.task).unwrap()
    }

    fn text(&self, path: &str) -> Option<String> {
        let at = self.workspace();
        let bytes = at.read_file(&at.place(path).unwrap()).ok()?;
        Some(String::from_utf8(bytes).unwrap())
    }

    /// The task's folder as the file system has it.
    fn path(&self) -> PathBuf {
        let tenant = Digest::of(b"acme/../x").to_string();
        self.folder
            .path()
            .join("w")
            .join(tenant)
            .join(self.task.hex())
    }
}

#[tokio::test]
async fn files_are_written_listed_searched_patched_and_read_in_parts() {
    let bench = Bench::plain();
    let said = bench.says(
        "fs_write",
        "k1",
        json!({"path": "a/b.md", "content": "één\nTwo words\n"}),
    );
    assert_eq!(said.await, "wrote a/b.md, 16 bytes");
    let said = bench.says("fs_list", "k", json!({})).await;
    assert_eq!(said, "a/\na/b.md\t16 bytes");
    let said = bench.says("fs_search", "k", json!({"text": "TWO"})).await;
    assert_eq!(said, "a/b.md:2: Two words");
    let case = json!({"text": "TWO", "case": true});
    assert_eq!(bench.says("fs_search", "k", case).await, "nothing found");
    let part = bench
        .says("fs_read", "k", json!({"path": "a/b.md", "limit": 4}))
        .await;
    assert_eq!(part, "éé\n[bytes 0 to 4 of 16; read on with offset 4]");
    let rest = json!({"path": "a/b.md", "offset": 6});
    let rest = bench.says("fs_read", "k", rest).await;
    assert_eq!(rest, "Two words\n\n[bytes 6 to 16 of 16]");
    let patch = json!({"path": "a/b.md", "old": "Two", "new": "Two or Two"});
    bench.says("fs_patch", "k2", patch.clone()).await;
    assert_eq!(bench.text("a/b.md").unwrap(), "één\nTwo or Two words\n");
    let twice = bench.says("fs_patch", "k3", patch).await;
    assert!(
        twice.starts_with("!`a/b.md` contains `old` 2 times"),
        "{twice}"
    );
    let artifacts = bench.workspace().artifacts().unwrap();
    let expected = Artifact {
        path: "a/b.md".to_owned(),
        sha256: Digest::of("één\nTwo or Two words\n".as_bytes()),
        size: 23,
    };
    assert_eq!(artifacts, [expected]);
    let unknown = bench.says("fs_read", "k", json!({"file": "a"})).await;
    assert!(
        unknown.starts_with("!the arguments do not fit"),
        "{unknown}"
    );
}

#[tokio::test]
async fn a_call_repeated_under_its_key_leaves_the_same_state() {
    let bench = Bench::plain();
    bench
        .says("fs_write", "w", json!({"path": "a.md", "content": "one"}))
        .await;
    // What is replaced stands in what replaces it: a second time would change it again.
    let patch = json!({"path": "a.md", "old": "one", "new": "one, one more"});
    for _ in 0..3 {
        let said = bench.says("fs_patch", "p", patch.clone()).await;
        assert_eq!(said, "wrote a.md, 13 bytes");
        assert_eq!(bench.text("a.md").unwrap(), "one, one more");
    }
    let moved = json!({"from": "a.md", "to": "b/c.md"});
    for _ in 0..3 {
        let said = bench.says("fs_move", "m", moved.clone()).await;
        assert_eq!(said, "moved a.md to b/c.md");
        assert_eq!(bench.text("b/c.md").unwrap(), "one, one more");
    }
    let by_another = bench.says("fs_move", "m2", moved.clone()).await;
    assert_eq!(by_another, "!there is no `a.md`");
    bench
        .says("fs_write", "w2", json!({"path": "a.md", "content": "new"}))
        .await;
    let in_the_way = bench.says("fs_move", "m3", moved).await;
    assert!(
        in_the_way.starts_with("!`b/c.md` is there already"),
        "{in_the_way}"
    );
    for _ in 0..3 {
        let said = bench.says("fs_trash", "t", json!({"path": "b"})).await;
        assert_eq!(said, "trashed b");
        assert_eq!(bench.text("b/c.md"), None);
    }
    assert_eq!(
        bench.says("fs_trash", "t2", json!({"path": "b"})).await,
        "!there is no `b`"
    );
    assert_eq!(bench.says("fs_list", "k", json!({})).await, "a.md\t3 bytes");
    bench
        .says("fs_write", "w3", json!({"path": "a.md", "content": "else"}))
        .await;
    let changed = json!({"path": "a.md", "old": "one", "new": "one, one more"});
    let changed = bench.says("fs_patch", "p", changed).await;
    assert!(changed.starts_with("!`a.md` has changed"), "{changed}");
}

#[tokio::test]
async fn a_crash_between_the_note_and_the_act_is_made_good() {
    let bench = Bench::plain();
    let at = bench.workspace();
    let (from, to) = (at.place("a.md").unwrap(), at.place("b.md").unwrap());
    at.write_file(&from, b"one").unwrap();
    at.replace_once("p", &from, b"one", b"one two").unwrap();
    // As if it had stopped before the file was renamed.
    at.write_file(&from, b"one").unwrap();
    let patch = json!({"path": "a.md", "old": "one", "new": "one two"});
    bench.says("fs_patch", "p", patch).await;
    assert_eq!(bench.text("a.md").unwrap(), "one two");
    at.move_once("m", &from, &to).unwrap();
    std::fs::rename(bench.path().join("b.md"), bench.path().join("a.md")).unwrap();
    at.move_once("m", &from, &to).unwrap();
    assert_eq!(
        (bench.text("a.md"), bench.text("b.md")),
        (None, Some("one two".to_owned()))
    );
}

#[tokio::test]
async fn nothing_leads_out_of_a_workspace() {
    let bench = Bench::plain();
    let secret = bench.folder.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    bench
        .says("fs_write", "k", json!({"path": "in.md", "content": "in"}))
        .await;
    let link = |to: &std::path::Path, name: &str| {
        std::os::unix::fs::symlink(to, bench.path().join(name)).unwrap();
    };
    link(&secret, "link");
    link(bench.folder.path(), "out");
    link(std::path::Path::new("../../../secret"), "up");
    let paths = [
        "../../../secret",
        "/etc/passwd",
        "a/../../x",
        "link",
        "out/secret",
        "up",
        "..",
        "a/./b",
        "a//b",
        "",
        "a\\b",
        "a\0b",
        ".trash/x",
        ".done/x",
        "./.pending/y",
    ];
    for path in paths {
        for (tool, arguments) in [
            ("fs_read", json!({"path": path})),
            (
                "fs_patch",
                json!({"path": path, "old": "secret", "new": "x"}),
            ),
            ("fs_move", json!({"from": path, "to": "mine"})),
            ("fs_trash", json!({"path": path})),
            ("document_read", json!({"path": path})),
        ] {
            let said = bench.says(tool, "k", arguments).await;
            assert!(
                said.starts_with('!') && !said.contains("secret\n"),
                "{tool} {path}: {said}"
            );
        }
    }
    for path in ["../x", "/tmp/x", "out/x", "out/secret", ".done/x"] {
        let said = bench
            .says("fs_write", "k", json!({"path": path, "content": "x"}))
            .await;
        assert!(said.starts_with('!'), "{path}: {said}");
    }
    // Over a link a file is written in place of the link, not behind it.
    bench
        .says("fs_write", "k", json!({"path": "link", "content": "x"}))
        .await;
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(
        bench
            .says("fs_search", "k", json!({"text": "secret"}))
            .await,
        "nothing found"
    );
    let list = bench.says("fs_list", "k", json!({})).await;
    assert_eq!(list, "in.md\t2 bytes\nlink\t1 bytes");
    let mut names: Vec<_> = std::fs::read_dir(bench.folder.path()).unwrap().collect();
    assert_eq!(names.drain(..).count(), 2, "nothing was made beside");
}

#[tokio::test]
async fn limits_are_kept_and_told() {
    let limits = Limits {
        bytes: 100,
        file_bytes: 60,
        files: 4,
        depth: 2,
        name_bytes: 10,
        ..Limits::default()
    };
    let bench = Bench::new(limits, FetchConfig::default());
    let write = |path: &str, size: usize| {
        let arguments = json!({"path": path, "content": "x".repeat(size)});
        bench.says("fs_write", "k", arguments)
    };
    assert!(write("a", 61).await.contains("at most files of 60 bytes"));
    assert_eq!(write("a", 60).await, "wrote a, 60 bytes");
    assert!(write("b", 41).await.contains("at most 100 bytes"));
    assert_eq!(write("b", 40).await, "wrote b, 40 bytes");
    assert_eq!(write("a", 50).await, "wrote a, 50 bytes");
    bench.says("fs_trash", "t", json!({"path": "b"})).await;
    assert!(
        write("c", 50).await.contains("at most 100 bytes"),
        "the trash counts"
    );
    assert_eq!(write("d/e", 1).await, "wrote d/e, 1 bytes");
    assert!(
        write("f/g", 1)
            .await
            .contains("at most 4 files and folders")
    );
    assert!(write("h/i/j", 1).await.contains("more than 2 folders deep"));
    assert!(
        write("longer-than-10", 1)
            .await
            .contains("longer than 10 bytes")
    );
}

#[tokio::test]
async fn what_is_not_the_tool_that_was_decided_on_is_not_called() {
    let bench = Bench::plain();
    let unknown = bench.outcome("rm", "k", json!({})).await;
    assert!(matches!(unknown, Outcome::NotSent(_)), "{unknown:?}");
    let fetch = bench
        .outcome("http_fetch", "k", json!({"url": "https://example.com"}))
        .await;
    assert!(
        matches!(fetch, Outcome::NotSent(_)),
        "no host is listed: {fetch:?}"
    );
    let call = ToolCall {
        task: bench.task,
        tenant: "a".to_owned(),
        tool: "fs_list".to_owned(),
        pin: Digest::of(b"another"),
        arguments: json!({}),
        key: "k".to_owned(),
        within: Duration::from_secs(9),
        until: crate::tool::Until::always(),
    };
    assert!(matches!(bench.tools.call(&call).await, Outcome::Drifted(_)));
    let names: Vec<_> = bench.tools.definitions();
    let names: Vec<_> = names.iter().map(|it| it.definition.name.as_str()).collect();
    assert!(names.is_sorted() && names.len() == 10, "{names:?}");
}

const MARKDOWN: &str = "# Costs rose\n\nBy **a *third*** in `2025`, see [the export](https://example.com/?a=1&b=2).[^1]\n\n\
    - one\n- two\n  1. deep\n  2. deeper\n\n3. three\n4. four\n\n> quoted\n\n| name | sum |\n|---|--:|\n| A & B | 1 |\n\n\
    ```\nlet x = 1 < 2;\n```\n\n---\n\n[^1]: The *export* of 30 November.\n";

fn unzipped(bytes: &[u8], part: &str) -> String {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut text = String::new();
    zip.by_name(part)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text
}

#[tokio::test]
async fn a_document_has_all_of_its_markdown_and_the_same_bytes_again() {
    let bench = Bench::plain();
    let arguments = json!({"path": "r.docx", "markdown": MARKDOWN, "title": "Review <Q4>"});
    bench.says("document_write", "k", arguments.clone()).await;
    let at = bench.workspace();
    let place = at.place("r.docx").unwrap();
    let first = at.read_file(&place).unwrap();
    bench.says("document_write", "k", arguments).await;
    assert_eq!(at.read_file(&place).unwrap(), first);
    let main = unzipped(&first, "word/document.xml");
    for piece in [
        "<w:pStyle w:val=\"Title\"/></w:pPr><w:r><w:t xml:space=\"preserve\">Review &lt;Q4&gt;",
        "<w:pStyle w:val=\"Heading1\"/>",
        "<w:b/><w:i/></w:rPr><w:t xml:space=\"preserve\">third",
        "<w:hyperlink r:id=\"link1\">",
        "<w:footnoteReference w:id=\"1\"/>",
        "<w:ilvl w:val=\"1\"/><w:numId w:val=\"2\"/>",
        "<w:ilvl w:val=\"0\"/><w:numId w:val=\"3\"/>",
        "<w:pStyle w:val=\"Quote\"/>",
        "A &amp; B",
        "let x = 1 &lt; 2;",
    ] {
        assert!(main.contains(piece), "{piece} is not in\n{main}");
    }
    let links = unzipped(&first, "word/_rels/document.xml.rels");
    assert!(links.contains("Target=\"https://example.com/?a=1&amp;b=2\" TargetMode=\"External\""));
    let numbering = unzipped(&first, "word/numbering.xml");
    assert!(numbering.contains("<w:startOverride w:val=\"3\"/>"));
    let read = bench
        .says("document_read", "k", json!({"path": "r.docx"}))
        .await;
    assert_eq!(
        read,
        "Review <Q4>\n# Costs rose\nBy a third in 2025, see the export.[^1]\none\ntwo\ndeep\ndeeper\nthree\nfour\n\
         quoted\nname | sum | \nA & B | 1 | \nlet x = 1 < 2;\n[^1]: The export of 30 November."
    );
    let said = json!({"path": "r.md", "markdown": "text", "title": "T"});
    bench.says("document_write", "k", said).await;
    assert_eq!(bench.text("r.md").unwrap(), "# T\n\ntext");
    let wrong = bench
        .says(
            "document_write",
            "k",
            json!({"path": "r.pdf", "markdown": ""}),
        )
        .await;
    assert!(wrong.contains("must end in .docx or .md"), "{wrong}");
}

fn sheets(formula: &str) -> Value {
    json!([
        {"name": "Data", "columns": ["item", "amount"], "rows": [["A", 1.5], ["007", 9_007_199_254_740_993_i64], [null, true]]},
        {"name": "Sum", "columns": ["total"], "rows": [], "formulas": [{"cell": "A2", "formula": formula}]},
    ])
}

#[tokio::test]
async fn a_spreadsheet_reads_back_and_its_formulas_are_checked() {
    let bench = Bench::plain();
    let arguments = json!({"path": "t.xlsx", "sheets": sheets("=SUM(Data!$B$2:B4)*1E2")});
    let said = bench
        .says("spreadsheet_write", "k", arguments.clone())
        .await;
    assert!(said.starts_with("wrote t.xlsx"), "{said}");
    let at = bench.workspace();
    let first = at.read_file(&at.place("t.xlsx").unwrap()).unwrap();
    bench.says("spreadsheet_write", "k", arguments).await;
    assert_eq!(at.read_file(&at.place("t.xlsx").unwrap()).unwrap(), first);
    let read = bench
        .says("document_read", "k", json!({"path": "t.xlsx"}))
        .await;
    assert_eq!(
        read,
        "## Data\nitem\tamount\nA\t1.5\n007\t9007199254740993\n\t1\n\n## Sum\ntotal\n=SUM(Data!$B$2:B4)*1E2"
            .replace("\n\t1\n", "\n1\n")
    );
    for (formula, why) in [
        ("SUM(A1)", "does not begin with `=`"),
        ("=Data!B9", "refers to B9, where nothing is"),
        ("=SUM(Data!B2:B5)", "refers to B5"),
        ("=SUM(B2:B3)", "refers to B2"),
        ("=Other!A1", "names a sheet `Other`"),
        ("='[book.xlsx]S'!A1", "points out of the file"),
        ("=[1]S!A1", "points out of the file"),
        ("=cmd|' /C calc'!A0", "points out of the file"),
        ("=WEBSERVICE(\"https://example.com\")", "uses WEBSERVICE"),
        ("=INDIRECT(\"A1\")", "uses INDIRECT"),
    ] {
        let arguments = json!({"path": "u.xlsx", "sheets": sheets(formula)});
        let said = bench.says("spreadsheet_write", "k", arguments).await;
        assert!(
            said.starts_with('!') && said.contains(why),
            "{formula}: {said}"
        );
    }
    assert_eq!(bench.text("u.xlsx"), None);
    let table = json!([{"name": "T", "columns": ["a,b", "c"], "rows": [["=1+1", -5], ["say \"x\"", null], ["-7", "@x"]]}]);
    bench
        .says(
            "spreadsheet_write",
            "k",
            json!({"path": "t.csv", "sheets": table}),
        )
        .await;
    assert_eq!(
        bench.text("t.csv").unwrap(),
        "\"a,b\",c\r\n'=1+1,-5\r\n\"say \"\"x\"\"\",\r\n-7,'@x\r\n"
    );
}

/// A server on loopback that gives the answer of each path, for as long as the test runs.
async fn server(answer: impl Fn(&str, u16) -> String + Send + 'static) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut read).await.unwrap() == 0 {
                    break;
                }
            }
            let head = String::from_utf8(read).unwrap();
            let path = head.split(' ').nth(1).unwrap_or_default();
            // A caller that has read enough may close before all is written.
            let _written = stream.write_all(answer(path, port).as_bytes()).await;
        }
    });
    port
}

fn page(kind: &str, body: &str) -> String {
    let size = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn leads(to: &str) -> String {
    format!(
        "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
}

#[tokio::test]
async fn pages_are_read_from_listed_hosts_alone_each_redirect_looked_at_anew() {
    let port = server(|path, port| match path {
        "/page" => page(
            "text/html; charset=utf-8",
            "<!doctype html><title>T</title><script>var a = '<p>no</p>';</script><h2>Head</h2><p>One &amp; two\n three\
             <ul><li>a<li><a href='/b?x=1&amp;y'>b</a></ul><table><tr><td>1<td>2</table><style>p{}</style>",
        ),
        "/hop" => leads("page"),
        "/far" => leads(&format!("http://localhost:{port}/page")),
        "/meta" => leads("http://169.254.169.254/latest"),
        "/loop" => leads("/loop"),
        "/secure" => leads("https://forbidden.example/"),
        "/picture" => page("image/png", "no"),
        "/large" => page("text/plain", &"x".repeat(3_000)),
        "/long" => page("text/plain", &"y".repeat(1_500)),
        _ => "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\ngone".to_owned(),
    })
    .await;
    let here = vec![format!("127.0.0.1:{port}")];
    let fetch = FetchConfig {
        hosts: [here.clone(), vec!["*".to_owned()]].concat(),
        plain_hosts: here,
        most_bytes: 2_000,
        text_bytes: 1_000,
        timeout_ms: 10_000,
    };
    let bench = Bench::new(Limits::default(), fetch);
    let at = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let read = |url: String| bench.says("http_fetch", "k", json!({"url": url}));
    let text = "T\n## Head\nOne & two three\n- a\n- [b](/b?x=1&y)\n1 | 2";
    for path in ["/page", "/hop"] {
        assert_eq!(read(at(path)).await, format!("{}\n\n{text}", at("/page")));
    }
    for (url, why) in [
        (at("/far"), "`localhost` may not be read"),
        (at("/meta"), "`169.254.169.254` may not be read"),
        (at("/loop"), "redirects more than 3 times"),
        (at("/secure"), "could not be reached"),
        (at("/picture"), "`image/png`, not text"),
        (at("/large"), "more than 2000 bytes"),
        (at("/none"), "answered 404: gone"),
        ("http://example.com/".to_owned(), "must be read by https"),
        ("https://127.0.0.1/".to_owned(), "may not be read"),
        ("https://2130706433/".to_owned(), "may not be read"),
        ("https://[::1]/".to_owned(), "may not be read"),
        ("https://me:pass@example.com/".to_owned(), "no address"),
        ("file:///etc/passwd".to_owned(), "no address"),
        (format!("http://127.0.0.1:{}/", port ^ 1), "may not be read"),
    ] {
        let said = read(url.clone()).await;
        assert!(said.starts_with('!') && said.contains(why), "{url}: {said}");
    }
    let long = read(at("/long")).await;
    assert!(long.ends_with("yyy\n[cut; 1500 bytes in all]"), "{long}");
    let offered = bench.tools.definitions();
    let fetch = offered
        .iter()
        .find(|it| it.definition.name == "http_fetch")
        .unwrap();
    assert_eq!(fetch.manifest.destinations, ["url"]);
}
