//! The layer rule of ARCHITECTURE.md: a room imports only from rooms below it.
//!
//! Reads the sources. A room is a module directly below a crate's root; an import is any path that begins with `crate::`
//! or climbs to the root by `super::`, wherever it stands but in a comment. Test modules keep to the rule as well.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms of one height.
enum Layer {
    /// None of them knows another.
    Apart(&'static [&'static str]),
    /// They are parts of one thing and may know each other.
    Together(&'static [&'static str]),
}
use Layer::{Apart, Together};

/// From the bottom to the top.
const CORE: &[Layer] = &[
    Apart(&["primitive", "units", "fnv", "sampling"]),
    Apart(&["wire"]),
    Apart(&["sys"]),
    Apart(&["ring", "intern", "reach"]),
    Apart(&["session"]),
    Apart(&["heap"]),
    Apart(&["global", "client"]),
];

/// What a thread of the program goes through in a hook is one thing: its state, the guard over it, the segment it
/// writes to, the life of the process.
const PRELOAD: &[Layer] = &[
    Apart(&["arch", "text"]),
    Apart(&["host"]),
    Apart(&["config"]),
    Apart(&["modules"]),
    Apart(&["capture"]),
    Together(&["segment", "stacks", "thread", "guard", "backend", "lifecycle", "process", "scan", "sampled"]),
    Apart(&["hooks", "exec"]),
    Apart(&["exports"]),
    Apart(&["rt"]),
];

const REPORT: &[Layer] = &[
    Apart(&["os"]),
    Apart(&["trace"]),
    Apart(&["symbols"]),
    Apart(&["record", "model"]),
    Apart(&["simulate"]),
    Apart(&["analysis"]),
    Apart(&["check"]),
    Apart(&["render"]),
    Apart(&["cli"]),
];

fn source_folder(package: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("src")
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// A source file of a crate.
struct Source {
    path: PathBuf,
    /// Modules from the crate's root to the file's own; empty for lib.rs and main.rs.
    modules: Vec<String>,
    text: String,
}

fn sources(package: &str) -> Vec<Source> {
    let folder = source_folder(package);
    let mut paths = Vec::new();
    rust_files(&folder, &mut paths);
    assert!(!paths.is_empty(), "{} holds no sources", folder.display());
    paths
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&folder).expect("a path below the folder").with_extension("");
            let mut modules: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            modules.retain(|module| !matches!(module.as_str(), "lib" | "main" | "mod"));
            let text = fs::read_to_string(&path).expect("a readable source");
            let code = |line: &&str| !line.trim_start().starts_with("//");
            Source { path, modules, text: text.lines().filter(code).collect::<Vec<_>>().join("\n") }
        })
        .collect()
}

/// The names that follow `prefix` in a text: one, or the first of each path of a group in braces.
fn names_after(text: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        if text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(first_names(group)),
            None => names.extend(first_name(rest)),
        }
    }
    names
}

fn first_name(path: &str) -> Option<String> {
    let name: String = path.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// First names of the paths of a group whose opening brace is behind us.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut begins, mut names) = (0, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if depth == 0 && begins && !c.is_whitespace() => {
                names.extend(first_name(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

fn imports(source: &Source, rooms: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut names = names_after(&source.text, "crate::");
    // From a file, or from a test module in it, so many steps lead up to the root.
    for steps in [source.modules.len(), source.modules.len() + 1] {
        if steps > 0 {
            names.extend(names_after(&source.text, &"super::".repeat(steps)));
        }
    }
    names.retain(|name| rooms.contains(name.as_str()));
    names
}

fn rooms(layers: &[Layer]) -> BTreeSet<&'static str> {
    layers
        .iter()
        .flat_map(|layer| match layer {
            Apart(rooms) | Together(rooms) => rooms.iter().copied(),
        })
        .collect()
}

fn height(layers: &[Layer], room: &str) -> Option<usize> {
    layers.iter().position(|layer| match layer {
        Apart(rooms) | Together(rooms) => rooms.contains(&room),
    })
}

/// Whether a file in the room `from` may import the room `to`.
fn may_import(layers: &[Layer], from: &str, to: &str) -> bool {
    match (height(layers, from), height(layers, to)) {
        (Some(above), Some(below)) if above == below => from == to || matches!(layers[above], Together(_)),
        (Some(above), Some(below)) => above > below,
        (None, _) | (_, None) => false,
    }
}

fn keeps_to(package: &str, layers: &[Layer]) {
    let known = rooms(layers);
    let mut faults = Vec::new();
    let mut seen = 0;
    for source in sources(package) {
        let Some(room) = source.modules.first() else { continue };
        if height(layers, room).is_none() {
            faults.push(format!("{}: the room `{room}` has no layer", source.path.display()));
            continue;
        }
        for import in imports(&source, &known) {
            seen += 1;
            if !may_import(layers, room, &import) {
                faults.push(format!("{}: `{room}` imports `{import}`", source.path.display()));
            }
        }
    }
    assert!(seen > 20, "{package}: the rule was tried on {seen} imports only");
    assert!(faults.is_empty(), "{package} breaks its layers:\n{}", faults.join("\n"));
    println!("{package}: {seen} imports between rooms");
}

#[test]
fn the_cores_rooms_import_downward_only() {
    keeps_to("xalloc-core", CORE);
}

#[test]
fn the_preloads_rooms_import_downward_only() {
    keeps_to("xalloc-preload", PRELOAD);
}

#[test]
fn the_reports_rooms_import_downward_only() {
    keeps_to("xalloc-report", REPORT);
}

#[test]
fn the_wire_format_knows_nothing_but_units() {
    let known = rooms(CORE);
    for source in sources("xalloc-core").iter().filter(|source| source.modules.first().is_some_and(|m| m == "wire")) {
        let foreign: Vec<String> = imports(source, &known).into_iter().filter(|name| name != "wire").collect();
        assert!(foreign.iter().all(|name| name == "units"), "{}: {foreign:?}", source.path.display());
    }
}

#[test]
fn crates_import_downward_only() {
    for (package, forbidden) in [
        ("xalloc-core", &["xalloc_preload", "xalloc_report"][..]),
        ("xalloc-preload", &["xalloc_report"]),
        ("xalloc-report", &["xalloc_preload"]),
    ] {
        for source in sources(package) {
            for name in forbidden {
                let import = format!("{name}::");
                assert!(!source.text.contains(&import), "{} imports {name}", source.path.display());
            }
        }
    }
}

#[test]
fn the_preload_library_is_built_without_the_simulator() {
    // Features are unified over what is built together: asked for alone, as the report's build script builds it.
    let features = |package: &str| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal,features",
            "--prefix",
            "none",
            "--package",
            package,
        ]);
        let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).contains("xalloc-core feature \"simulator\"")
    };
    assert_eq!((features("xalloc-report"), features("xalloc-preload")), (true, false));
}

#[test]
fn in_the_report_only_the_room_os_is_unsafe() {
    for source in sources("xalloc-report") {
        let allows = source.text.contains("allow(unsafe_code");
        let in_os = source.modules.first().is_some_and(|room| room == "os");
        assert!(!allows || in_os, "{} allows unsafe code", source.path.display());
    }
}

#[test]
fn an_upward_import_is_found_in_each_of_its_forms() {
    let found = |modules: &[&str], text: &str| {
        let modules = modules.iter().map(|&module| module.to_owned()).collect();
        let source = Source { path: PathBuf::new(), modules, text: text.to_owned() };
        let mut found = imports(&source, &rooms(REPORT)).into_iter();
        (found.next(), found.next())
    };
    let cli = (Some("cli".to_owned()), None);
    assert_eq!(found(&["model"], "use crate::cli::Options;"), cli);
    assert_eq!(found(&["model"], "fn f() -> crate::cli::Options"), cli);
    assert_eq!(found(&["model"], "use crate::{error, cli::{self, os}};"), cli);
    assert_eq!(found(&["model", "live"], "use super::super::cli;"), cli);
    assert_eq!(found(&["model"], "use my_crate::cli::Options;"), (None, None));
    assert!(!may_import(REPORT, "model", "cli") && !may_import(REPORT, "render", "export"));
    assert!(may_import(REPORT, "cli", "os") && may_import(PRELOAD, "thread", "guard"));
}
