//! A real PgBouncer before a server.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use walrelay_events::testing::Postgres;

use super::kafka::free_port;

/// A pooler that lives as long as this value.
pub struct Pooler {
    folder: PathBuf,
    port: u16,
    process: Child,
}

impl Pooler {
    /// Starts one with these further settings.
    pub fn start(postgres: &Postgres, settings: &str) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("walrelay-pooler-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "[databases]\n* = host=127.0.0.1 user=postgres port={}\n[pgbouncer]\nlisten_addr = \
             127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\nlogfile = {folder}/log\n{settings}\n",
            postgres.port(),
            folder = folder.display()
        );
        fs::write(folder.join("pgbouncer.ini"), text).unwrap();
        let mut command = Command::new("pgbouncer");
        command.arg(folder.join("pgbouncer.ini")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Debian's lies where only root's PATH leads.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        // It refuses to run as root.
        let (ours, server) = (fs::metadata(&folder).unwrap(), fs::metadata(postgres.folder()).unwrap());
        if ours.uid() == 0 {
            std::os::unix::fs::chown(&folder, Some(server.uid()), Some(server.gid())).unwrap();
            command.uid(server.uid()).gid(server.gid());
        }
        let process =
            command.spawn().unwrap_or_else(|error| panic!("run pgbouncer: {error}; sudo apt-get install pgbouncer"));
        let pooler = Self { folder, port, process };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", pooler.log());
            thread::sleep(Duration::from_millis(20));
        }
        pooler
    }

    /// Gives the connection string of the database `postgres` through it.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// Gives what it says.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
