//! What `run` sends to systemd.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::Child;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::kill_process;

use crate::support::program::Program;
use crate::support::program::signal;

/// A `run` without PostgreSQL and Kafka, which waits for both.
fn start(program: &Program, socket: &str) -> Child {
    let mut run = program.command(&["run"]);
    run.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "1000000");
    run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4_096];
    let length = socket.recv(&mut buffer).expect("a notification");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn systemd_is_notified_of_start_life_state_and_stop() {
    let program = Program::new("postgres://postgres@127.0.0.1:1/postgres", "127.0.0.1:1", "");
    let path = program.folder().join("notify");
    let abstract_name = format!("walrelay-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
    for (socket, name) in [
        (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
        (UnixDatagram::bind_addr(&address).unwrap(), format!("@{abstract_name}")),
    ] {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut run = start(&program, &name);
        assert_eq!(receive(&socket), "READY=1\nSTATUS=starting", "{name}");
        assert!(program.get("/livez").is_some_and(|(status, _)| status == 200), "ready before the endpoints answer");
        // The state changes as soon as the connection is refused.
        loop {
            let text = receive(&socket);
            assert!(text.starts_with("WATCHDOG=1\nSTATUS="), "{text}");
            if text.contains("(WR-") {
                break;
            }
        }
        kill_process(Pid::from_child(&run), signal("TERM")).unwrap();
        while receive(&socket) != "STOPPING=1" {}
        assert_eq!(run.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_socket_of_systemd_that_does_not_exist_is_logged_and_does_not_stop_the_relay() {
    let mut program = Program::new("postgres://postgres@127.0.0.1:1/postgres", "127.0.0.1:1", "");
    program.start_with(&[("NOTIFY_SOCKET", "/nowhere/notify")]);
    program.await_log("cannot notify systemd");
    program.await_that("life", |program| program.get("/livez").is_some_and(|(status, _)| status == 200));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}
