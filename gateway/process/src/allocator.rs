//! The C library's allocator.

/// Large allocations are returned to the system when they are freed. By default the C library keeps freed memory of the
/// size of the largest allocation so far, up to 32 MiB per thread: a pushed plugin.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no safe wrapper sets options of the allocator")]
pub fn return_large_allocations() {
    const LARGE: libc::c_int = 256 * 1_024;
    // SAFETY: The function takes two numbers and locks the allocator itself.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
}

/// Does nothing: the allocator has no such option.
#[cfg(not(target_env = "gnu"))]
pub fn return_large_allocations() {}
