//! Debug information in another file than the binary's, and binaries that are not what was recorded.

use std::os::unix::fs::PermissionsExt;

use super::kit::{Lab, assert_inner_is_inlined, build_id, has_tool, range_of};
use crate::symbols::{Detail, Missing, Module, ModuleIndex, Symbolizer, Wanted};

/// Makes `whole` (with everything), `whole.debug` and the stripped `app`.
fn strip_app(lab: &Lab, flags: &str) {
    lab.build_app(flags);
    lab.run("cp app whole");
    lab.run("objcopy --only-keep-debug whole whole.debug");
    lab.run("strip app");
}

#[test]
fn a_debug_link_leads_to_the_file_beside_the_binary_below_it_and_in_the_debug_root() {
    for place in ["whole.debug", ".debug/whole.debug", "debug-root/HERE/whole.debug"] {
        let lab = Lab::new();
        strip_app(&lab, "-g -O2");
        lab.run("objcopy --add-gnu-debuglink=whole.debug app");
        let directory = lab.path("");
        let target = place.replace("HERE", directory.to_str().unwrap().trim_matches('/'));
        let bytes = std::fs::read(lab.path("whole.debug")).unwrap();
        std::fs::remove_file(lab.path("whole.debug")).unwrap();
        lab.write(&target, bytes);
        let resolved = lab.resolve(&lab.path("app"), range_of(&lab.path("whole"), "outer"));
        assert_inner_is_inlined(&resolved);
        assert_eq!(resolved.detail, Detail::Lines, "{place}");
    }
}

#[test]
fn a_debug_file_with_the_right_name_and_other_contents_is_not_used() {
    let lab = Lab::new();
    // Without a build-id only the CRC tells them apart.
    strip_app(&lab, "-g -O2 -Wl,--build-id=none");
    lab.run("objcopy --remove-section=.note.gnu.build-id whole.debug");
    lab.run("objcopy --add-gnu-debuglink=whole.debug app");
    let mut bytes = std::fs::read(lab.path("whole.debug")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    lab.write("whole.debug", bytes);
    let resolved = lab.resolve(&lab.path("app"), range_of(&lab.path("whole"), "outer"));
    assert_eq!(resolved.detail, Detail::Exports);
    let [Missing::Stripped { looked_for, .. }] = &resolved.missing[..] else { panic!("{:?}", resolved.missing) };
    assert!(looked_for.contains(&lab.path("whole.debug")));
}

#[test]
fn the_build_id_directory_supplies_lines_even_when_the_binary_is_gone() {
    let lab = Lab::new();
    strip_app(&lab, "-g -O2");
    let id = build_id(&lab.path("app"));
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let debug = std::fs::read(lab.path("whole.debug")).unwrap();
    std::fs::remove_file(lab.path("whole.debug")).unwrap();
    lab.write(&format!("debug-root/.build-id/{}/{}.debug", &hex[..2], &hex[2..]), debug);
    let outer: Vec<u64> = range_of(&lab.path("whole"), "outer").collect();
    assert_inner_is_inlined(&lab.resolve(&lab.path("app"), outer.clone()));

    let gone = Module { path: lab.path("gone"), build_id: id };
    let resolved = lab.resolve_module(gone, outer);
    assert_inner_is_inlined(&resolved);
    assert_eq!(resolved.missing, [Missing::NoFile { path: lab.path("gone") }]);
}

#[test]
fn a_debug_link_with_a_directory_in_it_is_not_followed() {
    let lab = Lab::new();
    strip_app(&lab, "-g -O2 -Wl,--build-id=none");
    let debug = std::fs::read(lab.path("whole.debug")).unwrap();
    lab.write("below/whole.debug", &debug);
    let mut link = b"below/whole.debug\0\0\0".to_vec();
    link.extend(crc32fast::hash(&debug).to_le_bytes());
    lab.write("link", link);
    lab.run("objcopy --add-section .gnu_debuglink=link app");
    let resolved = lab.resolve(&lab.path("app"), range_of(&lab.path("whole"), "outer"));
    assert_eq!(resolved.detail, Detail::Exports);
}

#[test]
fn a_debug_file_of_another_build_is_not_used_though_its_path_is_right() {
    let lab = Lab::new();
    strip_app(&lab, "-g -O2");
    let outer: Vec<u64> = range_of(&lab.path("whole"), "outer").collect();
    let hex: String = build_id(&lab.path("app")).iter().map(|byte| format!("{byte:02x}")).collect();
    lab.run("cp app recorded");
    strip_app(&lab, "-g -O1");
    let other = std::fs::read(lab.path("whole.debug")).unwrap();
    let path = lab.write(&format!("debug-root/.build-id/{}/{}.debug", &hex[..2], &hex[2..]), other);
    let resolved = lab.resolve(&lab.path("recorded"), outer);
    assert_eq!(resolved.detail, Detail::Exports);
    assert!(matches!(&resolved.missing[..], [Missing::Stripped { looked_for, .. }] if looked_for.contains(&path)));
}

#[test]
fn a_replaced_binary_gives_no_names_and_says_so() {
    let lab = Lab::new();
    let app = lab.build_app("-g -O0");
    let recorded = vec![7; 20];
    let module = Module { path: app.clone(), build_id: recorded.clone() };
    let resolved = lab.resolve_module(module, range_of(&app, "outer").collect());
    assert!(resolved.frames.iter().all(Vec::is_empty));
    assert_eq!(resolved.detail, Detail::Nothing);
    let found = build_id(&app);
    assert_eq!(resolved.missing, [Missing::BuildIdMismatch { path: app, recorded, found }]);
}

#[test]
fn the_vdso_is_the_kernels_and_a_text_file_is_unreadable() {
    let lab = Lab::new();
    let text = lab.write("notes.txt", "no program");
    let vdso = lab.resolve_module(Module { path: "[vdso]".into(), ..Module::default() }, vec![0x700]);
    assert_eq!(vdso.missing, [Missing::Kernel { name: "[vdso]".into() }]);
    let resolved = lab.resolve_module(Module { path: text, ..Module::default() }, vec![0]);
    assert!(matches!(&resolved.missing[..], [Missing::Unreadable { .. }]), "{:?}", resolved.missing);
}

#[test]
fn mini_debug_information_names_local_functions() {
    if !has_tool("xz") {
        return;
    }
    let lab = Lab::new();
    strip_app(&lab, "-O1");
    lab.run("objcopy -S --remove-section=.comment --keep-symbol=hidden --keep-symbol=outer whole mini");
    for check in ["crc32", "crc64", "sha256", "none"] {
        lab.run("cp app withmini");
        lab.run(&format!("xz -k -f -C {check} mini"));
        lab.run("objcopy --add-section .gnu_debugdata=mini.xz withmini");
        let (resolved, names) = lab.names(&lab.path("withmini"), &lab.path("whole"), &["hidden"]);
        assert_eq!(names[0].as_deref(), Some("hidden"), "{check}");
        assert_eq!(resolved.detail, Detail::Functions);
        assert!(matches!(&resolved.missing[..], [Missing::NoLines { .. }]));
    }
}

#[test]
fn a_supplementary_file_made_by_dwz_is_followed_and_missed_when_it_was_replaced() {
    if !has_tool("dwz") {
        return;
    }
    let lab = Lab::new();
    lab.write("work.c", super::kit::WORK_C);
    lab.run("cc -g -O2 -Wl,--build-id -o app work.c");
    lab.run("cc -g -O2 -Wl,--build-id -DOTHER -o other work.c");
    lab.run("dwz -m common.debug -M common.debug app other");
    let outer: Vec<u64> = range_of(&lab.path("app"), "outer").collect();
    let resolved = lab.resolve(&lab.path("app"), outer.clone());
    assert_inner_is_inlined(&resolved);
    assert_eq!(resolved.missing, []);

    // A file of that name with another build-id is as good as none.
    lab.run("cp app common.debug");
    let resolved = lab.resolve(&lab.path("app"), outer);
    assert!(matches!(&resolved.missing[..], [Missing::NoSupplementaryFile { .. }, ..]), "{:?}", resolved.missing);
    let named =
        |frames: &Vec<crate::symbols::Frame>| frames.last().is_some_and(|f| f.function.as_deref() == Some("outer"));
    assert!(resolved.frames.iter().all(named));
}

#[test]
fn the_debuginfod_client_is_asked_for_the_build_id_when_nothing_is_on_disk() {
    let lab = Lab::new();
    strip_app(&lab, "-g -O2");
    lab.run("mv whole.debug cached");
    let script =
        format!("#!/bin/sh\n[ \"$1\" = debuginfo ] && [ ${{#2}} = 40 ] && echo {}\n", lab.path("cached").display());
    let client = lab.write("debuginfod-find", script);
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut places = lab.places();
    places.debuginfod_find = Some(client);
    let app = lab.path("app");
    let module = Module { build_id: build_id(&app), path: app };
    let addresses = range_of(&lab.path("whole"), "outer").collect();
    let symbolizer = Symbolizer::new(vec![module], places);
    assert_inner_is_inlined(&symbolizer.resolve(&[Wanted { module: ModuleIndex(0), addresses }])[0]);
}
