use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::error::{Error, Result};

/// Where systems keep servers that are not on everybody's path.
const MORE_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// A program on the path, or where systems keep servers.
///
/// # Errors
/// It is nowhere; the message names the Debian package that brings it.
pub(super) fn find(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
    find_in(folders, name).ok_or_else(|| not_found(name, package))
}

pub(super) fn find_in(folders: impl IntoIterator<Item = PathBuf>, name: &str) -> Option<PathBuf> {
    folders.into_iter().map(|folder| folder.join(name)).find(|program| program.is_file())
}

pub(super) fn not_found(name: &str, package: &str) -> Error {
    Error::new(format!("{name} not found: install it (Debian: apt-get install {package})"))
}

/// Whom a server runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// Whoever runs the tests.
    Same,
    /// Somebody without rights, as the tests run as root and the server refuses to.
    Unprivileged { uid: u32, gid: u32 },
}

impl User {
    /// For servers that refuse to run as root.
    pub(super) fn not_root() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Same);
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io("/etc/passwd"))?;
        unprivileged(&passwd).ok_or_else(|| {
            Error::new("the server refuses to run as root, and /etc/passwd has neither postgres nor nobody")
        })
    }

    /// A temporary folder of this user.
    pub(super) fn folder(self, prefix: &str) -> Result<TempDir> {
        let folder = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir()
            .map_err(Error::io("cannot create a temporary folder"))?;
        self.own(folder.path()).map_err(Error::io(folder.path().display()))?;
        Ok(folder)
    }

    /// Writes a file of this user.
    pub(super) fn write(self, path: &Path, text: &str) -> io::Result<()> {
        fs::write(path, text)?;
        self.own(path)
    }

    fn own(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Same => Ok(()),
            Self::Unprivileged { uid, gid } => chown(path, Some(uid), Some(gid)),
        }
    }

    /// A command that this user runs.
    pub(super) fn command(self, program: &Path, arguments: &[OsString]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments);
        if let Self::Unprivileged { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }
}

fn unprivileged(passwd: &str) -> Option<User> {
    ["postgres", "nobody"].into_iter().find_map(|name| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next() != Some(name) {
                return None;
            }
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(User::Unprivileged { uid, gid })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_with_its_package() {
        let error = find("evenkeel-imaginary-server", "imaginary-server").unwrap_err().to_string();
        assert!(error.contains("evenkeel-imaginary-server not found"), "{error}");
        assert!(error.contains("apt-get install imaginary-server"), "{error}");
    }

    #[test]
    fn a_program_is_found_on_the_path() {
        assert!(find("sh", "dash").unwrap().is_file());
    }

    #[test]
    fn who_is_unprivileged_stands_in_passwd() {
        let (root, nobody) = ("root:x:0:0:root:/root:/bin/bash", "nobody:x:65534:65533:nobody:/:/bin/false");
        let postgres = "postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash";
        assert_eq!(unprivileged(root), None);
        assert_eq!(
            unprivileged(&[root, nobody].join("\n")),
            Some(User::Unprivileged { uid: 65534, gid: 65533 })
        );
        assert_eq!(
            unprivileged(&[root, nobody, postgres].join("\n")),
            Some(User::Unprivileged { uid: 101, gid: 104 })
        );
    }
}
