//! `pareto route` through the real binary: one score for one text whatever the dialect, order, many lines,
//! bad lines.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::PROGRAM;

/// Runs the command over `input`; returns whether it succeeded, its lines, and what it told.
fn route(args: &[&str], input: &str) -> (bool, Vec<Value>, String) {
    let mut child = Command::new(PROGRAM)
        .arg("route")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A command that ends at a bad line reads no further.
        let _written = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let told = String::from_utf8(output.stderr).unwrap();
    (output.status.success(), lines.collect(), told)
}

fn lines(values: &[Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}

#[test]
fn one_text_has_one_score_in_every_dialect_and_in_a_batch() {
    let text = "Prove \"that\" every finite integral domain\nis a field. ünï → ∎";
    let told = json!([{"role": "user", "content": text}]);
    let chat = json!({"model": "m", "messages": told});
    let input = lines(&[
        json!({"id": "a", "prompt": text}),
        json!({"id": "b", "model": "m", "messages": told}),
        json!({"id": "c", "model": "m", "input": text}),
        json!({"id": "d", "model": "m", "messages": told, "max_tokens": 9, "stop_sequences": []}),
        json!({"custom_id": "e", "method": "POST", "url": "/v1/chat/completions", "body": chat}),
        json!({"custom_id": "f", "params": {"messages": told, "max_tokens": 9}}),
        json!({"prompt": text}),
    ]);
    let (ok, lines, told) = route(&[], &input);
    assert!(ok, "{told}");
    let ids: Vec<&Value> = lines.iter().map(|line| &line["id"]).collect();
    assert_eq!(json!(ids), json!(["a", "b", "c", "d", "e", "f", 7]));
    let scores: BTreeSet<String> = lines.iter().map(|it| it["score"].to_string()).collect();
    assert_eq!(scores.len(), 1, "{scores:?}");
    for line in &lines {
        let fields: Vec<&str> = line
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(fields, ["id", "score", "tier", "reason", "step"]);
    }
}

#[test]
fn tools_are_the_same_however_they_are_written_and_structure_is_explained() {
    let tool = json!({"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}});
    let whole = json!([{"type": "function", "function": tool}]);
    let input = lines(&[
        json!({"id": 1, "prompt": "Call it.", "tools": [tool]}),
        json!({"id": 2, "prompt": "Call it.", "tools": whole}),
        json!({"id": 3, "messages": [{"role": "user", "content": "Call it."}], "tools": whole}),
        json!({"id": 4, "messages": [{"role": "user", "content": "Call it."}], "tools": whole,
            "metadata": {"pareto_step": "repair"}}),
    ]);
    let (ok, lines, told) = route(&["--explain"], &input);
    assert!(ok, "{told}");
    for line in &lines[..3] {
        assert_eq!(
            (&line["step"], &line["shape"]["tools"]),
            (&"act".into(), &1.into())
        );
        assert_eq!(
            (&line["score"], &line["shape"]),
            (&lines[0]["score"], &lines[0]["shape"])
        );
    }
    assert_eq!(lines[3]["step"], "repair");
    assert!(lines[3]["score"].as_f64() > lines[0]["score"].as_f64());
}

#[test]
fn fifty_thousand_lines_come_back_in_order_with_the_share_that_was_asked_for() {
    let words = [
        "prime", "river", "theorem", "recipe", "lemma", "poem", "kernel",
    ];
    let input: String = (0..50_000)
        .map(|n| {
            let text: Vec<&str> = (0..70)
                .map(|at| words[(n * 31 + at * at * 7) % words.len()])
                .collect();
            format!(
                "{{\"id\":\"p{n}\",\"prompt\":\"{n} {}\"}}\n",
                text.join(" ")
            )
        })
        .collect();
    assert!(input.len() > 50_000 * 400);
    let (ok, lines, told) = route(&["--deep-per-thousand", "300"], &input);
    assert!(ok, "{told}");
    assert_eq!(lines.len(), 50_000);
    let ids = lines.iter().enumerate();
    assert!(
        ids.into_iter()
            .all(|(n, line)| line["id"] == format!("p{n}"))
    );
    let deep = lines.iter().filter(|line| line["tier"] == "deep").count();
    assert!((14_995..=15_005).contains(&deep), "{deep} of 15,000");
    assert!(told.contains("50000") && told.contains("30.0 %"), "{told}");
}

#[test]
fn a_bad_line_is_told_with_its_number_and_can_be_passed_over() {
    let input = "{\"prompt\":\"good\"}\n\n{\"id\":\"x\",\"messages\":5}\n{\"prompt\":\n{\"prompt\":\"good\"}\n";
    let (ok, lines, told) = route(&[], input);
    assert!(!ok && lines.len() == 1, "{lines:?}");
    assert!(
        told.contains("line 3") && told.contains("--keep-going"),
        "{told}"
    );
    let (ok, lines, _) = route(&["--keep-going"], input);
    assert!(ok);
    let ids: Vec<&Value> = lines.iter().map(|line| &line["id"]).collect();
    assert_eq!(json!(ids), json!([1, "x", null, 5]));
    assert_eq!(
        (&lines[1]["line"], &lines[2]["line"]),
        (&3.into(), &4.into())
    );
    assert!(
        lines[1]["error"]
            .as_str()
            .unwrap()
            .contains("`messages` must be")
    );
    let (ok, _, told) = route(&["--dialect", "klingon"], input);
    assert!(!ok && told.contains("openai_chat"), "{told}");
}

#[test]
fn a_configuration_gives_models_share_and_priors() {
    let folder = tempfile::tempdir().unwrap();
    let (file, from, to) = (
        folder.path().join("pareto.toml"),
        folder.path().join("in.jsonl"),
        folder.path().join("out.jsonl"),
    );
    let head =
        "[[endpoint]]\nname = \"e\"\ndialect = \"openai_chat\"\nurl = \"http://127.0.0.1:1\"\n";
    let model = |tier: &str| {
        format!("[[model]]\nname = \"{tier}-model\"\ntier = \"{tier}\"\nendpoint = \"e\"\n")
    };
    let routing = "[routing]\nstep = { repair = 10.0 }\n";
    let both = format!("{routing}{head}{}{}", model("fast"), model("deep"));
    let only = format!("{head}{}", model("deep"));
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "metadata": {"pareto_step": "repair"}});
    std::fs::write(&from, body.to_string()).unwrap();
    for (text, tier, reason, scored) in [
        (&both, "deep", "score", true),
        (&only, "deep", "only_tier", false),
    ] {
        std::fs::write(&file, text).unwrap();
        let args = [&from, &to, &file].map(|path| path.to_str().unwrap());
        let (ok, printed, told) = route(&[args[0], "--out", args[1], "--config", args[2]], "");
        assert!(ok && printed.is_empty(), "{told}");
        let line: Value = serde_json::from_str(&std::fs::read_to_string(&to).unwrap()).unwrap();
        assert_eq!(
            (&line["tier"], &line["reason"]),
            (&tier.into(), &reason.into())
        );
        assert_eq!(
            line["score"].as_f64().is_some_and(|score| score > 0.99),
            scored
        );
    }
}
