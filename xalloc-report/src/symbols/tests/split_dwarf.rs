//! Programs built with `-gsplit-dwarf`.

use super::kit::{Lab, assert_inner_is_inlined, has_tool, range_of};
use crate::symbols::{Detail, Missing};

/// Compiles and links apart, which leaves `work.dwo` in the directory.
fn build_split(lab: &Lab, flags: &str) {
    lab.write("work.c", super::kit::WORK_C);
    lab.run(&format!("cc {flags} -O2 -gsplit-dwarf -c work.c"));
    lab.run("cc -o app work.o");
    assert!(lab.path("work.dwo").exists());
}

#[test]
fn a_dwo_file_is_found_where_the_compiler_left_it_or_beside_the_binary() {
    for flags in ["-gdwarf-4", "-gdwarf-5"] {
        let lab = Lab::new();
        build_split(&lab, flags);
        let app = lab.path("app");
        assert_inner_is_inlined(&lab.resolve(&app, range_of(&app, "outer")));

        for file in ["app", "work.dwo"] {
            let bytes = std::fs::read(lab.path(file)).unwrap();
            std::fs::remove_file(lab.path(file)).unwrap();
            lab.write(&format!("moved/{file}"), bytes);
        }
        let moved = lab.path("moved/app");
        assert_inner_is_inlined(&lab.resolve(&moved, range_of(&moved, "outer")));
    }
}

#[test]
fn a_package_beside_the_binary_replaces_the_dwo_files() {
    for (tool, flags) in [("dwp", "-gdwarf-4"), ("llvm-dwp", "-gdwarf-4"), ("llvm-dwp", "-gdwarf-5")] {
        if !has_tool(tool) {
            continue;
        }
        let lab = Lab::new();
        build_split(&lab, flags);
        lab.run(&format!("{tool} -e app -o app.dwp"));
        std::fs::remove_file(lab.path("work.dwo")).unwrap();
        let app = lab.path("app");
        assert_inner_is_inlined(&lab.resolve(&app, range_of(&app, "outer")));
    }
}

#[test]
fn without_its_dwo_file_a_function_keeps_its_name_and_line_and_the_file_is_missed() {
    let lab = Lab::new();
    build_split(&lab, "-gdwarf-5");
    std::fs::remove_file(lab.path("work.dwo")).unwrap();
    let app = lab.path("app");
    let (resolved, names) = lab.names(&app, &app, &["hidden"]);
    assert_eq!(names[0].as_deref(), Some("hidden"));
    assert!(resolved.frames[0][0].line.is_some());
    assert_eq!(resolved.detail, Detail::Lines);
    assert!(matches!(&resolved.missing[..], [Missing::NoSplitFile { dwo, .. }] if dwo.ends_with("work.dwo")));
}

#[test]
fn a_dwo_file_of_a_later_build_is_not_used() {
    let lab = Lab::new();
    build_split(&lab, "-gdwarf-5");
    lab.write("work.c", super::kit::WORK_C.replace("inner", "later"));
    lab.run("cc -gdwarf-5 -O2 -gsplit-dwarf -c work.c");
    let app = lab.path("app");
    let resolved = lab.resolve(&app, range_of(&app, "outer"));
    assert!(resolved.frames.iter().flatten().all(|frame| frame.function.as_deref() != Some("later")));
    assert!(matches!(&resolved.missing[..], [Missing::NoSplitFile { .. }]));
}
