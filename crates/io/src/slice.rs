//! How long the calling thread runs before another one of its core may.

use std::{io, time::Duration};

/// Asks for slices of `slice` (0.1 to 100 ms) for the calling thread (Linux 6.12: `sched_runtime` of `sched_setattr(2)` for
/// `SCHED_OTHER` and `SCHED_BATCH`; kernels before take no notice). Its share of the core stays what it is. But a thread that
/// wakes and has a shorter slice than the one that runs need not wait for the end of that one's.
///
/// Threads of other policies, which somebody has chosen, are left alone.
///
/// # Errors
/// Where the kernel refuses, as under a seccomp profile.
pub fn shorten_slice(slice: Duration) -> io::Result<()> {
    const SIZE: u32 = size_of::<libc::sched_attr>() as u32;
    let mut attributes = libc::sched_attr {
        size: SIZE,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `SIZE` bytes, and any bytes are valid numbers; 0 is the calling thread.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    if ![libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&attributes.sched_policy.cast_signed()) {
        return Ok(());
    }
    attributes.size = SIZE;
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads `SIZE` bytes, which are there; 0 is the calling thread.
    let written = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel tells of the calling thread's slice, in nanoseconds; kernels before 6.12 tell 0.
    fn slice() -> u64 {
        let mut words = [0u64; 6];
        // SAFETY: `words` has the 48 bytes that the kernel may write.
        let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, words.as_mut_ptr(), 48, 0) };
        assert_eq!(read, 0);
        words[3]
    }

    #[test]
    fn a_thread_has_the_slice_that_it_asks_for_where_the_kernel_has_any() {
        let (before, nice) = (slice(), rustix::process::getpriority_process(None).unwrap());
        shorten_slice(Duration::from_micros(300)).unwrap();
        assert_eq!(slice(), if before == 0 { 0 } else { 300_000 });
        // Its niceness is as it was.
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), nice);
    }
}
