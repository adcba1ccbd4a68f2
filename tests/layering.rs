//! The arrows between modules, as ARCHITECTURE.md draws them, checked by reading `use crate::…` paths.
//!
//! Story: boundaries that nobody checks leak. A pure core that reads a clock once cannot be simulated any more, and a broker
//! that reaches into the coordination service cannot run against another ensemble. This is a reminder for the reader, and cheap.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules that decide: no IO, no clock, no randomness of their own.
const PURE: &[&str] = &[
    "base",
    "protocol",
    "log/format.rs",
    "log/block.rs",
    "log/position.rs",
    "log/writer",
    "log/window.rs",
    "log/stream.rs",
    "log/range.rs",
    "log/holds.rs",
    "log/queue.rs",
    "log/recovery.rs",
    "log/chain.rs",
    "log/damage.rs",
    "log/inspect.rs",
    "coordination/tree",
    "coordination/watch",
    "coordination/session",
    "coordination/auth",
    "coordination/processor",
    "coordination/persistence/snapshot_format.rs",
    "coordination/persistence/snapshot_part.rs",
    "coordination/persistence/snapshot_policy.rs",
    "coordination/persistence/snapshot_scan.rs",
    "coordination/persistence/snapshot_loader.rs",
    "coordination/persistence/position.rs",
    "coordination/admin",
    "metrics",
];

/// What a pure module must not name.
const IMPURE: &[&str] = &["glommio", "std::time", "std::net", "std::fs", "rand::", "crate::runtime", "crate::storage"];

/// (module, what it may use of ours besides itself).
const ARROWS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("protocol", &["base"]),
    ("metrics", &["base"]),
    ("config", &["base"]),
    ("storage", &["base", "runtime"]),
    ("runtime", &["base"]),
    ("log", &["base", "metrics", "runtime", "storage"]),
    ("client", &["base", "protocol", "runtime"]),
    ("coordination/tree", &["base", "protocol"]),
    ("coordination/watch", &["base", "protocol"]),
    ("coordination/session", &["base", "protocol"]),
    ("coordination/auth", &["base", "protocol", "coordination"]),
    ("coordination/processor", &["base", "protocol", "metrics", "coordination"]),
    ("coordination/admin", &["base", "metrics"]),
    ("coordination/persistence", &["base", "protocol", "runtime", "storage", "log", "coordination"]),
    (
        "coordination/server",
        &["base", "protocol", "runtime", "storage", "metrics", "config", "log", "process", "coordination"],
    ),
    ("process", &["base", "runtime"]),
    ("simulator", &["base", "protocol", "config", "runtime", "storage", "coordination"]),
    ("loadgen", &["base", "protocol", "runtime", "client"]),
    (
        "cli",
        &[
            "base",
            "protocol",
            "config",
            "runtime",
            "storage",
            "log",
            "process",
            "coordination",
            "client",
            "simulator",
            "loadgen",
        ],
    ),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a source directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file, as (path below src, its lines without comments).
fn files() -> Vec<(String, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file");
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect();
            let name = path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
            (name, lines)
        })
        .collect()
}

fn is_in(file: &str, module: &str) -> bool {
    file == module || file.starts_with(&format!("{module}/"))
}

fn is_test(file: &str) -> bool {
    file.contains("test")
}

/// glommio and unsafe code stay behind `runtime` and `storage`.
#[test]
fn only_the_seam_names_glommio_and_unsafe() {
    for (file, lines) in files() {
        if is_in(&file, "runtime") || is_in(&file, "storage") {
            continue;
        }
        for line in lines {
            assert!(!line.contains("glommio::"), "{file}: {line}");
            assert!(!line.contains("unsafe ") || line.contains("unsafe_code"), "{file}: {line}");
        }
    }
}

/// A core that decides takes time and randomness as arguments.
#[test]
fn pure_modules_name_no_io_and_no_clock() {
    let mut seen = 0;
    for (file, lines) in files() {
        if !PURE.iter().any(|module| is_in(&file, module)) || is_test(&file) {
            continue;
        }
        seen += 1;
        // Reports carry addresses as values, which is not IO.
        let addresses_are_values = is_in(&file, "coordination/admin");
        for line in lines.iter().take_while(|line| !line.starts_with("#[cfg(test)]")) {
            for forbidden in IMPURE {
                // A stream over a seed is no randomness of its own.
                let stream_over_a_seed = file == "base/prng.rs" && *forbidden == "rand::";
                if stream_over_a_seed || *forbidden == "std::net" && addresses_are_values {
                    continue;
                }
                assert!(!line.contains(forbidden), "{file} is pure and names {forbidden}: {line}");
            }
        }
    }
    assert!(seen > 30, "the list of pure modules has gone stale: {seen} files");
}

/// The names of the public fields of the first struct called `name` in a file.
fn fields_of(file: &str, name: &str) -> Vec<String> {
    let (_, lines) = files().into_iter().find(|(path, _)| path == file).expect("the file is there");
    let start = lines.iter().position(|line| *line == format!("pub struct {name} {{")).expect("the struct is there");
    let fields = lines[start + 1..].iter().take_while(|line| *line != "}");
    let field = |line: &String| Some(line.trim().strip_prefix("pub ")?.split_once(':')?.0.to_owned());
    fields.filter_map(field).collect()
}

/// True when a source file that `chosen` takes holds one of `texts`, outside tests, before something that ends a name.
fn holds(chosen: impl Fn(&str) -> bool, texts: &[String]) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    files().iter().filter(|(file, _)| chosen(file) && !is_test(file)).any(|(_, lines)| {
        let code = lines.iter().take_while(|line| !line.trim_start().starts_with("#[cfg(test)]"));
        code.flat_map(|line| texts.iter().map(move |text| (line, text)))
            .any(|(line, text)| line.match_indices(text.as_str()).any(|(at, _)| ends(&line[at + text.len()..])))
    })
}

/// `globalOutstandingLimit`, `fsync.warningthresholdms` and `clientPortListenBacklog` were called honoured, parsed with care, and
/// then read by nobody: the operator's setting did nothing, in silence.
#[test]
fn configuration_is_parsed_and_read_by_nobody() {
    let fields = fields_of("config/mod.rs", "ServerConfig");
    assert!(fields.len() > 25, "{fields:?}");
    for field in fields {
        // `data_log_dir` is read as one of `data_dirs`, too; each field has a reader of its own all the same.
        assert!(holds(|file| !is_in(file, "config"), &[format!(".{field}")]), "nothing outside config reads {field}");
    }
    let (_, table) = files().into_iter().find(|(file, _)| file == "config/known_keys.rs").expect("the list of keys");
    let keys: Vec<String> = table
        .iter()
        .filter_map(|line| line.trim().strip_prefix("honoured(")?.split('"').nth(1).map(str::to_owned))
        .collect();
    assert!(keys.len() > 25, "{keys:?}");
    for key in keys {
        let own = key.strip_prefix("ringkeeper.").unwrap_or(&key);
        let named = [format!("\"{key}\""), format!("{{OWN_PREFIX}}{own}\"")];
        let typing = |file: &str| file == "config/reader.rs" || file == "config/validate.rs";
        assert!(holds(typing, &named), "{key} is called honoured, and the typing pass does not ask for it");
    }
}

/// Four rows of `mntr` never moved: there was a counter for each, and a row, and nothing that counted.
#[test]
fn counter_that_nothing_raises() {
    let fields = fields_of("metrics/counters.rs", "Counters");
    assert!(fields.len() > 12, "{fields:?}");
    for field in fields {
        let raised = [" +=", " =", ".record_us(", ".merge("].map(|raise| format!(".{field}{raise}"));
        // What is in `metrics` only adds counters up, except where something is timed.
        let counts = |file: &str| !is_in(file, "metrics") || file == "metrics/flush_times.rs";
        let raises = files().iter().filter(|(file, _)| counts(file) && !is_test(file)).any(|(_, lines)| {
            let code = lines.iter().take_while(|line| !line.trim_start().starts_with("#[cfg(test)]"));
            code.into_iter().any(|line| raised.iter().any(|text| line.contains(text) && !line.contains("==")))
        });
        assert!(raises, "nothing raises {field}");
    }
}

/// Nothing points back: each module uses only what stands left of it in the map.
#[test]
fn arrows_point_one_way() {
    for (file, lines) in files() {
        let Some((module, allowed)) = ARROWS.iter().find(|(module, _)| is_in(&file, module)) else { continue };
        let own = module.split('/').next().unwrap_or(module);
        for line in lines.iter().take_while(|line| !line.starts_with("#[cfg(test)]")) {
            for (place, _) in line.match_indices("crate::") {
                let rest = &line[place + "crate::".len()..];
                let target: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let fine =
                    target == own && !module.contains('/') || allowed.contains(&target.as_str()) || target.is_empty();
                let within = module.contains('/') && rest.starts_with(&module.replace('/', "::"));
                let sibling = module.contains('/') && rest.starts_with("coordination::");
                assert!(fine || within || sibling, "{file} must not use crate::{target}: {line}");
            }
        }
    }
}

/// The service must stay usable by a broker that sees it over TCP only.
#[test]
fn client_and_coordination_do_not_know_each_other() {
    for (file, lines) in files() {
        for line in lines {
            if is_in(&file, "coordination") {
                assert!(!line.contains("crate::client"), "{file}: {line}");
            }
            if is_in(&file, "client") {
                assert!(!line.contains("crate::coordination"), "{file}: {line}");
            }
        }
    }
}
