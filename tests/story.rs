//! The textbook's story of brk and mmap, as glibc tells it: every step of the heap with its exact size.

mod support;

use serde_json::Value;
use support::victims::victim;
use support::{address, number};

const KIB: u64 = 1024;
const PAGE: u64 = 4096;
/// Chunk of the thread's cache, taken before the first block.
const TCACHE: u64 = 0x290;
/// What glibc keeps above the last chunk, when it grows the heap and when it trims it.
const TOP_PAD: u64 = 128 * KIB;

/// The chunk of a request: 8 bytes more, rounded up to 16 (placement of glibc 2.36).
const fn chunk(request: u64) -> u64 {
    (request + 8).next_multiple_of(16)
}

#[test]
fn the_textbook_story_is_told_as_glibc_acts_it() {
    let recording = victim("story.c", &[]).record();
    let events = recording.events("brk,mmap,munmap,trim,split,coalesce,alloc,free");
    let [a, b, c, d] = [30, 40, 200, 100].map(|kib| kib * KIB);

    // The break is raised once for the cache, A and B: what A needs first, and the padding above, hold B too.
    let first = (TCACHE + TOP_PAD + 32).next_multiple_of(PAGE);
    let top = first - TCACHE - chunk(a) - chunk(b);
    let second = (chunk(d) + TOP_PAD + 32 - top).next_multiple_of(PAGE);
    let top = top + second - chunk(d);
    // C does not fit and is large enough for a mapping of its own, with its two words of overhead.
    let mapping = (chunk(c) + 8).next_multiple_of(PAGE);
    // D joins B, which is 140 KiB and their size words, and both join the top.
    let coalesced = chunk(b) + chunk(d) + top;
    let trimmed = (coalesced - 33 - TOP_PAD) / PAGE * PAGE;

    let told: Vec<(String, u64)> =
        events.iter().map(|event| (event["kind"].as_str().unwrap_or("?").to_owned(), number(event, "size"))).collect();
    let expected = [
        ("brk", first),
        ("split", TCACHE),
        ("split", chunk(a)),
        ("alloc", a),
        ("split", chunk(b)),
        ("alloc", b),
        ("mmap", mapping),
        ("alloc", c),
        ("brk", second),
        ("split", chunk(d)),
        ("alloc", d),
        ("free", c),
        ("munmap", mapping),
        ("free", b),
        ("free", d),
        ("coalesce", coalesced),
        ("trim", trimmed),
    ];
    let expected: Vec<(String, u64)> = expected.map(|(kind, size)| (kind.to_owned(), size)).into();
    assert_eq!(told, expected);

    let of = |kind: &str, nth: usize| -> &Value {
        events.iter().filter(|event| event["kind"] == kind).nth(nth).expect("it is there: the list was just compared")
    };
    let block = |nth| address(of("alloc", nth), "addr");
    assert_eq!(block(1), block(0) + chunk(a), "B lies behind A");
    assert_eq!(block(3), block(1) + chunk(b), "D lies behind B");
    assert_eq!(block(2) % PAGE, 16, "C lies at the start of its mapping");
    assert_eq!(address(of("mmap", 0), "addr"), address(of("munmap", 0), "addr"));

    let merge = of("coalesce", 0);
    assert_eq!(address(merge, "addr"), block(1) - 16, "the result begins at B");
    assert_eq!(number(merge, "freed"), chunk(d));
    assert_eq!([&merge["previous"], &merge["top"]], [true, true]);

    let raised = |nth| (address(of("brk", nth), "from"), address(of("brk", nth), "to"));
    assert_eq!(raised(0).1, raised(1).0, "the break grows where it ended");
    assert_eq!([&of("brk", 0)["rule"], &of("brk", 1)["rule"]], ["first", "no-fit"]);
    assert_eq!(address(of("trim", 0), "from"), raised(1).1);
    assert_eq!(address(of("trim", 0), "to"), raised(1).1 - trimmed);
    // A free carries no stack of its own; what it sets off does.
    for event in events.iter().filter(|event| event["kind"] != "free") {
        assert_eq!(event["by"]["function"], "main", "{event}");
    }
}

#[test]
fn the_story_as_people_read_it_names_every_step() {
    let recording = victim("story.c", &[]).record();
    let text = recording.run("events", &["--kind", "brk,mmap,munmap,coalesce,trim"]);
    let text = String::from_utf8(text.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    for word in ["brk", "mmap", "munmap", "coalesce", "trim"] {
        assert!(lines.iter().any(|line| line.contains(word)), "no {word} in:\n{text}");
    }
}
