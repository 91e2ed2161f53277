//! Memory that the allocator holds and the process no longer needs.

/// Gives back to the system what the allocator keeps of memory that has been freed.
///
/// Loading parses megabytes of type information that are not needed again; glibc would keep three quarters of what the
/// process then has.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks, and touches no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
