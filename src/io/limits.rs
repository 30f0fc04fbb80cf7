//! How many descriptors the process may have: each allocation and each connection
//! is one.

use std::io;

use super::socket::check;

/// Raises the soft limit on open descriptors to the hard one, and returns it.
///
/// # Errors
/// What getrlimit(2) or setrlimit(2) report.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable and lives across the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is readable and lives across the call.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_is_what_the_system_allows() {
        let first = super::raise_descriptor_limit().unwrap();
        assert!(first >= 256);
        assert_eq!(super::raise_descriptor_limit().unwrap(), first);
    }
}
