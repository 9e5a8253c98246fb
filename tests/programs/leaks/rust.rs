//! How Rust holds memory, and loses it without an unsafe line. Arguments and truth as in `twins.h`.
//!
//!   case           keep         lose         what is special
//!   leaked_box     reachable    definite     Box::leak, kept in a static; lost: the reference dropped
//!   forgotten      reachable    definite     a Vec; lost: mem::forget
//!   boxed_trait    reachable    definite     a Box of a trait object
//!   arc            reachable    definite     an Arc
//!   arc_raw        reachable    definite     Arc::into_raw, which points behind the counters
//!   rc_cycle       reachable    cycle+indirect     two Rc that hold each other
//!   weak           reachable    definite     a Weak, whose value is gone and whose block is not
//!   slice          reachable~possible definite a slice from the middle of a leaked Vec
//!   hash_map       reachable    definite     a HashMap, which points between its entries and its bytes of control
//!   btree_map      reachable    definite     a BTreeMap
//!   linked_list    reachable    definite     a LinkedList
//!   channel        reachable    indirect     a message that nobody has received
//!   future         reachable    definite     a suspended future
//!   thread_local   freed        definite     a thread_local of main's thread, which is dropped at its end
//!   static_string  reachable    definite     a String in a static with a lock
//!   other_thread   reachable    definite     on the stack of a thread that is parked
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, LinkedList};
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::mem::forget;
use std::pin::Pin;
use std::ptr::null_mut;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Waker};

const SIZE: usize = 7777;
type Filling<const OWN: usize> = [u8; OWN];

#[unsafe(no_mangle)]
pub static SLOT: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static TEXT: Mutex<String> = Mutex::new(String::new());

/// Overwrites what the calls before left on the stack.
#[inline(never)]
fn wipe() {
    black_box([0_u8; 32768]);
}

/// Keeps the pointer, or drops it.
#[inline(never)]
fn hold<T: ?Sized>(pointer: *const T, keeps: bool) {
    let pointer = black_box(pointer);
    SLOT.store(if keeps { pointer.cast::<u8>().cast_mut() } else { null_mut() }, Ordering::SeqCst);
}

/// Keeps the value in a block of its own, or forgets it.
#[inline(never)]
fn keep<T: 'static>(value: T, keeps: bool) {
    if keeps { hold(Box::leak(Box::new(value)), true) } else { forget(black_box(value)) }
}

struct Friend {
    other: RefCell<Option<Rc<Friend>>>,
    _filling: Filling<{ SIZE - 32 }>,
}

fn rc_cycle(keeps: bool) {
    let [one, two] = [(); 2].map(|()| Rc::new(Friend { other: RefCell::new(None), _filling: [0; SIZE - 32] }));
    *one.other.borrow_mut() = Some(Rc::clone(&two));
    *two.other.borrow_mut() = Some(Rc::clone(&one));
    keep(one, keeps);
}

fn weak(keeps: bool) {
    let strong = Rc::new([0_u8; SIZE - 16]);
    let weak: Weak<_> = Rc::downgrade(&strong);
    drop(strong);
    keep(weak, keeps);
}

async fn suspended() {
    let held = [1_u8; SIZE - 1];
    let mut is_second = false;
    poll_fn(|_| if std::mem::replace(&mut is_second, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    black_box(&held);
}

fn future(keeps: bool) {
    let mut future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(suspended());
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    keep(future, keeps);
}

fn thread_local(keeps: bool) {
    thread_local!(static HELD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    HELD.with(|held| {
        *held.borrow_mut() = vec![1; SIZE];
        if !keeps {
            forget(held.take());
        }
    });
}

/// Lost in a frame of its own: what is moved out of a variable is still there to see.
#[inline(never)]
fn lose() {
    forget(black_box(vec![1_u8; SIZE]));
}

fn other_thread(keeps: bool) {
    let barrier = Arc::new(Barrier::new(2));
    let its = Arc::clone(&barrier);
    std::thread::spawn(move || {
        let held = if keeps {
            vec![1_u8; SIZE]
        } else {
            lose();
            Vec::new()
        };
        wipe();
        its.wait();
        loop {
            std::thread::park();
            black_box(&held);
        }
    });
    barrier.wait();
}

#[inline(never)]
fn run(case: &str, keeps: bool) {
    match case {
        "leaked_box" => hold(Box::leak(Box::new([0_u8; SIZE])), keeps),
        "forgotten" => keep(vec![1_u8; SIZE], keeps),
        "boxed_trait" => keep::<Box<dyn Any>>(Box::new([1_u8; SIZE]), keeps),
        "arc" => keep(Arc::new([1_u8; SIZE - 16]), keeps),
        "arc_raw" => hold(Arc::into_raw(Arc::new([1_u8; SIZE - 16])), keeps),
        "rc_cycle" => rc_cycle(keeps),
        "weak" => weak(keeps),
        "slice" => hold(&vec![1_u8; SIZE].leak()[4001..], keeps),
        // Four buckets of 1,940 bytes, and a byte of control for each and for a group of 16.
        "hash_map" => keep(HashMap::from([(1_u32, [1_u8; 1936])]), keeps),
        "btree_map" => keep(BTreeMap::from([(1_u16, [1_u8; 704])]), keeps),
        "linked_list" => keep(LinkedList::from([[1_u8; SIZE - 16]]), keeps),
        "channel" => {
            let (sender, receiver) = mpsc::channel();
            sender.send(vec![1_u8; SIZE]).expect("somebody receives");
            keep((sender, receiver), keeps);
        }
        "future" => future(keeps),
        "thread_local" => thread_local(keeps),
        "static_string" => {
            *TEXT.lock().expect("nobody panics") = "x".repeat(SIZE);
            if !keeps {
                forget(std::mem::take(&mut *TEXT.lock().expect("nobody panics")));
            }
        }
        "other_thread" => other_thread(keeps),
        _ => std::process::exit(2),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    run(&arguments[1], arguments[2] == "keep");
    wipe();
}
