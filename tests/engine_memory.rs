//! What a run of the engine takes from the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shipwatch::engine::arithmetic::{Range, Scheme};
use shipwatch::engine::{Filters, Graph, Op, Scratch, Segment, Window, kernels};
use shipwatch::model::Bundle;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which counts what each thread asks for.
struct Counting;

#[expect(unsafe_code, reason = "an allocator is")]
// SAFETY: all is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: threads share a layer with those that are idle, and memory grows when they first do.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Allocations of this thread during `work`.
fn taken(work: impl FnOnce()) -> usize {
    let before = TAKEN.get();
    work();
    TAKEN.get() - before
}

fn filters(outputs: usize, products: usize) -> Filters {
    Filters {
        weight: (0..outputs * products)
            .map(|at| (at % 200) as i8 / 2)
            .collect(),
        scales: vec![0.001; outputs],
        bias: vec![5; outputs],
    }
}

/// Of the image: layers are then worth sharing.
const SIDE: usize = 96;

/// Each operator once.
fn graph() -> (Graph, usize) {
    let mut graph = Graph::default();
    let scheme = Scheme {
        scale: 0.05,
        zero: 9,
    };
    let window = |stride| Window {
        stride,
        top: 1,
        left: 1,
        bottom: 1,
        right: 1,
    };
    let table = || Box::new(std::array::from_fn(|byte| 255 - byte as u8));
    let mut last = graph.image([SIDE; 2], table(), scheme).expect("an image");
    let mut push =
        |op: Op, inputs: &[usize]| graph.push(op, inputs, scheme, Range::FULL).expect("fits");
    last = push(Op::Full(filters(8, 27), window(2)), &[last]);
    last = push(Op::Depthwise(filters(8, 9), window(1)), &[last]);
    let one = push(Op::Pointwise(filters(8, 8)), &[last]);
    last = push(Op::Add, &[one, last]);
    last = push(Op::Concat, &[one, last]);
    last = push(Op::Upsample, &[last]);
    last = push(Op::Double(filters(3, 4 * 16)), &[last]);
    last = push(Op::Table(table()), &[last]);
    last = push(Op::Pool, &[last]);
    (graph, last)
}

#[test]
fn a_segment_takes_nothing_once_it_has_its_scratch() {
    let _alone = alone();
    let (graph, output) = graph();
    let image = vec![100; SIDE * SIDE * 3];
    for kernel in kernels() {
        let segment = Segment::new(&graph, &[output], kernel).expect("runs here");
        let mut scratch = Scratch::default();
        let mut seen = 0;
        let mut run = || segment.run(&image, &mut scratch, |_, bytes, _| seen += bytes.len());
        assert!(taken(&mut run) > 0, "{kernel}: the scratch itself");
        assert_eq!(taken(&mut run), 0, "{kernel}");
        assert_eq!(seen, 2 * 3);
    }
}

#[test]
fn nor_does_one_whose_layers_are_shared() {
    let _alone = alone();
    let (graph, output) = graph();
    let image = vec![100; SIDE * SIDE * 3];
    let segment = Segment::new(&graph, &[output], kernels()[0]).expect("runs here");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
    pool.expect("threads").install(|| {
        let mut scratch = Scratch::default();
        let mut run = || segment.run(&image, &mut scratch, |_, _, _| {});
        run();
        assert_eq!(taken(run), 0);
    });
}

#[test]
fn a_network_takes_what_tract_asks_for_and_no_more() {
    let _alone = alone();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bundle = Bundle::load(&root.join("models/base-int8")).expect("a bundle");
    for network in [&bundle.gate, &bundle.unet] {
        let image = vec![100; 3 * network.side() * network.side()];
        let run = || drop(network.run(&image).expect("runs"));
        run();
        let first = taken(run);
        // The image and the output as tensors, a state of the plan, and lists of these.
        assert!(first <= TRACTS, "{first}");
        for _ in 0..5 {
            assert_eq!(taken(run), first);
        }
    }
}

/// Most allocations of a run of tract's plan, with its one operator of the engine and two that change the
/// form of its output.
const TRACTS: usize = 9;
