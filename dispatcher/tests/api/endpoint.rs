//! A subscriber's endpoint: answers as it is told, and remembers what came.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};

/// How it answers everything.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    Says(u16, String),
    /// What it was sent.
    Echoes(u16),
    /// That, and something after it.
    EchoesMore,
    EchoesAfter(Duration),
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Endpoint {
    pub(crate) url: String,
    shared: Arc<Shared>,
    handle: ServerHandle,
}

struct Shared {
    manner: Mutex<Manner>,
    seen: Mutex<Vec<Seen>>,
}

impl Endpoint {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            manner: Mutex::new(Manner::Echoes(200)),
            seen: Mutex::default(),
        });
        let state = web::Data::from(Arc::clone(&shared));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(state.clone())
                .default_service(web::to(answer))
        })
        .workers(1)
        .disable_signals()
        .listen(listener)
        .unwrap()
        .run();
        let handle = server.handle();
        actix_rt::spawn(server);
        Self {
            url,
            shared,
            handle,
        }
    }

    pub(crate) fn answers(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

async fn answer(request: HttpRequest, body: Bytes, shared: web::Data<Shared>) -> HttpResponse {
    let headers = request.headers().iter().map(|(name, value)| {
        let value = value.to_str().unwrap_or_default();
        (name.as_str().to_owned(), value.to_owned())
    });
    let seen = Seen {
        headers: headers.collect(),
        body: body.to_vec(),
    };
    shared.seen.lock().unwrap().push(seen);
    let manner = shared.manner.lock().unwrap().clone();
    let (status, body) = match manner {
        Manner::Says(status, text) => (status, text.into_bytes()),
        Manner::Echoes(status) => (status, body.to_vec()),
        Manner::EchoesMore => (200, [&body[..], b"\n"].concat()),
        Manner::EchoesAfter(wait) => {
            tokio::time::sleep(wait).await;
            (200, body.to_vec())
        }
    };
    HttpResponse::build(StatusCode::from_u16(status).unwrap()).body(body)
}
