//! The page, as a reader sees it in a real browser.

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::chromium;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::source::Sql;

/// A word that fits no phone.
const NAME: &str = "the-relay-of-all-the-orders-of-the-northern-warehouses";

fn page(program: &Program) -> String {
    program.get("/").unwrap().1
}

/// No reader scrolls sideways, the chart can be seen, and the mode is the reader's.
fn check_look(html: &str) {
    for (width, is_dark) in [(340, true), (340, false), (1_280, true), (1_280, false)] {
        let look = chromium::look(html, width, is_dark, "svg");
        assert!(look.content_width <= look.width, "{look:?}");
        let (chart_width, chart_height) = look.elements[0];
        assert!(chart_width > 250 && chart_height > 80, "{look:?}");
        let brightness = |color: &[u32]| color[0] + color[1] + color[2];
        assert_eq!(brightness(&look.background) < brightness(&look.text), is_dark, "{look:?}");
    }
}

#[test]
fn the_page_shows_both_ends_and_the_cause_of_a_stall_on_a_phone_and_a_desktop_in_light_and_dark() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("seen", 1);
    let more = format!(
        "[relay]\nname = \"{NAME}\"\n[source]\ndisconnect_on_stall_after = \"2s\"\n[[outbox]]\ntable = \
         \"public.outbox_events\"\ntopic = \"seen\"\n"
    );
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), &more);
    program.setup();
    let sql = Sql::connect(&postgres.url());
    sql.prepare();
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    program.await_that("a chart and an acknowledged event", |program| {
        let html = page(program);
        html.contains("<svg") && html.contains("1 event,")
    });
    let (document, complaints) = chromium::load(&format!("http://127.0.0.1:{}/", program.port()));
    let server = format!("postgres on 127.0.0.1:{}", postgres.port());
    for part in [NAME, "<b>streaming</b>", &server, &kafka.bootstrap(), "s ago", "<path class=\"line\""] {
        assert!(document.contains(part), "{part} is not in {document}");
    }
    // A style or an image that the page's own policy refuses, or anything that cannot be loaded.
    assert!(!complaints.contains("CONSOLE"), "{complaints}");
    check_look(&page(&program));

    kafka.freeze(0);
    sql.run("SELECT emit('k1')");
    program.await_state("sink_blocked");
    program.await_that("the cause", |program| page(program).contains("WR-6933"));
    let html = page(&program);
    let (cause, details) = (html.find("WR-6933").unwrap(), html.find("From PostgreSQL").unwrap());
    assert!(cause < details && html[cause..details].contains("Next: "), "{html}");
    check_look(&html);
    kafka.thaw(0);
}
