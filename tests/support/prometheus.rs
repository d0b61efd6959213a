//! A real Prometheus that scrapes the program under test.

use std::fs;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use super::kafka::free_port;

/// A Prometheus that lives as long as this value.
pub struct Prometheus {
    folder: PathBuf,
    port: u16,
    process: Child,
}

impl Prometheus {
    /// Starts one that scrapes the port of a relay and evaluates these rules, both each second.
    pub fn start(target: u16, rules: &str) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("walrelay-prometheus-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("rules.yml"), rules).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nscrape_configs:\n\
             - {{job_name: walrelay, static_configs: [{{targets: [\"127.0.0.1:{target}\"]}}]}}\n"
        );
        fs::write(folder.join("prometheus.yml"), config).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().unwrap_or_else(|error| missing("prometheus", &error));
        let prometheus = Self { folder, port, process };
        prometheus.await_that("readiness", |prometheus| {
            prometheus.get("/-/ready").is_some_and(|answer| answer.contains("200 OK"))
        });
        prometheus
    }

    /// Evaluates an expression now. Gives the samples of its result.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let answer = self.data(&format!("/api/v1/query?query={}", encoded(expression)));
        answer["result"].as_array().unwrap_or_else(|| panic!("{expression}: {answer}")).clone()
    }

    /// The names of the alerts that fire.
    pub fn firing(&self) -> Vec<String> {
        let alerts = self.data("/api/v1/alerts");
        let alerts = alerts["alerts"].as_array().unwrap();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    /// The rules with their health, as Prometheus has evaluated them.
    pub fn rules(&self) -> Vec<Value> {
        let groups = self.data("/api/v1/rules");
        let groups = groups["groups"].as_array().unwrap();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    /// Waits until something is so.
    pub fn await_that(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < Duration::from_secs(60), "{what} has not come: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn data(&self, path: &str) -> Value {
        let answer = self.get(path).unwrap_or_else(|| panic!("{path}: {}", self.log()));
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
        assert_eq!(body["status"], "success", "{path}: {body}");
        body["data"].clone()
    }

    /// HTTP/1.0, so that the answer is not in chunks.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Runs promtool in a folder.
pub fn promtool(folder: &Path, arguments: &[&str]) -> Output {
    let output = Command::new("promtool").args(arguments).current_dir(folder).output();
    output.unwrap_or_else(|error| missing("promtool", &error))
}

fn missing(program: &str, error: &io::Error) -> ! {
    panic!("run {program}: {error}; scripts/setup test installs it: sudo apt-get install prometheus")
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
