//! The house rules that a compiler does not check: layers, headers, reasons, stray files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{extension} below {dir}");
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The code of a file without comments and unit tests, which may look anywhere; nothing of a file of tests.
fn code(path: &Path) -> String {
    let name = relative(path);
    if name.ends_with("/tests.rs") || name.contains("/tests/") || name.ends_with("/testing.rs") {
        return String::new();
    }
    let text = std::fs::read_to_string(path).unwrap();
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines =
        text[..end].lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// The module names after `crate::` in a file's code.
fn imports(code: &str) -> Vec<&str> {
    let mut names: Vec<_> = code
        .lines()
        .flat_map(|line| {
            line.match_indices("crate::").map(move |(at, found)| &line[at + found.len()..])
        })
        .map(|rest| {
            rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default()
        })
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn layers() -> BTreeMap<&'static str, Vec<&'static str>> {
    const VOCABULARY: [&str; 7] =
        ["id", "clock", "limits", "event", "agent", "environment", "skill"];
    // What each may know besides the vocabulary and itself.
    let session = ["store", "provider", "sandbox", "egress", "tool", "web", "mcp"];
    let runtime = ["store", "provider", "sandbox", "egress", "tool", "web", "mcp", "session"];
    let above: [(&str, &[&str]); 11] = [
        ("store", &[]),
        ("provider", &[]),
        ("sandbox", &[]),
        ("egress", &[]),
        ("tool", &["sandbox", "egress"]),
        ("web", &["egress"]),
        ("mcp", &["egress"]),
        ("session", &session),
        ("runtime", &runtime),
        ("api", &["runtime"]),
        ("cli", &["api", "runtime"]),
    ];
    let vocabulary = VOCABULARY.map(|module| (module, VOCABULARY.to_vec()));
    let above = above.map(|(module, known)| (module, [&VOCABULARY, known, &[module]].concat()));
    vocabulary.into_iter().chain(above).collect()
}

#[test]
fn imports_go_strictly_down() {
    let layers = layers();
    for path in files_below("src", "rs") {
        let name = relative(&path);
        let module = name["src/".len()..].split(['/', '.']).next().unwrap().to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        let allowed = layers
            .get(module.as_str())
            .unwrap_or_else(|| panic!("{name}: `{module}` has no layer"));
        for import in imports(&code(&path)) {
            assert!(
                allowed.contains(&import),
                "{name} imports crate::{import}, which `{module}` must not know"
            );
        }
    }
}

#[test]
fn pure_files_stay_pure() {
    let pure = [
        "src/session/state.rs",
        "src/session/step.rs",
        "src/session/prompt.rs",
        "src/session/recover.rs",
        "src/session/made.rs",
        "src/session/offers.rs",
        "src/session/network.rs",
        "src/sandbox/plan.rs",
        "src/egress/address.rs",
        "src/egress/http.rs",
        "src/egress/policy.rs",
        "src/egress/sniff.rs",
        "src/egress/tls.rs",
        "src/egress/wire.rs",
    ];
    for name in pure {
        let code = code(&root().join(name));
        for banned in ["tokio", "async ", ".await", "std::fs", "std::env", "Clock"] {
            assert!(!code.contains(banned), "{name} is pure and has no place for `{banned}`");
        }
    }
    for path in files_below("src/tool/inside", "rs") {
        assert!(!code(&path).contains("tokio"), "{}: the guest has no tokio", relative(&path));
    }
    for path in
        files_below("src/provider", "rs").into_iter().chain(files_below("src/session", "rs"))
    {
        assert!(!code(&path).contains("rusqlite"), "{}: only the store knows SQL", relative(&path));
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for dir in ["src", "tests", "benches"] {
        for path in files_below(dir, "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("//!"), "{} does not open with //!", relative(&path));
        }
    }
}

#[test]
fn every_module_header_says_what_it_owns_and_must_not_know() {
    for module in [
        "event", "store", "provider", "sandbox", "egress", "tool", "mcp", "session", "runtime",
        "api", "cli",
    ] {
        let text = std::fs::read_to_string(root().join(format!("src/{module}/mod.rs"))).unwrap();
        for word in ["//! Owns:", "//! Does not", "//! Invariants:", "//! How to add"] {
            assert!(text.contains(word), "src/{module}/mod.rs lacks `{word}`");
        }
    }
}

#[test]
fn unsafe_lives_in_one_file() {
    for path in files_below("src", "rs") {
        let name = relative(&path);
        let code = code(&path);
        let has = code.contains("unsafe {") || code.contains("unsafe fn");
        assert!(!has || name == "src/sandbox/sys.rs", "{name} has unsafe code");
    }
}

#[test]
fn every_line_of_a_profile_has_its_reason() {
    for path in files_below("sandbox-profiles", "toml") {
        let text = std::fs::read_to_string(&path).unwrap();
        let tables = text.matches("\n[[").count() + usize::from(text.starts_with("[["));
        let reasons = text.matches("reason = ").count();
        assert!(reasons >= tables, "{}: {tables} entries, {reasons} reasons", relative(&path));
    }
}

/// `cargo deny` checks more; this much needs no tool.
#[test]
fn banned_crates_stay_out() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (rules, lock) = (read("deny.toml"), read("Cargo.lock"));
    let banned: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next())
        .collect();
    assert!(!banned.is_empty(), "deny.toml bans nothing");
    for name in banned {
        assert!(!lock.contains(&format!("\nname = \"{name}\"\n")), "{name} is in Cargo.lock");
    }
}

#[test]
fn no_test_file_is_forgotten() {
    let main = std::fs::read_to_string(root().join("tests/it/main.rs")).unwrap();
    for entry in std::fs::read_dir(root().join("tests/it")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_module = path.is_dir() && path.join("mod.rs").exists()
            || path.extension().is_some_and(|e| e == "rs") && stem != "main";
        assert!(
            !is_module || main.contains(&format!("mod {stem};")),
            "tests/it/{stem} is not in main.rs"
        );
    }
}

#[test]
fn nothing_is_left_open() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[ig", "nore"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
    ];
    for path in files_below("src", "rs").into_iter().chain(files_below("tests", "rs")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for word in words {
            assert!(!text.contains(word), "{} has `{word}`", relative(&path));
        }
    }
}

#[test]
fn long_functions_are_missing_types() {
    const LIMIT: usize = 90;
    for path in files_below("src", "rs") {
        let code = code(&path);
        let mut start = None;
        for (number, line) in code.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_fn = line.trim_start().starts_with("fn ")
                || line.trim_start().starts_with("pub fn ")
                || line.contains(") fn ") && line.trim_start().starts_with("pub(")
                || line.contains("async fn ");
            if is_fn && start.is_none() && line.ends_with('{') {
                start = Some((number, indent));
            }
            if let Some((from, depth)) = start
                && indent == depth
                && line.trim_end() == format!("{}}}", " ".repeat(depth))
            {
                let length = number - from;
                assert!(
                    length <= LIMIT,
                    "{}:{} has a function of {length} lines",
                    relative(&path),
                    from + 1
                );
                start = None;
            }
        }
    }
}

#[test]
fn the_house_documents_name_every_room() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for path in files_below("src", "rs") {
        let name = relative(&path);
        let file = name.rsplit('/').next().unwrap();
        let known = map.contains(file) || map.contains(&name);
        assert!(
            known || file == "mod.rs" || file == "tests.rs" || name.contains("/tests/"),
            "ARCHITECTURE.md does not name {name}"
        );
    }
}

/// The numbers of a row of the checklist: `7`, `79, 80`, `70–78`.
fn numbers(cell: &str) -> Vec<u32> {
    let parse = |text: &str| text.trim().parse::<u32>().unwrap_or_else(|_| panic!("`{cell}`"));
    let range = |part: &str| match part.split_once('–') {
        Some((first, last)) => parse(first)..=parse(last),
        None => parse(part)..=parse(part),
    };
    cell.split(',').flat_map(range).collect()
}

/// Whether there is a test of that name: `test_module.test_name` of the SDKs' tests, `module::name` of ours.
fn is_test(name: &str) -> bool {
    let has = |path: String, head: &str| {
        std::fs::read_to_string(root().join(path)).is_ok_and(|text| text.contains(head))
    };
    if let Some((module, name)) = name.split_once('.') {
        return has(format!("tests/sdk/python/{module}.py"), &format!("    def {name}(self):\n"));
    }
    let Some((module, name)) = name.rsplit_once("::") else { return false };
    let (path, head) = (module.replace("::", "/"), format!("fn {name}() {{"));
    let within = |dir: &str| {
        has(format!("{dir}/{path}.rs"), &head) || has(format!("{dir}/{path}/mod.rs"), &head)
    };
    ["tests/it", "src"].into_iter().any(within)
}

#[test]
fn every_number_of_the_checklist_has_its_test_or_a_reason() {
    const LAST: u32 = 186;
    let text = std::fs::read_to_string(root().join("docs/compatibility.md")).unwrap();
    let (_, table) = text.split_once("\n| number | about | shown by |\n|---|---|---|\n").unwrap();
    let mut seen = Vec::new();
    for row in table.lines().take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, _, shown] = cells[..] else { panic!("not three cells: {row}") };
        seen.extend(numbers(number));
        let tests: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
        let excused = shown.starts_with("not applicable: ") || shown.starts_with("not yet: ");
        assert!(excused || !tests.is_empty(), "neither test nor reason: {row}");
        for test in tests {
            assert!(is_test(test), "{number}: there is no test {test}");
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=LAST).collect::<Vec<_>>());
}
