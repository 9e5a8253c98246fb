//! Every committed fuzz input, and simple mutations of each, through the functions that the fuzz targets call.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "support/untrusted.rs"]
mod untrusted;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .map(|path| (path.clone(), fs::read(&path).expect("a readable file")))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

/// A generator with a fixed seed: the same mutations in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }
}

fn run(target: &str, mutations: usize, body: fn(&[u8])) {
    let mut dice = Dice(1);
    for (path, input) in corpus(target) {
        println!("{}", path.display());
        body(&input);
        for _ in 0..mutations {
            let mut bytes = input.clone();
            bytes.truncate(dice.below(input.len() + 1));
            for _ in 0..dice.below(4) {
                if !bytes.is_empty() {
                    let at = dice.below(bytes.len());
                    bytes[at] ^= 1 << dice.below(8);
                }
            }
            body(&bytes);
        }
    }
}

#[test]
fn no_bytes_of_a_ring_make_the_recorder_panic() {
    run("wire_record", 2_000, untrusted::wire_record);
}

#[test]
fn no_bytes_of_a_trace_make_the_reader_panic() {
    run("trace", 300, untrusted::trace);
}

#[test]
fn no_bytes_of_a_program_make_the_symboliser_panic() {
    run("symbols", 100, untrusted::symbols);
}
