//! Rust with v0 names: boxes, a growing vector, a generic function, a closure.
//!
//! A vector grows by realloc: each old block goes before the thread allocates anything else, so all are temporary.
//!
//! truth: in truth::boxes: allocations=7 allocated_bytes=700 live_at_exit_bytes=700 live_at_exit_blocks=7
//! truth: in truth::grow: allocations=9 allocated_bytes=8176 reallocations=8 temporary_allocations=9 live_at_exit_bytes=0
//! truth: in truth::make::<u16>: allocations=1 allocated_bytes=64 live_at_exit_bytes=64
//! truth: in truth::make::<u64>: allocations=1 allocated_bytes=256 live_at_exit_bytes=256
//! truth: in truth::closure: allocations=4 allocated_bytes=40 live_at_exit_bytes=40

mod truth {
    use std::hint::black_box;

    #[inline(never)]
    pub fn boxes() {
        for _ in 0..7 {
            std::mem::forget(black_box(Box::new([1_u8; 100])));
        }
    }

    #[inline(never)]
    pub fn grow() {
        let mut numbers = Vec::new();
        for number in 0..1000_u32 {
            numbers.push(black_box(number));
        }
        black_box(&numbers);
    }

    #[inline(never)]
    pub fn make<T: Default + Clone>() {
        std::mem::forget(black_box(vec![T::default(); 32]));
    }

    #[inline(never)]
    pub fn closure() {
        (0..4).for_each(|number: u8| std::mem::forget(black_box(Box::new([number; 10]))));
    }
}

fn main() {
    truth::boxes();
    truth::grow();
    truth::make::<u16>();
    truth::make::<u64>();
    truth::closure();
}
