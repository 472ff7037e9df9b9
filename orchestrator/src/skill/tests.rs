//! Proves how skills are read: the front matter and its errors, layers and reserved names, limits, what is
//! told of problems, and that a pin covers every file.

use std::path::Path;

use super::*;

fn error(text: &str) -> String {
    Front::read(text).unwrap_err().to_string()
}

#[test]
fn front_matter_is_read_as_the_format_has_it() {
    let text = "---\n# a comment\nname: pdf-forms2\ndescription: \"Fill: \\\"forms\\\"\" # said\nlicense: 'it''s free'\n\
        compatibility: >-\n  needs\n  nothing\nmetadata:\n  author: \"me: you\"\n  version: 1.0\n\
        allowed-tools:\n  - fs_*\n  - \"http_fetch\"\nother: 1\n---\n\n# Body\n---\nmore";
    let (front, body) = Front::read(text).unwrap();
    assert_eq!(body, "# Body\n---\nmore");
    let expected = Front {
        name: "pdf-forms2".into(),
        description: "Fill: \"forms\"".into(),
        license: Some("it's free".into()),
        compatibility: Some("needs nothing".into()),
        metadata: [("author", "me: you"), ("version", "1.0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        allowed_tools: Some(vec!["fs_*".into(), "http_fetch".into()]),
        unknown: vec!["other".into()],
    };
    assert_eq!(front, expected);
    for tools in [
        "fs_read fs_list",
        "[fs_read, \"fs_list\"]",
        "fs_read, fs_list",
    ] {
        let text =
            format!("---\r\nname: a\r\ndescription: d\r\nallowed-tools: {tools}\r\n---\r\nb");
        let (front, body) = Front::read(&text).unwrap();
        assert_eq!(front.allowed_tools.unwrap(), ["fs_read", "fs_list"]);
        assert_eq!(body, "b");
    }
}

#[test]
fn errors_of_front_matter_name_the_line_and_what_is_wrong() {
    let with = |line: &str| error(&format!("---\nname: a\ndescription: d\n{line}\n---\n"));
    let named = |name: &str| error(&format!("---\nname: {name}\ndescription: d\n---\n"));
    let long = "x".repeat(1_025);
    for (told, expected) in [
        (
            error("# no"),
            "SKILL.md, line 1: the file must begin with a line `---`",
        ),
        (
            error("---\nname: a\n"),
            "line 1: the front matter does not end",
        ),
        (
            error("---\nname: a\n---\n"),
            "line 1: the field `description` is missing",
        ),
        (
            error("---\ndescription: a\n---\n"),
            "line 1: the field `name` is missing",
        ),
        (
            error("---\n  name: a\n---\n"),
            "line 2: this line is set in",
        ),
        (with("name: b"), "line 4: `name` stands twice"),
        (with("no field"), "line 4: this is no field"),
        (with("license: a: b"), "line 4: `license` has a colon in it"),
        (
            with("license: \"a"),
            "line 4: `license` has a quote that does not end",
        ),
        (
            with("license: \"a\" b"),
            "line 4: `license` has text behind its quotes",
        ),
        (
            with("license: &a b"),
            "line 4: `license` is written in a way",
        ),
        (with("license: a\n  b"), "line 4: `license` goes on below"),
        (with("metadata: a"), "line 4: `metadata` must be a map"),
        (
            with("metadata:\n  a"),
            "line 5: `metadata`: this is no `name: value`",
        ),
        (
            with("allowed-tools:\n  a"),
            "line 5: `allowed-tools`: this is no item",
        ),
        (
            with("allowed-tools: [a"),
            "line 4: `allowed-tools` has a bracket",
        ),
        (
            with(&format!("compatibility: {}", "x".repeat(501))),
            "has 501 characters; at most 500",
        ),
        (
            error(&format!("---\nname: a\ndescription: {long}\n---\n")),
            "has 1025 characters",
        ),
        (named("A"), "line 2: `name` must be lower-case"),
        (named("a--b"), "must be lower-case"),
        (named(&"a".repeat(65)), "has 65 characters"),
        (named("\"\""), "`name` is empty"),
    ] {
        assert!(told.contains(expected), "{told}\nis not: {expected}");
    }
}

fn put(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn skill(name: &str, description: &str) -> String {
    format!("---\nname: {name}\ndescription: {description}\n---\nDo {description}.\n")
}

#[test]
fn built_in_skills_are_whole_short_and_narrow() {
    let library = Library::open(&[]);
    assert_eq!(library.problems, []);
    let listed = library.list("anybody");
    let names: Vec<_> = listed.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(
        names,
        ["document", "research-and-cite", "spreadsheet", "verify"]
    );
    assert!(
        listed
            .iter()
            .all(|it| it.trusted && it.layer == Layer::Builtin)
    );
    for name in names {
        let body = library.load("anybody", name).unwrap();
        assert!((40..=120).contains(&body.lines().count()), "{name}");
        assert!(body.starts_with("# "));
    }
    let document = library.skill("a", "document").unwrap();
    assert!(document.allows("fs_patch") && !document.allows("http_fetch"));
    let research = library.skill("a", "research-and-cite").unwrap();
    assert!(research.allows("anything"), "it says nothing of tools");
    assert!(fits("mail__*", "mail__send") && fits("a*b*c", "axbxc") && fits("*", ""));
    assert!(!fits("mail__*", "mailx") && !fits("a*b", "ac") && !fits("a", "ab"));
}

/// Skills of all and of one tenant, some of them wrong.
fn fill(at: &Path) {
    put(at, "letters/SKILL.md", &skill("letters", "letters"));
    put(at, "letters/forms/a.txt", "Dear");
    put(
        at,
        "@acme/letters/SKILL.md",
        &skill("letters", "letters of acme"),
    );
    put(at, "@acme/orders/SKILL.md", &skill("orders", "orders"));
    put(at, "document/SKILL.md", &skill("document", "mine"));
    put(at, "wrong/SKILL.md", &skill("other", "x"));
    put(at, "empty/readme.txt", "x");
    put(
        at,
        "odd/SKILL.md",
        "---\nname: odd\ndescription: d\ncolour: red\n---\n",
    );
    std::os::unix::fs::symlink("/etc", at.join("letters-link")).unwrap();
    put(at, "linked/SKILL.md", &skill("linked", "x"));
    std::os::unix::fs::symlink("/etc/passwd", at.join("linked/passwd")).unwrap();
}

#[test]
fn folders_add_skills_for_all_and_for_one_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fill(at);
    let missing = at.join("nowhere");
    let dirs = [
        (Layer::Tenant, at.to_owned()),
        (Layer::User, missing.clone()),
    ];
    let library = Library::open(&dirs);
    let names = |tenant: &str| -> Vec<String> {
        let listed = library.list(tenant).into_iter();
        listed
            .map(|it| format!("{}: {}", it.name, it.trusted))
            .collect()
    };
    let shared = "document: true, letters: false, odd: false, research-and-cite: true, spreadsheet: true, verify: true";
    assert_eq!(names("beta").join(", "), shared);
    assert!(names("acme").contains(&"orders: false".to_owned()));
    assert_eq!(library.load("beta", "letters"), Some("Do letters.\n"));
    assert_eq!(
        library.load("acme", "letters"),
        Some("Do letters of acme.\n")
    );
    assert_eq!(library.load("beta", "orders"), None);
    assert_eq!(
        library.read("beta", "letters", "forms/a.txt"),
        Some(b"Dear".as_slice())
    );
    assert_eq!(library.read("beta", "letters", "../orders/SKILL.md"), None);
    let letters = library.skill("beta", "letters").unwrap();
    assert_eq!(letters.files().collect::<Vec<_>>(), ["forms/a.txt"]);
    let told: Vec<String> = library
        .problems
        .iter()
        .map(|it| {
            format!(
                "{}: {}",
                it.path.strip_prefix(at).unwrap().display(),
                it.what
            )
        })
        .collect();
    for (path, what) in [
        ("document", "is built in; choose another name"),
        ("wrong", "its name is `other`, and its folder's `wrong`"),
        ("empty", "there is no SKILL.md in it"),
        ("odd", "its field `colour` means nothing here"),
        ("linked", "`passwd` is a symbolic link"),
        ("nowhere", "the folder can not be read"),
    ] {
        let is_told = |it: &&String| it.starts_with(path) && it.contains(what);
        assert_eq!(told.iter().filter(is_told).count(), 1, "{path}: {told:?}");
    }
    assert_eq!(told.len(), 6);
}

#[test]
fn limits_are_kept_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let long = skill("long", "x") + &"x".repeat(64 << 10);
    put(at, "long/SKILL.md", &long);
    put(at, "many/SKILL.md", &skill("many", "x"));
    (0..20).for_each(|n| put(at, &format!("many/{n}"), ""));
    put(at, "large/SKILL.md", &skill("large", "x"));
    put(at, "large/data", &"x".repeat(10 << 20));
    put(at, "deep/SKILL.md", &skill("deep", "x"));
    put(at, "deep/1/2/3/4/5/file", "x");
    for n in 0..51 {
        let name = format!("s{n}");
        put(at, &format!("@acme/{name}/SKILL.md"), &skill(&name, "x"));
    }
    let library = Library::open(&[(Layer::User, at.to_owned())]);
    assert_eq!(library.list("acme").len(), 50 + 4);
    assert_eq!(library.list("beta").len(), 4);
    let told: Vec<&str> = library.problems.iter().map(|it| it.what.as_str()).collect();
    for what in [
        "64 KiB",
        "more than 20 files",
        "larger than 10 MiB",
        "too deep",
        "50 skills already",
    ] {
        assert_eq!(
            told.iter().filter(|it| it.contains(what)).count(),
            1,
            "{what}: {told:?}"
        );
    }
}

#[test]
fn a_pin_covers_every_file_and_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let pin = || {
        let library = Library::open(&[(Layer::Tenant, at.to_owned())]);
        library.pin("a", "one").unwrap()
    };
    put(at, "one/SKILL.md", &skill("one", "x"));
    put(at, "one/a", "text");
    let mut pins = vec![pin()];
    assert_eq!(pin(), pins[0]);
    put(at, "one/a", "texts");
    pins.push(pin());
    std::fs::rename(at.join("one/a"), at.join("one/b")).unwrap();
    pins.push(pin());
    put(at, "one/SKILL.md", &skill("one", "y"));
    pins.push(pin());
    pins.sort();
    pins.dedup();
    assert_eq!(pins.len(), 4);
}
