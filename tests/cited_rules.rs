//! The rules that the source cites stand in `docs/ordering.md`, and the guards that the page names exist.
//!
//! Story: a comment says "rule B5", and nobody can look the rule up. Or the page says which test guards a rule, the test was
//! renamed or thrown away, and the page goes on promising it. Both look well until somebody needs them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/ordering.md";
/// Where rules are cited, and the endings of the files that are read there.
const DIRECTORIES: &[&str] = &["src", "tests", "fuzz", "perf", "benches"];
const ENDINGS: &[&str] = &["rs", "py", "sh", "toml", "md", "java", "c"];
/// What is generated, and this file, whose made-up citations name no rules.
const PASSED_OVER: &[&str] = &["target", "corpus", "artifacts", ".work", "cited_rules.rs"];

/// Names a rule: a letter and a number.
type RuleName = String;

/// What guards a rule, as the page says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Guard {
    kind: GuardKind,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GuardKind {
    Test,
    PlantedBug,
    CheckerRule,
    Mark,
    InteropCheck,
}

/// The words before the names in a line of guards. A line that begins otherwise is a mistake.
const KINDS: &[(&str, GuardKind)] = &[
    ("test", GuardKind::Test),
    ("planted bug", GuardKind::PlantedBug),
    ("checker rule", GuardKind::CheckerRule),
    ("mark", GuardKind::Mark),
    ("interop check", GuardKind::InteropCheck),
];
/// Lines of guards that name none, and say why.
const WITHOUT_A_GUARD: &[&str] = &["not built yet: ", "no guard of its own"];

/// The page, as far as it is checked.
#[derive(Debug, Default)]
struct Page {
    rules: BTreeSet<RuleName>,
    guards: BTreeSet<Guard>,
    /// What is wrong with the page itself.
    faults: Vec<String>,
}

impl Page {
    fn parse(text: &str) -> Page {
        let mut page = Page::default();
        // The rule that the lines belong to, and whether a line has said what guards it.
        let mut open: Option<(String, bool)> = None;
        let mut in_guards = false;
        for line in text.lines().chain(["## the end"]) {
            if let Some(title) = line.strip_prefix("### ").or(line.strip_prefix("## ")) {
                if let Some((rule, false)) = open.take() {
                    page.faults.push(format!("rule {rule} does not say what guards it"));
                }
                let name = title.split('.').next().unwrap_or_default();
                if line.starts_with("### ") {
                    if !is_rule_name(name) || !page.rules.insert(name.to_owned()) {
                        page.faults.push(format!("not the title of a new rule: {line}"));
                    }
                    open = Some((name.to_owned(), false));
                }
                in_guards = false;
            } else if line == "**Guards**" {
                in_guards = true;
            } else if in_guards && let Some(item) = line.strip_prefix("- ") {
                page.guards_of(item);
                if let Some((_, guarded)) = &mut open {
                    *guarded = true;
                }
            }
        }
        page
    }

    /// Takes one line of guards: a kind, then names in backticks.
    fn guards_of(&mut self, item: &str) {
        if WITHOUT_A_GUARD.iter().any(|words| item.starts_with(words)) {
            return;
        }
        let words = item.split('`').next().unwrap_or_default().trim_end();
        let kind = KINDS.iter().find(|(one, _)| words == *one || words.strip_suffix('s') == Some(one));
        let names: Vec<&str> = item.split('`').skip(1).step_by(2).collect();
        match kind {
            Some((_, kind)) if !names.is_empty() => {
                let guards = names.into_iter().map(|name| Guard { kind: *kind, name: name.to_owned() });
                self.guards.extend(guards);
            }
            _ => self.faults.push(format!("no kind of guard, or no name: {item}")),
        }
    }
}

fn is_rule_name(word: &str) -> bool {
    let (letter, number) = word.split_at_checked(1).unwrap_or_default();
    matches!(letter, "A" | "B" | "C" | "D" | "E")
        && (1..=2).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && !number.starts_with('0')
}

/// The part of a line that may cite: of Rust only comments, since `A1` may be a name in code; elsewhere lines that speak of rules.
fn citing_part<'a>(ending: &str, line: &'a str) -> &'a str {
    match ending {
        "rs" => line.find("//").map_or("", |start| &line[start..]),
        _ if line.to_ascii_lowercase().contains("rule") => line,
        _ => "",
    }
}

/// The rules that a line cites, those between the ends of "B1 to B13" included.
fn cited_rules(part: &str) -> Vec<RuleName> {
    let mut cited: Vec<RuleName> = Vec::new();
    let mut before = ("", "");
    for word in part.split(|c: char| c.is_whitespace()) {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        for piece in word.split(['/', ',', '(', ')', ':']).filter(|piece| is_rule_name(piece)) {
            if before.1 == "to"
                && is_rule_name(before.0)
                && before.0[..1] == piece[..1]
                && let (Ok(first), Ok(last)) = (before.0[1..].parse::<u32>(), piece[1..].parse::<u32>())
            {
                cited.extend((first + 1..last).map(|number| format!("{}{number}", &piece[..1])));
            }
            cited.push(piece.to_owned());
        }
        before = (before.1, word);
    }
    cited
}

/// The documents that a line names: `docs/ordering.md`, `README.md`.
fn cited_documents(part: &str) -> impl Iterator<Item = &str> {
    part.split(|c: char| !(c.is_alphanumeric() || "/_-.".contains(c)))
        .filter(|word| word.strip_suffix(".md").is_some_and(|name| !name.is_empty()))
}

/// What the guards of the page are looked up in.
#[derive(Debug, Default)]
struct Tree {
    tests: BTreeSet<String>,
    planted_bugs: String,
    checker: String,
    marks: BTreeSet<String>,
    interop: String,
}

impl Tree {
    fn add(&mut self, file: &str, text: &str) {
        self.tests.extend(test_functions(text));
        if file == "src/base/planted.rs" {
            self.planted_bugs.push_str(text);
        }
        if file.starts_with("src/simulator/checker/") && !file.ends_with("tests.rs") {
            self.checker.push_str(text);
        }
        if file.starts_with("src/") && file.ends_with(".rs") {
            self.marks
                .extend(text.split("mark(\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
        if file.starts_with("tests/interop/") {
            self.interop.push_str(text);
        }
    }

    fn has(&self, guard: &Guard) -> bool {
        let quoted = format!("\"{}\"", guard.name);
        match guard.kind {
            GuardKind::Test => self.tests.contains(&guard.name),
            GuardKind::PlantedBug => self.planted_bugs.contains(&quoted),
            GuardKind::CheckerRule => self.checker.contains(&quoted),
            GuardKind::Mark => self.marks.contains(&guard.name),
            GuardKind::InteropCheck => self.interop.contains(&format!("@check({quoted}")),
        }
    }
}

/// The names of the functions right behind a `#[test]` and other attributes.
fn test_functions(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if let Some(rest) = line.strip_prefix("fn ") {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            found.extend(is_test.then(|| name.to_owned()));
            is_test = false;
        } else if line.starts_with("#[") {
            is_test |= line == "#[test]";
        }
    }
    found
}

/// What is wrong between page and sources: one line for each place.
fn faults(page: &Page, files: &[(String, String)], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut faults = page.faults.clone();
    let mut tree = Tree::default();
    for (file, text) in files {
        tree.add(file, text);
        let ending = file.rsplit('.').next().unwrap_or_default();
        for (number, line) in (1..).zip(text.lines()) {
            let part = citing_part(ending, line);
            for rule in cited_rules(part).iter().filter(|rule| !page.rules.contains(*rule)) {
                faults.push(format!("{file}:{number} cites rule {rule}, which is not in {PAGE}"));
            }
            if ending == "rs" {
                for document in cited_documents(part).filter(|document| !exists(document)) {
                    faults.push(format!("{file}:{number} cites {document}, which is not in the repository"));
                }
            }
        }
    }
    for guard in page.guards.iter().filter(|guard| !tree.has(guard)) {
        faults.push(format!("{PAGE} names the guard {:?} `{}`, which is not in the sources", guard.kind, guard.name));
    }
    faults
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of the repository") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if PASSED_OVER.contains(&&*name) {
            continue;
        }
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            collect(&path, files);
        } else if ENDINGS.contains(&&*ending) {
            files.push(path);
        }
    }
}

/// Every file that may cite, as (path from the root, text).
fn sources() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for directory in DIRECTORIES {
        collect(&root().join(directory), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a text file");
        (path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned(), text)
    };
    paths.into_iter().map(read).collect()
}

/// A reader who meets a rule in the source must find the rule, and the guard that the page names.
#[test]
fn cited_rules_and_named_guards_are_there() {
    let page = Page::parse(&fs::read_to_string(root().join(PAGE)).expect(PAGE));
    let sources = sources();
    let faults = faults(&page, &sources, |document| root().join(document).is_file());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    // That nothing is wrong must not come from nothing having been read.
    assert!(page.rules.len() >= 51 && page.guards.len() > 60, "{} rules, {}", page.rules.len(), page.guards.len());
    let cited: BTreeSet<RuleName> = sources
        .iter()
        .filter(|(file, _)| file.ends_with(".rs"))
        .flat_map(|(_, text)| text.lines().flat_map(|line| cited_rules(citing_part("rs", line))))
        .collect();
    assert!(cited.len() > 25, "only {cited:?} were found in the sources");
}

const MADE_UP_PAGE: &str = "\
## A. Reads

### A1. The first
**Guards**
- tests `there_is_one`, `there_is_none`
- planted bug `planted`
- planted bug `not-planted`

### A2. The second
**Guards**
- not built yet: `there_is_none_either` is no name here

### A3. The third

### A3. The third again
**Guards**
- charm `against-evil`
";

/// A check that cannot fail checks nothing: each fault of a made-up page and source is found, and nothing else.
#[test]
fn each_fault_of_a_made_up_page_is_found() {
    let files = [
        ("src/base/planted.rs", "const NAMES: &[&str] = &[\"planted\"];"),
        (
            "src/a.rs",
            "//! Rules A1 to A4, and (B1): see OTHER.md and docs/ordering.md.\nlet A9 = 1; // A2\n#[test]\n\
             #[ignore]\nfn there_is_one() {}\nfn there_is_none() {}",
        ),
        ("tests/b.py", "# rule E13 is broken\n# on paper of size A5"),
    ];
    let files: Vec<_> = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
    let mut found = faults(&Page::parse(MADE_UP_PAGE), &files, |document| document == "docs/ordering.md");
    found.sort();
    let mut expected = [
        "rule A3 does not say what guards it",
        "not the title of a new rule: ### A3. The third again",
        "no kind of guard, or no name: charm `against-evil`",
        "src/a.rs:1 cites rule A4, which is not in docs/ordering.md",
        "src/a.rs:1 cites rule B1, which is not in docs/ordering.md",
        "src/a.rs:1 cites OTHER.md, which is not in the repository",
        "tests/b.py:1 cites rule E13, which is not in docs/ordering.md",
        "docs/ordering.md names the guard Test `there_is_none`, which is not in the sources",
        "docs/ordering.md names the guard PlantedBug `not-planted`, which is not in the sources",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// The words around a citation are written in many ways; hexadecimal numbers and names in code are no citations.
#[test]
fn citations_are_read_in_every_way_in_which_they_are_written() {
    let cited = |line: &str| cited_rules(citing_part("rs", line)).join(" ");
    assert_eq!(cited("/// Rules C3, C4 and C5: the scan"), "C3 C4 C5");
    assert_eq!(cited("//! Rules: B1 (lookups), B2 (nothing)"), "B1 B2");
    assert_eq!(cited("    /// turn (A2). A12, not all"), "A2 A12");
    assert_eq!(cited("/// C1: r1 to r5 are acknowledged"), "C1");
    assert_eq!(cited("/// rules B9 to B13"), "B9 B10 B11 B12 B13");
    assert_eq!(cited("let a: B1 = C2; // 0xC3, U+D8, A123, F1, E0, Erule"), "");
}
