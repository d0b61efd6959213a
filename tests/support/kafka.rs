//! A real Apache Kafka in KRaft mode, from the jars in `.services/kafka`.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::admin::AdminClient;
use rdkafka::admin::AdminOptions;
use rdkafka::admin::NewPartitions;
use rdkafka::admin::NewTopic;
use rdkafka::admin::TopicReplication;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;

#[path = "proxy.rs"]
pub mod proxy;

use proxy::Proxy;

/// Brokers that live as long as this value.
pub struct Kafka {
    nodes: Vec<Node>,
    folder: PathBuf,
    replication: i32,
}

struct Node {
    port: u16,
    process: Option<Child>,
}

/// A broker's sign of life comes later than its controller waits for it.
const WAVERING: &str = "\nbroker.session.timeout.ms=1500\nbroker.heartbeat.interval.ms=4000\n";

static STARTED: AtomicU32 = AtomicU32::new(0);

impl Kafka {
    /// One broker that all tests share; each uses topics of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(1))
    }

    /// So many brokers for one test.
    pub fn start(count: usize) -> Self {
        Self::start_with(count, "", &[])
    }

    /// One broker with a second door, whose address is given: there `app` comes in by `secret`, and may do nothing that
    /// has not been granted.
    pub fn guarded() -> (Self, String) {
        let authorizer = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                          super.users=User:ANONYMOUS\n";
        Self::with_door("PLAIN", "plain.PlainLoginModule required user_app=\"secret\"", authorizer, &[])
    }

    /// One broker with a second door, whose address is given: there clients log in as `walrelay` with the password
    /// `right`.
    pub fn with_login() -> (Self, String) {
        let user = ["--add-scram", "SCRAM-SHA-256=[name=walrelay,password=right]"];
        Self::with_door("SCRAM-SHA-256", "scram.ScramLoginModule required", "", &user)
    }

    /// One broker with a second door, whose address is given: there `app` logs in by SCRAM with the password `secret`,
    /// and may do nothing that has not been granted.
    pub fn guarded_by_scram() -> (Self, String) {
        let authorizer = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                          super.users=User:ANONYMOUS\n";
        let user = ["--add-scram", "SCRAM-SHA-256=[name=app,password=secret]"];
        Self::with_door("SCRAM-SHA-256", "scram.ScramLoginModule required", authorizer, &user)
    }

    /// One broker with a second door, whose address is given: there clients log in by an unsecured JWT. A connection
    /// whose token is expired ends.
    pub fn with_tokens() -> (Self, String) {
        let module = "oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\"";
        let further = "listener.name.door.oauthbearer.connections.max.reauth.ms=3600000\n";
        Self::with_door("OAUTHBEARER", module, further, &[])
    }

    /// One broker with a second door, whose address is given: there it has the certificate in `folder/broker.pem`, and
    /// accepts clients with those in `folder/trusted.pem`. It reads both when it starts.
    pub fn with_certificates(folder: &Path) -> (Self, String) {
        let door = free_port();
        let further = format!(
            "listeners=PLAINTEXT://127.0.0.1:BROKER_PORT,CONTROLLER://127.0.0.1:CONTROLLER_PORT,\
             DOOR://127.0.0.1:{door}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:BROKER_PORT,DOOR://127.0.0.1:{door}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DOOR:SSL\n\
             ssl.client.auth=required\nssl.keystore.type=PEM\nssl.keystore.location={folder}/broker.pem\n\
             ssl.truststore.type=PEM\nssl.truststore.location={folder}/trusted.pem\n",
            folder = folder.display()
        );
        (Self::start_with(1, &further, &[]), format!("127.0.0.1:{door}"))
    }

    /// One broker that compacts topics as soon as they can be.
    pub fn compacting() -> Self {
        Self::start_with(1, "log.cleaner.backoff.ms=50\n", &[])
    }

    /// One broker, and a proxy before it. What clients of [`Kafka::bootstrap`] send goes past the proxy.
    pub fn behind_proxy() -> (Self, Proxy) {
        let (door, port) = (free_port(), free_port());
        let further = format!(
            "listeners=PLAINTEXT://127.0.0.1:BROKER_PORT,CONTROLLER://127.0.0.1:CONTROLLER_PORT,\
             DOOR://127.0.0.1:{door}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:BROKER_PORT,DOOR://127.0.0.1:{port}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DOOR:PLAINTEXT\n"
        );
        (Self::start_with(1, &further, &[]), Proxy::start(port, door))
    }

    /// One broker with a second door, whose address is given: it gives clients an address at which nobody listens.
    pub fn with_wrong_address() -> (Self, String) {
        let (door, nowhere) = (free_port(), free_port());
        let further = format!(
            "listeners=PLAINTEXT://127.0.0.1:BROKER_PORT,CONTROLLER://127.0.0.1:CONTROLLER_PORT,\
             DOOR://127.0.0.1:{door}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:BROKER_PORT,DOOR://127.0.0.1:{nowhere}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DOOR:PLAINTEXT\n"
        );
        (Self::start_with(1, &further, &[]), format!("127.0.0.1:{door}"))
    }

    /// One broker that listens once more, where clients log in by this mechanism and module. Gives that address.
    fn with_door(mechanism: &str, module: &str, further: &str, format: &[&str]) -> (Self, String) {
        let door = free_port();
        let further = format!(
            "listeners=PLAINTEXT://127.0.0.1:BROKER_PORT,CONTROLLER://127.0.0.1:CONTROLLER_PORT,\
             DOOR://127.0.0.1:{door}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:BROKER_PORT,DOOR://127.0.0.1:{door}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DOOR:SASL_PLAINTEXT\n\
             sasl.enabled.mechanisms={mechanism}\nlistener.name.door.{}.sasl.jaas.config=\
             org.apache.kafka.common.security.{module};\n{further}",
            mechanism.to_lowercase()
        );
        (Self::start_with(1, &further, format), format!("127.0.0.1:{door}"))
    }

    /// With further properties; `BROKER_PORT` and `CONTROLLER_PORT` in them stand for a node's own ports, and further
    /// words for the tool that formats it.
    fn start_with(count: usize, further: &str, format: &[&str]) -> Self {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("walrelay-kafka-{}-{number}", std::process::id()));
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let voters: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(id, (_, controller))| format!("{}@127.0.0.1:{controller}", id + 1))
            .collect();
        let replication = i32::try_from(count.min(3)).unwrap();
        let mut kafka = Self { nodes: Vec::new(), folder, replication };
        for (place, (port, controller)) in ports.iter().enumerate() {
            let home = kafka.home(place);
            fs::create_dir_all(&home).unwrap();
            let least = (count - 1).max(1);
            let properties = format!(
                "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
                 log.dirs={home}/data\nauto.create.topics.enable=false\noffsets.topic.num.partitions=5\n\
                 offsets.topic.replication.factor={replication}\ntransaction.state.log.num.partitions=5\n\
                 transaction.state.log.replication.factor={replication}\ntransaction.state.log.min.isr=1\n\
                 min.insync.replicas={least}\nlog.cleaner.dedupe.buffer.size=8388608\n\
                 group.initial.rebalance.delay.ms=0\ngroup.consumer.min.session.timeout.ms=1000\n\
                 group.consumer.session.timeout.ms=6000\ngroup.consumer.min.heartbeat.interval.ms=100\n\
                 group.consumer.heartbeat.interval.ms=500\nbroker.session.timeout.ms=3000\n\
                 broker.heartbeat.interval.ms=500\n\
                 {further}",
                id = place + 1,
                voters = voters.join(","),
                home = home.display(),
                further = further
                    .replace("BROKER_PORT", &port.to_string())
                    .replace("CONTROLLER_PORT", &controller.to_string()),
            );
            fs::write(home.join("server.properties"), properties).unwrap();
            let file = home.join("server.properties").display().to_string();
            let formatted =
                java(&home, &["kafka.tools.StorageTool", "format", "-t", "d2FscmVsYXktdGVzdHMtMQ", "-c", &file])
                    .args(format)
                    .output()
                    .unwrap_or_else(|error| panic!("run java: {error}; install it: {INSTALL}"));
            assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
            kafka.nodes.push(Node { port: *port, process: None });
        }
        for place in 0..count {
            kafka.launch(place);
        }
        for place in 0..count {
            kafka.await_started(place);
        }
        kafka
    }

    /// Where clients start from.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        addresses.join(",")
    }

    /// Makes a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }

    /// Makes a topic whose partitions have one broker each.
    pub fn create_topic_without_replicas(&self, name: &str, partitions: i32) {
        self.create_topic_replicated(name, partitions, 1, &[("min.insync.replicas", "1")]);
    }

    /// Makes a topic with settings of its own.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        self.create_topic_replicated(name, partitions, self.replication, settings);
    }

    /// Makes a topic with one partition on these brokers, by their places; the first one leads.
    pub fn create_topic_at(&self, name: &str, places: &[usize], settings: &[(&str, &str)]) {
        let ids: Vec<i32> = places.iter().map(|place| i32::try_from(place + 1).unwrap()).collect();
        self.create_new_topic(NewTopic::new(name, 1, TopicReplication::Variable(&[&ids])), settings);
    }

    fn create_topic_replicated(&self, name: &str, partitions: i32, replication: i32, settings: &[(&str, &str)]) {
        self.create_new_topic(NewTopic::new(name, partitions, TopicReplication::Fixed(replication)), settings);
    }

    fn create_new_topic<'t>(&self, mut topic: NewTopic<'t>, settings: &[(&'t str, &'t str)]) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap();
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let created = runtime.block_on(admin.create_topics(&[topic], &AdminOptions::new())).unwrap();
        for result in created {
            result.unwrap_or_else(|(topic, code)| panic!("create topic {topic}: {code}"));
        }
    }

    /// Gives a topic more partitions.
    pub fn add_partitions(&self, topic: &str, count: usize) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let wish = NewPartitions::new(topic, count);
        let created = runtime.block_on(admin.create_partitions([&wish], &AdminOptions::new())).unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    /// Gives the names of all topics, in order.
    pub fn topics(&self) -> Vec<String> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap();
        let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(30)).unwrap();
        let mut names: Vec<String> = metadata.topics().iter().map(|topic| topic.name().to_owned()).collect();
        names.sort();
        names
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(admin.delete_topics(&[name], &AdminOptions::new())).unwrap();
    }

    /// Gives the end offset of partition 0.
    pub fn end_of(&self, topic: &str) -> i64 {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap();
        admin.inner().fetch_watermarks(topic, 0, Duration::from_secs(30)).unwrap().1
    }

    /// Runs a `kafka-configs.sh` command as it was printed.
    pub fn configure(&self, command: &str) {
        let arguments = command.strip_prefix("kafka-configs.sh ").unwrap_or_else(|| panic!("{command}"));
        let words: Vec<&str> = ["kafka.admin.ConfigCommand"].into_iter().chain(arguments.split(' ')).collect();
        let ran = java(&self.folder, &words).output().unwrap();
        assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Kills a broker, as if its machine lost power.
    pub fn kill(&mut self, place: usize) {
        self.signal(place, Signal::KILL);
        if let Some(mut process) = self.nodes[place].process.take() {
            writeln!(process.stdin.take().unwrap(), "kept").unwrap();
            let _ = process.wait();
        }
    }

    /// Starts a broker that was killed.
    pub fn resume(&mut self, place: usize) {
        let _ = fs::remove_file(self.home(place).join("log"));
        self.launch(place);
        self.await_started(place);
    }

    /// Starts the only broker anew as one that its controller takes for gone again and again, until something is so.
    /// Its answers name no broker then; whether a client stumbles over one is a matter of luck.
    pub fn waver_until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..16 {
            self.start_anew(|properties| properties.replace(WAVERING, "") + WAVERING);
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(15) {
                if is_so() {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
        panic!("{what} has not come");
    }

    /// Starts a wavering broker anew as a steady one.
    pub fn steady(&mut self) {
        self.start_anew(|properties| properties.replace(WAVERING, ""));
    }

    fn start_anew(&mut self, change: impl Fn(String) -> String) {
        self.kill(0);
        let file = self.home(0).join("server.properties");
        fs::write(&file, change(fs::read_to_string(&file).unwrap())).unwrap();
        self.resume(0);
    }

    /// Stops a broker in the middle of whatever it does: its connections stay, and nobody answers.
    pub fn freeze(&self, place: usize) {
        self.signal(place, Signal::STOP);
    }

    /// Lets a frozen broker go on.
    pub fn thaw(&self, place: usize) {
        self.signal(place, Signal::CONT);
    }

    fn signal(&self, place: usize, signal: Signal) {
        let pid = fs::read_to_string(self.home(place).join("pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn home(&self, place: usize) -> PathBuf {
        self.folder.join(format!("node{}", place + 1))
    }

    fn launch(&mut self, place: usize) {
        let home = self.home(place);
        let log = fs::File::create(home.join("log")).unwrap();
        let java = java(&home, &["kafka.Kafka", &home.join("server.properties").display().to_string()]);
        // The shell's standard input ends when this process does, however it ends; then the broker is killed, and
        // nothing of it is left unless a word says so.
        let script = "folder=$1; pidfile=$2; shift 2; \"$@\" </dev/null & echo $! > \"$pidfile\"; read -r kept; kill \
                      -9 $!; wait $!; [ -n \"$kept\" ] || rm -rf \"$folder\"";
        let process = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&self.folder)
            .arg(home.join("pid"))
            .arg(java.get_program())
            .args(java.get_args())
            // Ctrl-C is for this process alone, whose end they then hear of.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.nodes[place].process = Some(process);
    }

    fn await_started(&self, place: usize) {
        let began = Instant::now();
        let log = self.home(place).join("log");
        while !fs::read_to_string(&log).unwrap_or_default().contains("Kafka Server started") {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the broker has not started: {}",
                fs::read_to_string(&log).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                if let Some(mut stdin) = process.stdin.take() {
                    let _ = stdin.flush();
                }
                let _ = process.wait();
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const INSTALL: &str = "sudo apt-get install openjdk-17-jre-headless maven, then make services";

/// What it leaves in its temporary folder goes with that.
fn java(temporary: &Path, arguments: &[&str]) -> Command {
    let jars = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".services/kafka");
    assert!(jars.exists(), "Kafka's jars are missing: run `make services` ({INSTALL})");
    let mut command = Command::new("java");
    command
        .args(["-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"])
        .arg(format!("-Djava.io.tmpdir={}", temporary.display()))
        .arg("-cp")
        .arg(format!("{}/*", jars.display()))
        .args(arguments);
    command
}

/// Finds a port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
