//! Documents and tables that the built-in tools make, opened by python-docx and openpyxl.

use std::process::Command;
use std::time::Duration;

use orchestrator::TaskId;
use orchestrator::outbound::Outbound;
use orchestrator::tool::builtin::{Builtins, FetchConfig, Limits};
use orchestrator::tool::{Outcome, ToolCall};
use serde_json::{Value, json};

const MARKDOWN: &str = "## Costs rose\n\nBy **a third**, see [the export](https://example.com/?a=1&b=2).[^1]\n\n\
    - one\n- two\n  1. deep\n\n> quoted\n\n| name | sum |\n|---|---|\n| A & B | 1 |\n\n\
    ```\nlet x = 1 < 2;\n```\n\n[^1]: The export.\n";

async fn made(tools: &Builtins, task: TaskId, tool: &str, arguments: Value) {
    let offered = tools.definitions();
    let found = offered.iter().find(|it| it.definition.name == tool);
    let call = ToolCall {
        task,
        tenant: "acme".to_owned(),
        tool: tool.to_owned(),
        pin: found.unwrap().pin,
        arguments,
        key: "key".to_owned(),
        within: Duration::from_secs(60),
        until: orchestrator::tool::Until::always(),
    };
    match tools.call(&call).await {
        Outcome::Done(result) => assert!(!result.is_error, "{}", result.plain()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_tasks_write_opens_in_python_docx_and_openpyxl() {
    if std::env::var("PARETO_SKIP").is_ok_and(|skip| skip.contains("sdks")) {
        println!("skipped by PARETO_SKIP");
        return;
    }
    let sdks = std::env::var("PARETO_SDKS").expect("PARETO_SDKS is not set; run tests/run");
    let folder = tempfile::tempdir().unwrap();
    let nowhere = tower::service_fn(|_| async { Err(tower::BoxError::from("nothing is fetched")) });
    let root = folder.path().join("w");
    let (limits, fetch) = (Limits::default(), FetchConfig::default());
    let tools = Builtins::new(root, limits, fetch, Outbound::new(nowhere));
    let task = TaskId::new(1, [1; 10]);
    let document = json!({"path": "report.docx", "markdown": MARKDOWN, "title": "Review"});
    made(&tools, task, "document_write", document).await;
    let sheets = json!([
        {"name": "Data", "columns": ["item", "amount"], "rows": [["007", 1.5], ["=x", 2]]},
        {"name": "Sum", "columns": ["total"], "rows": [], "formulas": [{"cell": "A2", "formula": "=SUM(Data!B2:B3)"}]},
    ]);
    made(
        &tools,
        task,
        "spreadsheet_write",
        json!({"path": "table.xlsx", "sheets": sheets}),
    )
    .await;
    let workspace = tools.workspace("acme", task).unwrap();
    for artifact in workspace.artifacts().unwrap() {
        let place = workspace.place(&artifact.path).unwrap();
        let bytes = workspace.read_file(&place).unwrap();
        std::fs::write(folder.path().join(&artifact.path), bytes).unwrap();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/office.py");
    let python = format!("{sdks}/py/bin/python");
    let output = Command::new(python)
        .arg(script)
        .arg(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "title": "Review",
        "paragraphs": [
            ["Title", "Review"],
            ["Heading 2", "Costs rose"],
            ["Normal", "By a third, see the export."],
            ["List Paragraph", "one"],
            ["List Paragraph", "two"],
            ["List Paragraph", "deep"],
            ["Quote", "quoted"],
            ["Code", "let x = 1 < 2;"],
        ],
        "bold": ["a third"],
        "links": ["https://example.com/?a=1&b=2"],
        "tables": [[["name", "sum"], ["A & B", "1"]]],
        "sheets": {
            "Data": [["item", "amount"], ["007", 1.5], ["=x", 2]],
            "Sum": [["total"], ["=SUM(Data!B2:B3)"]],
        },
    });
    assert_eq!(found, expected);
}
