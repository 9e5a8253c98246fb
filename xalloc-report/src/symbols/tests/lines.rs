//! DWARF in the binary itself.

use super::kit::{Lab, assert_inner_is_inlined, has_tool, range_of};
use crate::symbols::{Detail, ModuleIndex, Symbolizer, Wanted};

#[test]
fn a_program_built_with_debug_information_names_functions_files_and_lines() {
    let lab = Lab::new();
    let app = lab.build_app("-g -O0");
    let resolved = lab.resolve(&app, [range_of(&app, "hidden").start, range_of(&app, "outer").start]);
    assert_eq!((resolved.detail, &resolved.missing[..]), (Detail::Lines, &[][..]));
    let [hidden] = &resolved.frames[0][..] else { panic!("{resolved:?}") };
    assert_eq!((hidden.function.as_deref(), hidden.line, hidden.inlined), (Some("hidden"), Some(5), false));
    assert_eq!(hidden.file.as_deref(), lab.path("work.c").to_str());
    assert_eq!(resolved.frames[1][0].line, Some(8));
}

#[test]
fn an_inlined_function_and_its_caller_are_two_frames() {
    for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
        let lab = Lab::new();
        let app = lab.build_app(&format!("{dwarf} -O2"));
        assert_inner_is_inlined(&lab.resolve(&app, range_of(&app, "outer")));
    }
}

#[test]
fn compressed_debug_sections_are_read_like_plain_ones() {
    let lab = Lab::new();
    let app = lab.build_app("-g -O2");
    for kind in ["zlib", "zlib-gnu", "zstd"] {
        lab.run("cp app packed");
        let compress = format!("--compress-debug-sections={kind}");
        let done = std::process::Command::new("objcopy").arg(compress).arg(lab.path("packed")).status();
        if !done.is_ok_and(|status| status.success()) {
            println!("skipped: objcopy cannot compress with {kind}");
            continue;
        }
        assert_inner_is_inlined(&lab.resolve(&lab.path("packed"), range_of(&app, "outer")));
    }
}

#[test]
fn a_cpp_template_has_its_arguments_and_an_inlined_method_its_class() {
    let lab = Lab::new();
    lab.write(
        "t.cc",
        "namespace shop { template <class T, int N> struct Box { T items[N];
         __attribute__((noinline)) T sum() const { T s{}; for (T i : items) s += i; return s; } }; }
         int main(int argc, char **) { shop::Box<int, 7> box{}; box.items[0] = argc; return box.sum(); }",
    );
    lab.run("c++ -g -O1 -o t t.cc");
    let app = lab.path("t");
    let raw = "_ZNK4shop3BoxIiLi7EE3sumEv";
    let (resolved, names) = lab.names(&app, &app, &[raw]);
    assert_eq!(names[0].as_deref(), Some("shop::Box<int, 7>::sum() const"));
    assert_eq!(resolved.frames[0][0].raw_name.as_deref(), Some(raw));
    assert_eq!(resolved.frames[0][0].line, Some(2));
}

#[test]
fn rust_names_of_both_schemes_come_without_a_hash() {
    if !has_tool("rustc") {
        return;
    }
    for scheme in ["v0", "legacy"] {
        let lab = Lab::new();
        lab.write(
            "prog.rs",
            "mod shop { #[inline(never)] pub fn price<T: std::fmt::Display>(t: T) -> usize { t.to_string().len() } }
             fn main() { std::process::exit(shop::price(7u32) as i32) }",
        );
        // Legacy is the stable default, where asking for it by name needs a nightly compiler.
        let flag = if scheme == "v0" { "-C symbol-mangling-version=v0" } else { "" };
        lab.run(&format!("rustc --edition 2021 -g -C opt-level=1 {flag} prog.rs"));
        let app = lab.path("prog");
        let raw = symbol_with(&app, "price");
        let (resolved, names) = lab.names(&app, &app, &[&raw]);
        let name = names[0].as_deref().unwrap();
        assert!(name == "prog::shop::price::<u32>" || name == "prog::shop::price", "{scheme}: {name}");
        assert!(resolved.frames[0].iter().any(|frame| frame.file.as_ref().is_some_and(|f| f.ends_with("prog.rs"))));
    }
}

#[test]
fn a_rust_function_with_line_tables_only_is_named_with_its_path() {
    if !has_tool("rustc") {
        return;
    }
    for scheme in ["", "-C symbol-mangling-version=v0"] {
        let lab = Lab::new();
        lab.write(
            "prog.rs",
            "mod shop { #[inline(never)] pub fn price<T: Into<u64>>(t: T) -> u64 { std::hint::black_box(t.into()) } }
             fn main() { std::process::exit(shop::price(7u32) as i32) }",
        );
        lab.run(&format!("rustc --edition 2021 -C debuginfo=line-tables-only -C opt-level=1 {scheme} prog.rs"));
        let app = lab.path("prog");
        let raw = symbol_with(&app, "price");
        let (_, names) = lab.names(&app, &app, &[&raw]);
        assert!(names[0].as_ref().is_some_and(|name| name.starts_with("prog::shop::price")), "{names:?}");
    }
}

fn symbol_with(path: &std::path::Path, part: &str) -> String {
    use object::{Object, ObjectSymbol};
    let bytes = std::fs::read(path).unwrap();
    let elf = object::read::elf::ElfFile64::<object::Endianness>::parse(&bytes[..]).unwrap();
    elf.symbols().filter_map(|symbol| symbol.name().ok()).find(|name| name.contains(part)).unwrap().to_owned()
}

#[test]
fn questions_are_answered_in_their_order_with_repetitions_and_over_many_modules() {
    let lab = Lab::new();
    let app = lab.build_app("-g -O0");
    let (hidden, main) = (range_of(&app, "hidden").start, range_of(&app, "main").start);
    let module = |_| crate::symbols::Module { path: app.clone(), ..Default::default() };
    let symbolizer = Symbolizer::new((0..9).map(module).collect(), lab.places());
    let ask = |number, addresses| Wanted { module: ModuleIndex(number), addresses };
    let wanted = [ask(8, vec![main, hidden, main]), ask(99, vec![main]), ask(0, vec![hidden, 0]), ask(8, vec![])];
    let answers = symbolizer.resolve(&wanted);
    let names = |number: usize| -> Vec<_> {
        let first = |frames: &Vec<crate::symbols::Frame>| frames.first().and_then(|frame| frame.function.clone());
        answers[number].frames.iter().map(first).map(Option::unwrap_or_default).collect()
    };
    assert_eq!(names(0), ["main", "hidden", "main"]);
    assert_eq!((names(1), answers[1].detail), (vec![String::new()], Detail::Nothing));
    assert_eq!(names(2), ["hidden", ""]);
    assert!(names(3).is_empty());
}
