//! Binaries without DWARF.

use object::{Object, ObjectSection};

use super::kit::Lab;
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
        assert!(names.contains(&"malloc@plt") && names.contains(&"free@plt"), "{flags}: {names:?}");
    }
}
