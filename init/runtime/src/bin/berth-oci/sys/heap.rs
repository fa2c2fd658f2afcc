//! The heap of a command that is over in a moment: one piece of memory, given out from its beginning to its end.
//!
//! A general allocator asks the kernel for pages again and again and gives them back, which is a sixth of the time
//! that a container takes; and every page touched is copied once more in the container's process. Here only the piece
//! given out last can be taken back or grow in place. What does not fit any more, and so all of a long-running
//! command, is the C library's.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What `run` of an ordinary config.json with a seccomp profile needs. Pages that are not touched cost nothing.
const SIZE: usize = 512 * 1024;

/// The memory and how much of it is given out.
pub struct Heap {
    memory: Memory,
    used: AtomicUsize,
}

#[repr(align(4096))]
struct Memory(UnsafeCell<[u8; SIZE]>);

// SAFETY: the memory is only handed out in pieces that do not overlap: each byte belongs to the one caller who moved
// `used` over it, and that is done by compare and exchange.
unsafe impl Sync for Heap {}

impl Heap {
    pub const fn new() -> Self {
        Self { memory: Memory(UnsafeCell::new([0; SIZE])), used: AtomicUsize::new(0) }
    }

    fn start(&self) -> usize {
        self.memory.0.get() as usize
    }

    /// Whether a piece is of this memory.
    fn holds(&self, piece: *mut u8) -> bool {
        (self.start()..self.start() + SIZE).contains(&(piece as usize))
    }

    /// Makes the last piece end elsewhere; says no if it is not the last, or does not fit.
    fn move_end(&self, piece: *mut u8, old: usize, new: usize) -> bool {
        let offset = piece as usize - self.start();
        new <= SIZE - offset
            && self.used.compare_exchange(offset + old, offset + new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: `alloc` gives a piece of the memory that nobody else has (see `Sync`), inside of it, and aligned; or what
// `System` gives. `dealloc` and `realloc` tell the two apart by address, and pass on what is `System`'s unchanged.
// Nothing here unwinds.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut used = self.used.load(Ordering::Relaxed);
        // Pages are aligned more than any layout here is; a stricter one is not for this memory.
        while let Some(end) = end_of(used, layout) {
            match self.used.compare_exchange_weak(used, end, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return self.memory.0.get().cast::<u8>().wrapping_add(end - layout.size()),
                Err(other) => used = other,
            }
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if self.holds(piece) {
            // Of the others the place is lost.
            self.move_end(piece, layout.size(), 0);
        } else {
            // SAFETY: it is not ours, so it came from `System` with this layout.
            unsafe { System.dealloc(piece, layout) }
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.holds(piece) {
            // SAFETY: it is not ours, so it came from `System` with this layout; the caller's contract is the same.
            return unsafe { System.realloc(piece, layout, size) };
        }
        if self.move_end(piece, layout.size(), size) || size <= layout.size() {
            return piece;
        }
        let Ok(larger) = Layout::from_size_align(size, layout.align()) else { return std::ptr::null_mut() };
        // SAFETY: the caller promises that `size` is not zero.
        let new = unsafe { self.alloc(larger) };
        if !new.is_null() {
            // SAFETY: both are valid for the old, smaller size, and the new piece is nobody else's, so they do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(piece, new, layout.size()) };
        }
        new
    }
}

/// Where a piece would end that begins at or after `used`.
fn end_of(used: usize, layout: Layout) -> Option<usize> {
    if layout.align() > 4096 {
        return None;
    }
    used.checked_next_multiple_of(layout.align())?.checked_add(layout.size()).filter(|end| *end <= SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece of a heap, which gives itself back.
    struct Piece {
        heap: &'static Heap,
        start: *mut u8,
        layout: Layout,
    }

    impl Piece {
        fn new(heap: &'static Heap, size: usize) -> Self {
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: no test asks for nothing.
            Self { heap, start: unsafe { heap.alloc_zeroed(layout) }, layout }
        }

        fn grow(&mut self, size: usize) {
            // SAFETY: this owner's piece has this layout, and no test asks for nothing.
            self.start = unsafe { self.heap.realloc(self.start, self.layout, size) };
            self.layout = Layout::from_size_align(size, 8).unwrap();
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: the piece has so many bytes, which were zeroed or copied, and this is the only way to them.
            unsafe { std::slice::from_raw_parts_mut(self.start, self.layout.size()) }
        }
    }

    impl Drop for Piece {
        fn drop(&mut self) {
            // SAFETY: this owner's piece has this layout, and nobody has it after its owner.
            unsafe { self.heap.dealloc(self.start, self.layout) }
        }
    }

    #[test]
    fn the_last_piece_grows_in_place_and_is_given_back() {
        static HEAP: Heap = Heap::new();
        let mut first = Piece::new(&HEAP, 24);
        first.bytes().fill(7);
        let mut second = Piece::new(&HEAP, 8);
        assert_eq!(second.start, first.start.wrapping_add(24));
        let place = second.start;
        second.grow(64);
        assert_eq!(second.start, place);
        first.grow(32);
        assert_eq!(first.start, place.wrapping_add(64));
        assert_eq!(first.bytes()[..24], [7; 24]);
        let place = first.start;
        drop(first);
        assert_eq!(Piece::new(&HEAP, 16).start, place);
    }

    #[test]
    fn what_does_not_fit_comes_from_elsewhere() {
        static HEAP: Heap = Heap::new();
        let mut large = Piece::new(&HEAP, SIZE + 8);
        assert!(!HEAP.holds(large.start));
        large.grow(SIZE * 2);
        let whole = Piece::new(&HEAP, SIZE);
        assert!(HEAP.holds(whole.start));
        assert!(!HEAP.holds(Piece::new(&HEAP, 8).start));
    }
}
