//! Binaries without DWARF.

use object::{Object, ObjectSection, ObjectSymbol};

use super::kit::{Lab, range_of};
use crate::symbols::{Detail, Frame, Missing};

#[test]
fn a_symbol_table_names_all_functions_and_no_lines() {
    let lab = Lab::new();
    let app = lab.build_app("-O1");
    let (resolved, names) = lab.names(&app, &app, &["hidden", "outer"]);
    assert_eq!(names, [Some("hidden".to_owned()), Some("outer".to_owned())]);
    assert_eq!(resolved.frames[0], [Frame { function: Some("hidden".to_owned()), ..Frame::default() }]);
    assert_eq!(resolved.detail, Detail::Functions);
    assert!(matches!(&resolved.missing[..], [Missing::NoLines { .. }]));
}

#[test]
fn a_stripped_library_names_what_it_exports() {
    let lab = Lab::new();
    lab.write("work.c", super::kit::WORK_C);
    lab.run("cc -O1 -shared -fPIC -Wl,--build-id -o whole work.c");
    lab.run("cp whole libwork.so");
    lab.run("strip libwork.so");
    let (resolved, names) = lab.names(&lab.path("libwork.so"), &lab.path("whole"), &["outer", "hidden"]);
    assert_eq!(names, [Some("outer".to_owned()), None]);
    assert_eq!(resolved.detail, Detail::Exports);
    let [reason @ Missing::Stripped { looked_for, .. }] = &resolved.missing[..] else { panic!("{resolved:?}") };
    assert_eq!(looked_for.len(), 1);
    assert!(reason.to_string().contains("build it with -g"), "{reason}");
}

#[test]
fn a_stub_of_the_linkage_table_is_named_after_the_function_it_leads_to() {
    for flags in ["-O1 -Wl,-z,lazy", "-O1 -Wl,-z,now", "-O1 -fcf-protection=full -Wl,-z,ibtplt"] {
        let lab = Lab::new();
        let app = lab.build_app(flags);
        let bytes = std::fs::read(&app).unwrap();
        let elf = object::read::elf::ElfFile64::<object::Endianness>::parse(&bytes[..]).unwrap();
        let stubs = [".plt", ".plt.sec", ".plt.got"].iter().filter_map(|name| elf.section_by_name(name));
        let addresses: Vec<u64> =
            stubs.flat_map(|section| section.address()..section.address() + section.size()).collect();
        let resolved = lab.resolve(&app, addresses);
        let names: Vec<_> = resolved.frames.iter().flatten().filter_map(|frame| frame.function.as_deref()).collect();
        if let Some(section) = elf.section_by_name(".plt.got") {
            let stubs = lab.resolve(&app, section.address()..section.address() + section.size());
            let is_stub = |frames: &Vec<Frame>| frames[0].function.as_ref().is_some_and(|name| name.ends_with("@plt"));
            assert!(stubs.frames.iter().all(is_stub), "{flags}: {stubs:?}");
        }
        assert!(names.contains(&"malloc@plt") && names.contains(&"free@plt"), "{flags}: {names:?}");
    }
}

#[test]
fn a_call_names_the_operator_that_the_source_names_through_stubs_and_slots() {
    let lab = Lab::new();
    lab.write("array.cc", "char *array(unsigned long n) { return new char[n] + 1; }\nint main() { array(1); }\n");
    for flags in ["-O1", "-O1 -g", "-O1 -fno-plt", "-O1 -fcf-protection=full -Wl,-z,ibtplt", "-O1 -s"] {
        lab.run(&format!("c++ {flags} -Wl,--build-id,--export-dynamic -o app array.cc"));
        let app = lab.path("app");
        let bytes = std::fs::read(&app).unwrap();
        let elf = object::read::elf::ElfFile64::<object::Endianness>::parse(&bytes[..]).unwrap();
        let array = elf.dynamic_symbols().find(|symbol| symbol.name() == Ok("_Z5arraym")).unwrap();
        let resolved = lab.resolve(&app, array.address()..array.address() + array.size());
        let callees: Vec<_> = resolved.callees.iter().flatten().collect();
        assert_eq!(callees, ["_Znam"], "{flags}");
    }
}

#[test]
fn labels_without_a_size_reach_to_the_next_one_and_the_better_alias_is_kept() {
    let lab = Lab::new();
    lab.write(
        "labels.s",
        ".globl first, __first, second
         __first: first: .zero 8
         second: .zero 8
         .data
         .globl not_code
         not_code: .zero 8
",
    );
    lab.run("cc -shared -nostdlib -o labels labels.s");
    let library = lab.path("labels");
    let (first, data) = (range_of(&library, "first").start, range_of(&library, "not_code").start);
    let resolved = lab.resolve(&library, [first, first + 7, first + 8, first + 15, first + 16, data]);
    let names: Vec<_> = resolved.frames.iter().map(|frames| frames.first()?.function.as_deref()).collect();
    assert_eq!(names, [Some("first"), Some("first"), Some("second"), Some("second"), None, None]);
}
