//! Talks to its recording by `xalloc_core::client`, of which this is the very file. The truth is in `tests/client.rs`.

#[path = "../../xalloc-core/src/client.rs"]
mod client;

use std::hint::black_box;

#[inline(never)]
fn lose(bytes: usize) {
    black_box(Vec::<u8>::with_capacity(bytes).leak());
}

fn wipe() {
    black_box([0_u8; 16384]);
}

#[inline(never)]
fn run() -> [bool; 2] {
    client::marker("begin");
    let before = client::check_leaks();
    {
        let _pause = client::Pause::new();
        lose(7777);
    }
    let ignored: &'static mut [u8] = black_box(vec![0; 3333].leak());
    client::ignore(&raw const *ignored);
    let pool: &'static mut [usize] = black_box(vec![0; 100].leak());
    pool[3] = black_box(Vec::<u8>::with_capacity(2222).leak().as_ptr() as usize);
    client::register_root(pool.as_ptr().cast(), 64);
    client::unregister_root(pool.as_ptr().cast(), 65);
    lose(6666);
    client::marker("end");
    wipe();
    [before, client::check_leaks()]
}

fn main() {
    let [before, after] = run();
    wipe();
    println!("{before} {after}");
}
