//! The ops listener: `/livez`, `/readyz`, `/metrics`. It is up before anything else, so that a
//! process that waits for JetStream can be told from one that is gone.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App, HttpResponse, HttpServer, web};
use metrics_exporter_prometheus::PrometheusHandle;

/// Why the process is not ready, if it is not.
pub type Readiness = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

struct Ops {
    metrics: PrometheusHandle,
    ready: Readiness,
}

/// Serves until the returned server is stopped.
pub fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    ready: Readiness,
) -> std::io::Result<Server> {
    let ops = web::Data::new(Ops { metrics, ready });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(ops.clone())
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/metrics", web::get().to(metrics_text))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .client_request_timeout(Duration::from_secs(5))
    .listen(listener)?
    .run();
    Ok(server)
}

async fn livez() -> HttpResponse {
    HttpResponse::Ok().body("live\n")
}

async fn readyz(ops: web::Data<Ops>) -> HttpResponse {
    match (ops.ready)() {
        Ok(()) => HttpResponse::Ok().body("ready\n"),
        Err(reason) => HttpResponse::ServiceUnavailable().body(format!("{reason}\n")),
    }
}

async fn metrics_text(ops: web::Data<Ops>) -> HttpResponse {
    // Drains the histograms' buffers into their buckets, so that they stay bounded.
    ops.metrics.run_upkeep();
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(ops.metrics.render())
}
