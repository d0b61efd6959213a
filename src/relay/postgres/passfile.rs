//! What libpq reads from this machine: the password file, and the name of the process's user.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;

use super::target::Host;

/// Reads the password file if only its owner can, as libpq does.
pub(super) fn read(path: &str) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path, next = format!("chmod 600 {path}"), "password file ignored: others can read it");
        return None;
    }
    fs::read_to_string(path).ok()
}

/// Finds the password in lines of `host:port:database:user:password`.
pub(super) fn entry(lines: &str, host: &Host, dbname: &str, user: &str) -> Option<String> {
    let (name, port) = match host {
        Host::Tcp { name, port, .. } => (name.as_str(), port.to_string()),
        Host::Unix { port, .. } => ("localhost", port.to_string()),
    };
    lines.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = vec![String::new()];
        let mut chars = line.chars();
        while let Some(char) = chars.next() {
            match char {
                '\\' => fields.last_mut()?.extend(chars.next()),
                ':' if fields.len() < 5 => fields.push(String::new()),
                char => fields.last_mut()?.push(char),
            }
        }
        let matches = |field: &str, value: &str| field == "*" || field == value;
        match fields.as_slice() {
            [for_host, for_port, for_dbname, for_user, password]
                if matches(for_host, name)
                    && matches(for_port, &port)
                    && matches(for_dbname, dbname)
                    && matches(for_user, user) =>
            {
                Some(password.clone())
            }
            _ => None,
        }
    })
}

/// Gives the name of this process's user; none if `/etc/passwd` has no line for it.
pub(super) fn system_user() -> Option<String> {
    let id = fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    })
}
