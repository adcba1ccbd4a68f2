//! What can go wrong with a file.

use std::io;
use std::path::{Path, PathBuf};

/// An operation on a file that failed, told so that an operator can act on it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct StorageError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl StorageError {
    /// True when the disk or the user's quota is full.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// True when the system has no room for a file now: disk, quota, or a limit on file size or open files. A later try may
    /// succeed, and what exists is not touched.
    pub fn is_refusal(&self) -> bool {
        use rustix::io::Errno;
        const LIMITS: [Errno; 3] = [Errno::FBIG, Errno::MFILE, Errno::NFILE];
        let number = self.source.raw_os_error();
        self.is_out_of_space() || LIMITS.iter().any(|limit| number == Some(limit.raw_os_error()))
    }

    /// True when the file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Results of this module.
pub type Result<T> = std::result::Result<T, StorageError>;

/// Adds what was tried to an error.
pub(super) trait Context<T> {
    /// Names the operation and the path.
    fn context(self, operation: &'static str, path: &Path) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, operation: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| StorageError { operation, path: path.to_owned(), source })
    }
}

impl<T> Context<T> for std::result::Result<T, glommio::GlommioError<()>> {
    fn context(self, operation: &'static str, path: &Path) -> Result<T> {
        // The library's own conversion loses the error number, and with it the full disk.
        let keep_number = |error: glommio::GlommioError<()>| match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => error.into(),
        };
        self.map_err(keep_number).context(operation, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The library wraps errors of file operations and its own conversion drops their number: a full disk then looked like any
    /// other failure, and the server would not have known that waiting for space can help.
    #[test]
    fn a_full_disk_is_recognised_through_the_wrapping() {
        let wrapped = |number| {
            let source = io::Error::from_raw_os_error(number);
            Err::<(), _>(glommio::GlommioError::EnhancedIoError { source, op: "Writing", path: None, fd: None })
        };
        let path = Path::new("/data/log.1");
        let full = wrapped(28).context("write", path).unwrap_err();
        assert!(full.is_out_of_space());
        assert_eq!(full.to_string(), "cannot write /data/log.1: No space left on device (os error 28)");
        assert!(wrapped(122).context("write", path).unwrap_err().is_out_of_space());
        assert!(!wrapped(5).context("write", path).unwrap_err().is_out_of_space());
        let refusals =
            [27, 24, 23, 28, 122].map(|number| wrapped(number).context("create", path).unwrap_err().is_refusal());
        assert_eq!(refusals, [true; 5], "EFBIG, EMFILE, ENFILE, ENOSPC, EDQUOT");
        assert!(!wrapped(5).context("create", path).unwrap_err().is_refusal(), "EIO");
    }
}
