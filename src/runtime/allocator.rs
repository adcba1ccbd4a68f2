//! The global allocator: mimalloc, asked for an alignment only where its blocks do not have it anyway.
//!
//! The `mimalloc` crate asks for one always, and every block above a kilobyte then takes the slow way, there and back.

#![allow(unsafe_code)]

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};
use std::alloc::{GlobalAlloc, Layout};

/// See the module documentation.
pub struct Allocator;

/// What every block of at least that size is aligned to (`MI_MAX_ALIGN_SIZE`); smaller ones to their size.
const NATURAL_ALIGNMENT: usize = 16;

fn is_natural(size: usize, alignment: usize) -> bool {
    alignment <= NATURAL_ALIGNMENT && alignment <= size
}

// SAFETY: every method passes its arguments on to mimalloc, which is an allocator; blocks that are not asked for with an
// alignment have it, by `is_natural`. `mi_free` and `mi_realloc` take blocks of either kind.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_natural(layout.size(), layout.align()) {
            // SAFETY: any size is allowed.
            return unsafe { mi_malloc(layout.size()) }.cast();
        }
        // SAFETY: a layout's alignment is a power of two.
        unsafe { mi_malloc_aligned(layout.size(), layout.align()) }.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_natural(layout.size(), layout.align()) {
            // SAFETY: any size is allowed.
            return unsafe { mi_zalloc(layout.size()) }.cast();
        }
        // SAFETY: a layout's alignment is a power of two.
        unsafe { mi_zalloc_aligned(layout.size(), layout.align()) }.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller vouches that the block came from this allocator.
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if is_natural(layout.size(), layout.align()) && is_natural(new_size, layout.align()) {
            // SAFETY: the caller vouches that the block came from this allocator.
            return unsafe { mi_realloc(block.cast(), new_size) }.cast();
        }
        // SAFETY: as above, and a layout's alignment is a power of two.
        unsafe { mi_realloc_aligned(block.cast(), new_size, layout.align()) }.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block that is less aligned than its type asks for is undefined behaviour wherever it is used.
    #[test]
    fn blocks_have_the_alignment_that_was_asked_for() {
        for size in (1..300).chain([1000, 1024, 1025, 4097, 70_000, 1 << 20]) {
            for alignment in [1, 2, 4, 8, 16, 32, 64, 4096] {
                let layout = Layout::from_size_align(size, alignment).expect("a power of two");
                // SAFETY: the layout has a size; the block is freed with the layout it was last given.
                unsafe {
                    let block = Allocator.alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(alignment), "{layout:?}");
                    let block = Allocator.realloc(block, layout, size * 2 + 1);
                    assert!(!block.is_null() && block.addr().is_multiple_of(alignment), "{layout:?} grown");
                    Allocator.dealloc(block, Layout::from_size_align_unchecked(size * 2 + 1, alignment));
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert!(!zeroed.is_null() && zeroed.addr().is_multiple_of(alignment), "{layout:?} zeroed");
                    Allocator.dealloc(zeroed, layout);
                }
            }
        }
    }
}
