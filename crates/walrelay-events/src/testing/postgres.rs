//! A throwaway PostgreSQL that uses the installed server programs.

use std::env;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use super::error::Error;

/// The options of a throwaway server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Sync to disk, so that committed transactions survive a crash.
    pub is_durable: bool,
    /// Further lines of `postgresql.conf`.
    pub settings: Vec<String>,
    /// Lines that come first in `pg_hba.conf`.
    pub hba: Vec<String>,
}

impl Options {
    /// Makes committed transactions survive a crash.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.is_durable = true;
        self
    }

    /// Sets further lines of `postgresql.conf`.
    #[must_use]
    pub fn with_settings(mut self, settings: Vec<String>) -> Self {
        self.settings = settings;
        self
    }

    /// Sets the first lines of `pg_hba.conf`.
    #[must_use]
    pub fn with_hba(mut self, hba: Vec<String>) -> Self {
        self.hba = hba;
        self
    }
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StopMode {
    /// Fast shutdown: sessions are terminated, walsenders finish first.
    Fast,
    /// Immediate shutdown, as in a crash.
    Immediate,
}

/// A PostgreSQL that ends when it is dropped.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
}

impl Postgres {
    /// Creates a data directory and starts a server.
    pub fn start(options: Options) -> Result<Self, Error> {
        let server = Self::prepare(find_programs().ok_or(Error::PostgresMissing)?)?;
        server.initialize(&options)?;
        server.resume()?;
        Ok(server)
    }

    /// Starts a standby from a copy of this server's files. This server is restarted for it. `settings` are further
    /// lines of the standby's `postgresql.conf`.
    pub fn start_standby(&self, settings: &[String]) -> Result<Self, Error> {
        let standby = Self::prepare(self.bin.clone())?;
        self.stop(StopMode::Fast)?;
        let data = standby.data();
        standby.run(Path::new("cp"), &["-a", &self.data(), &data])?;
        // As pg_basebackup does. A copied slot would not be synchronized.
        let slots = Path::new(&data).join("pg_replslot");
        for slot in fs::read_dir(&slots).map_err(Error::io("read the slots"))?.flatten() {
            fs::remove_dir_all(slot.path()).map_err(Error::io("remove a slot"))?;
        }
        let ours = [
            format!("port = {}", standby.port),
            format!("unix_socket_directories = '{}'", standby.folder.display()),
            format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres dbname=postgres'", self.port),
        ];
        let lines: String = ours.iter().chain(settings).map(|line| format!("{line}\n")).collect();
        append(&Path::new(&data).join("postgresql.auto.conf"), &lines).map_err(Error::io("write the settings"))?;
        fs::File::create(Path::new(&data).join("standby.signal")).map_err(Error::io("create standby.signal"))?;
        self.resume()?;
        standby.resume()?;
        Ok(standby)
    }

    /// Promotes a standby.
    pub fn promote(&self) -> Result<(), Error> {
        self.program("pg_ctl", &["promote", "-w", "-t", "60", "-D", &self.data()]).map(drop)
    }

    /// Creates the directory of a server, and chooses its port and user.
    fn prepare(bin: PathBuf) -> Result<Self, Error> {
        let port = free_port().map_err(Error::io("find a free port"))?;
        let folder = env::temp_dir().join(format!("walrelay-pg-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).map_err(Error::io("create a temporary directory"))?;
        let user = server_user();
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&folder, Some(uid), Some(gid))
                .map_err(Error::io("change the owner of a directory"))?;
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))
            .map_err(Error::io("change the permissions of a directory"))?;
        Ok(Self { bin, folder, port, user })
    }

    fn initialize(&self, options: &Options) -> Result<(), Error> {
        let data = self.data();
        self.program(
            "initdb",
            &["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
        )?;
        let sync = if options.is_durable { "on" } else { "off" };
        let mut settings = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nwal_level = logical\n\
             max_wal_senders = 20\nmax_replication_slots = 20\nfsync = {sync}\nshared_buffers = 64MB\n\
             max_wal_size = 4GB\n\
             log_min_messages = log\n",
            self.port,
            self.folder.display()
        );
        for line in &options.settings {
            settings.push_str(line);
            settings.push('\n');
        }
        append(&Path::new(&data).join("postgresql.auto.conf"), &settings).map_err(Error::io("write the settings"))?;
        if !options.hba.is_empty() {
            let path = Path::new(&data).join("pg_hba.conf");
            let rest = fs::read_to_string(&path).map_err(Error::io("read pg_hba.conf"))?;
            let lines = format!("{}\n{rest}", options.hba.join("\n"));
            fs::write(&path, lines).map_err(Error::io("write pg_hba.conf"))?;
        }
        Ok(())
    }

    /// Starts the server again after a stop.
    pub fn resume(&self) -> Result<(), Error> {
        let log = self.folder.join("log").display().to_string();
        self.program("pg_ctl", &["start", "-w", "-t", "60", "-D", &self.data(), "-l", &log]).map(drop)
    }

    /// Stops the server and returns how long that took.
    pub fn stop(&self, mode: StopMode) -> Result<Duration, Error> {
        let began = Instant::now();
        let mode = match mode {
            StopMode::Fast => "fast",
            StopMode::Immediate => "immediate",
        };
        self.program("pg_ctl", &["stop", "-w", "-t", "120", "-D", &self.data(), "-m", mode])?;
        Ok(began.elapsed())
    }

    /// Returns the connection string of the database `postgres`, as superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Returns the connection string of a database, as superuser.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Returns the port on the loopback address.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of the server, its Unix socket and its log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the directory of the server programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.bin
    }

    /// Returns the process id of the postmaster.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(Path::new(&self.data()).join("postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok()
    }

    fn data(&self) -> String {
        self.folder.join("data").display().to_string()
    }

    fn program(&self, name: &str, arguments: &[&str]) -> Result<String, Error> {
        self.run(&self.bin.join(name), arguments)
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Result<String, Error> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let mut command = Command::new(program);
        // Not the current directory: the server's user may not have access.
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null()).env("LC_ALL", "C");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        // Into a file: the server would keep a pipe open.
        let path = self.folder.join(format!("{name}.out"));
        let file = fs::File::create(&path).map_err(Error::io("open a file for output"))?;
        let both = file.try_clone().map_err(Error::io("open a file for output"))?;
        let status = command.stdout(file).stderr(both).status().map_err(Error::io("run a program of PostgreSQL"))?;
        let output = fs::read_to_string(&path).unwrap_or_default();
        if status.success() {
            return Ok(output);
        }
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        let output = format!("{} {}", output.trim(), tail.into_iter().rev().collect::<Vec<_>>().join("; "));
        Err(Error::Program { program: name.into_owned(), output })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It may be stopped already.
        let _ = self.stop(StopMode::Immediate);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())
}

/// Finds the directory with `initdb` and `pg_ctl`.
fn find_programs() -> Option<PathBuf> {
    let has_programs = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("pg_ctl").exists();
    if let Some(named) = env::var_os("WALRELAY_PG_BIN") {
        // Absolute and without links: the server's user may not have access to the link.
        return fs::canonicalize(named).ok().filter(has_programs);
    }
    let mut versions: Vec<(u32, PathBuf)> = Vec::new();
    for root in ["/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt", "/usr/local/opt"] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let digits: String = entry.file_name().to_string_lossy().chars().filter(char::is_ascii_digit).collect();
            versions.push((digits.parse().unwrap_or_default(), entry.path().join("bin")));
        }
    }
    versions.sort();
    let installed = versions.into_iter().rev().map(|(_, folder)| folder);
    let on_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    installed.chain(on_path).find(has_programs)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// PostgreSQL refuses to run as root. Then it runs as `postgres`, or else as `nobody`.
fn server_user() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").ok()?.uid() != 0 {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = |wanted: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let is_wanted = fields.next() == Some(wanted);
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            is_wanted.then_some((uid, gid))
        })
    };
    ids("postgres").or_else(|| ids("nobody")).or(Some((65_534, 65_534)))
}
