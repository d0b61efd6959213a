use tokio_util::sync::CancellationToken;
use walrelay::relay;
fn main() {
    tracing_subscriber::fmt().with_env_filter("info").with_writer(std::io::stderr).init();
    let args: Vec<String> = std::env::args().collect();
    let mock;
    let brokers = if args[2] == "mock" {
        mock = rdkafka::mocking::MockCluster::new(1).unwrap();
        mock.create_topic("order-events", 4, 1).unwrap();
        vec![mock.bootstrap_servers()]
    } else {
        vec![args[2].clone()]
    };
    let settings = relay::Settings {
        relay: relay::Config::default(),
        source: relay::Source::default(),
        postgres: relay::wal::Config { url: args[1].clone(), ..Default::default() },
        outboxes: vec![Default::default()],
        kafka: relay::publish::Config { brokers, ..Default::default() },
        delivery: Default::default(),
        shutdown: Default::default(),
    };
    let stop = CancellationToken::new();
    let metrics = relay::metrics::Metrics::default();
    let m = metrics.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
            eprintln!(
                "events={} tx={} inflight={} topics={:?} ",
                m.events_received.value(),
                m.transactions.value(),
                m.in_flight_records.value(),
                m.topics.counts()
            );
        }
    });
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let s2 = stop.clone();
    let r = rt.block_on(async move {
        tokio::spawn(async move {
            tokio::signal::ctrl_c().await.unwrap();
            s2.cancel();
        });
        relay::run(settings, metrics, stop).await
    });
    match r {
        Ok(()) => eprintln!("stopped"),
        Err(e) => {
            use walrelay::fault::Diagnose;
            eprintln!("error[{}]: {}\n  next: {:?}", e.code(), walrelay::fault::chain(&e), e.help());
            std::process::exit(e.code().exit() as i32)
        }
    }
}
