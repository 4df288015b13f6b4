//! The C library's allocator.

/// Returns large allocations to the system when they are freed, and limits the allocator to one arena per processor.
///
/// By default the C library keeps freed memory of the size of the largest allocation so far, up to 32 MiB per thread: a
/// pushed plugin. Of its eight arenas per processor each keeps holes that the others do not fill: a quarter of the memory
/// of idle sessions.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no safe wrapper sets options of the allocator")]
pub fn bound_kept_memory() {
    const LARGE: libc::c_int = 256 * 1_024;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let arenas = libc::c_int::try_from(processors).unwrap_or(libc::c_int::MAX);
    // SAFETY: The function takes two numbers and locks the allocator itself.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_ARENA_MAX, arenas);
    }
}

/// Does nothing: the allocator has no such options.
#[cfg(not(target_env = "gnu"))]
pub fn bound_kept_memory() {}
