//! Takes orders by HTTP. The order and its event are written in one transaction: both are committed, or neither.
//!
//! `POST /orders` places an order; the client chooses its id, so that it can repeat the request when the response was
//! lost. `POST /orders/ID/cancel` cancels one that has not been shipped. `GET /items/SKU` shows an item.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;
use walrelay_events::event::Envelope;
use walrelay_events::event::TraceContext;
use walrelay_events::outbox;

use crate::database::Database;
use crate::order::Amount;
use crate::order::Currency;
use crate::order::Item;
use crate::order::ORDER;
use crate::order::OrderEvent;
use crate::order::now;
use crate::views::Views;

/// The maximum size of an order, and the timeout of a request.
const MAX_BODY_BYTES: usize = 64 << 10;
const MAX_REQUEST: Duration = Duration::from_secs(10);
/// The pause after a failed accept, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What a client sends.
#[derive(Deserialize)]
struct NewOrder {
    id: String,
    customer: String,
    city: String,
    items: Vec<Item>,
    currency: Currency,
}

/// The response to a client: a status and a sentence.
type Answer = (StatusCode, String);
/// An internal error. The client does not see its text.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, database: Arc<Database>, views: Arc<Views>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (database, views) = (Arc::clone(&database), Arc::clone(&views));
        let service = service_fn(move |request| respond(request, Arc::clone(&database), Arc::clone(&views)));
        let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        connections.spawn(connection);
        while connections.try_join_next().is_some() {}
    }
}

async fn respond(
    request: Request<Incoming>,
    database: Arc<Database>,
    views: Arc<Views>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = timeout(MAX_REQUEST, answer(request, &database, &views)).await;
    let (status, text) = answer.unwrap_or_else(|late| Err(late.into())).unwrap_or_else(|error| {
        tracing::error!(%error, "request failed");
        (StatusCode::INTERNAL_SERVER_ERROR, "try again later".to_owned())
    });
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    Ok(response)
}

async fn answer(request: Request<Incoming>, database: &Database, views: &Views) -> Result<Answer, Failed> {
    // The trace of the request travels with the event to its handlers.
    let trace = TraceContext::from_headers(|name| request.headers().get(name)?.to_str().ok());
    let path = request.uri().path().to_owned();
    let cancelled = path.strip_prefix("/orders/").and_then(|rest| rest.strip_suffix("/cancel"));
    match (request.method(), path.as_str(), cancelled) {
        (&Method::GET, path, _) => match path.strip_prefix("/items/") {
            Some(sku) => {
                views.add(sku).await?;
                Ok((StatusCode::OK, format!("{sku} is in stock")))
            }
            None => Ok((StatusCode::NOT_FOUND, "GET /items/SKU".to_owned())),
        },
        (&Method::POST, "/orders", _) => {
            let Ok(body) = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await else {
                return Ok((StatusCode::PAYLOAD_TOO_LARGE, format!("an order has at most {MAX_BODY_BYTES} bytes")));
            };
            match serde_json::from_slice(&body.to_bytes()) {
                Ok(order) => place(order, trace, database).await,
                Err(error) => Ok((StatusCode::BAD_REQUEST, error.to_string())),
            }
        }
        (&Method::POST, _, Some(id)) => cancel(id, trace, database).await,
        (_, _, _) => Ok((StatusCode::NOT_FOUND, "POST /orders or /orders/ID/cancel".to_owned())),
    }
}

async fn place(order: NewOrder, trace: Option<TraceContext>, database: &Database) -> Result<Answer, Failed> {
    let NewOrder { id, customer, city, items, currency } = order;
    let Some(total) = Amount::total(&items).filter(|_| !items.is_empty()) else {
        return Ok((StatusCode::BAD_REQUEST, "expected items with a price that can be paid".to_owned()));
    };
    let lines = serde_json::to_string(&items)?;
    let mut connection = database.connection().await?;
    let tx = connection.transaction().await?;
    let sql = "INSERT INTO orders (id, customer, city, items, total, currency)
               VALUES ($1, $2, $3, $4::text::jsonb, $5::text::numeric, $6) ON CONFLICT (id) DO NOTHING";
    let placed = tx.execute(sql, &[&id, &customer, &city, &lines, &total.to_string(), &currency.code()]).await?;
    if placed == 0 {
        return Ok((StatusCode::OK, format!("{id} was placed before")));
    }
    let created = OrderEvent::OrderCreated { customer, city, items, total, currency, created_at: now() };
    outbox::append(&tx, &Envelope::new(ORDER, &id, created).with_trace(trace)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, format!("{id} is placed: {total} {}", currency.code())))
}

async fn cancel(id: &str, trace: Option<TraceContext>, database: &Database) -> Result<Answer, Failed> {
    let mut connection = database.connection().await?;
    let tx = connection.transaction().await?;
    let sql = "UPDATE orders SET status = 'cancelled' WHERE id = $1 AND status = 'placed'";
    if tx.execute(sql, &[&id]).await? == 0 {
        return Ok((StatusCode::CONFLICT, format!("{id} cannot be cancelled")));
    }
    let cancelled = OrderEvent::OrderCancelled { reason: "by the customer".to_owned(), cancelled_at: now() };
    outbox::append(&tx, &Envelope::new(ORDER, id, cancelled).with_trace(trace)).await?;
    tx.commit().await?;
    Ok((StatusCode::OK, format!("{id} is cancelled")))
}
