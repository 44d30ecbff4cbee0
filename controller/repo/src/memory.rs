//! What libgit2 may take of the controller's memory.
//!
//! A repository of two megabytes can hold an object of gigabytes, for compressed zeros cost next to nothing, and libgit2
//! has no limit for what an object unpacks to. So its memory comes from here: a request beyond the limit is answered as if
//! the machine had no more, which libgit2 reports as an error, and everybody else goes on.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The most bytes that libgit2 may have at a time, for all repositories together. Tests get there.
pub(super) const LIMIT: usize = (if cfg!(test) { 16 } else { 512 }) << 20;

/// What it has now.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
/// How many of its requests were refused.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// `git_allocator` of libgit2's `git2/sys/alloc.h`.
#[repr(C)]
struct Allocator {
    allocate: extern "C" fn(usize, *const c_char, c_int) -> *mut c_void,
    reallocate: extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void,
    free: extern "C" fn(*mut c_void),
}

/// Makes the limit hold.
///
/// # Safety
/// While this runs, no other thread may use libgit2.
pub(super) unsafe fn ensure_limited() {
    let allocator = Allocator { allocate, reallocate, free };
    // SAFETY: the option takes a pointer to this structure and copies it. The functions are malloc(3)'s own, so memory
    // from before can be given to them.
    let failed = unsafe {
        libgit2_sys::git_libgit2_opts(libgit2_sys::GIT_OPT_SET_ALLOCATOR as c_int, &raw const allocator)
    };
    if failed != 0 {
        tracing::warn!("git_memory_not_limited");
    }
}

/// How many requests were refused so far: whether some were in between tells why something failed.
pub(super) fn count_refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

extern "C" fn allocate(size: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
    if !has_room(size) {
        return std::ptr::null_mut();
    }
    // SAFETY: malloc takes any size.
    let memory = unsafe { libc::malloc(size) };
    note(0, memory);
    memory
}

extern "C" fn reallocate(
    before: *mut c_void,
    size: usize,
    _file: *const c_char,
    _line: c_int,
) -> *mut c_void {
    let had = usable(before);
    if !has_room(size.saturating_sub(had)) {
        return std::ptr::null_mut();
    }
    // SAFETY: libgit2 gives what it has from here, or null.
    let memory = unsafe { libc::realloc(before, size) };
    if !memory.is_null() {
        note(had, memory);
    }
    memory
}

extern "C" fn free(memory: *mut c_void) {
    note(usable(memory), std::ptr::null_mut());
    // SAFETY: libgit2 gives what it has from here, or null.
    unsafe { libc::free(memory) };
}

fn has_room(more: usize) -> bool {
    let has = IN_USE.load(Ordering::Relaxed).saturating_add(more) <= LIMIT;
    if !has {
        REFUSED.fetch_add(1, Ordering::Relaxed);
    }
    has
}

/// Counts `memory` in the place of so many bytes.
fn note(before: usize, memory: *mut c_void) {
    let now = usable(memory);
    let counted = |in_use: usize| Some(in_use.saturating_sub(before).saturating_add(now));
    // The function always gives a value, so this cannot fail.
    let _ = IN_USE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
}

fn usable(memory: *mut c_void) -> usize {
    // SAFETY: null, or what malloc gave and nobody has freed; malloc_usable_size(3) takes both.
    unsafe { libc::malloc_usable_size(memory) }
}
