//! Endpoints over TLS, with a certificate for 127.0.0.1 that guards nothing.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::{Answer, Speaks, State};
use crate::wire::Message;

/// Self-signed, 2020 to 2120.
const CERTIFICATE: &str = "\
MIIBSzCB8aADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCTEyNy4wLjAuMTAgFw0yMDAxMDEwMDAwMDBa\
GA8yMTIwMDEwMTAwMDAwMFowFDESMBAGA1UEAwwJMTI3LjAuMC4xMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\
Zr+/U5frJba7K0sK8+oIwCxmOKdK/e4FjhwFfk1xbdXGHBAOMCS+Hf9U3v7533xFRe700txTItvUDMJQU+SKpaMy\
MDAwDwYDVR0RBAgwBocEfwAAATAdBgNVHQ4EFgQUi+b4I9Y06xJZ5qH+T2XzZMNADhswCgYIKoZIzj0EAwIDSQAw\
RgIhAJCGJdLXGrKEmSAiVvFjTEl1NjNiw64pdGx6Z73xrwwrAiEA/SahAQkd/cGLP6QoumzBTYyw1rQcrkm1ccXU\
MPeiYqI=";
const CERTIFICATE_KEY: &str = "\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjg/1UoumsfceJj8bJxiZuSOxhACVbrCLphgldZI/\
y8ahRANCAARmv79Tl+sltrsrSwrz6gjALGY4p0r97gWOHAV+TXFt1cYcEA4wJL4d/1Te/vnffEVF7vTS3FMi29QM\
wlBT5Iql";

/// The certificate for those who are to trust it.
pub(crate) fn certificate_pem() -> String {
    format!("-----BEGIN CERTIFICATE-----\n{CERTIFICATE}\n-----END CERTIFICATE-----\n")
}

/// `None` without TLS.
pub(super) fn server_config(speaks: Speaks) -> Result<Option<Arc<ServerConfig>>> {
    let protocol: &[u8] = match speaks {
        Speaks::Plain => return Ok(None),
        Speaks::Tls1 => b"http/1.1",
        Speaks::Tls2 => b"h2",
    };
    let certificate = STANDARD.decode(CERTIFICATE)?.into();
    let key = PrivatePkcs8KeyDer::from(STANDARD.decode(CERTIFICATE_KEY)?).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Some(Arc::new(config)))
}

/// Requests of one connection.
pub(super) async fn exchange(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    speaks: Speaks,
    state: State,
) -> Result<()> {
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    match speaks {
        Speaks::Plain | Speaks::Tls1 => super::exchange(stream, state).await,
        Speaks::Tls2 => exchange_streams(stream, state).await,
    }
}

/// Requests side by side, as HTTP/2 has them.
async fn exchange_streams(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    state: State,
) -> Result<()> {
    let mut connection = h2::server::handshake(stream).await?;
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(accepted) = accepted else {
                    return Ok(());
                };
                let (request, respond) = accepted?;
                under_way.push(answer(request, respond, &state));
            }
            // One that was reset is its client's affair.
            Some(_ended) = under_way.next() => {}
        }
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<bytes::Bytes>,
    state: &State,
) -> Result<()> {
    let (head, mut incoming) = request.into_parts();
    let mut body = BytesMut::new();
    while let Some(part) = incoming.data().await {
        let part = part?;
        incoming.flow_control().release_capacity(part.len())?;
        body.extend_from_slice(&part);
    }
    // As it would stand in a request of HTTP/1.1.
    let first_line = format!("POST {} ", head.uri.path());
    let message = Message {
        head: first_line.as_bytes(),
        body: &body,
    };
    match state.answer(message) {
        Answer::After(delay) => sleep(delay).await,
        Answer::NoContent | Answer::Text(_) => {}
    }
    let response = http::Response::builder().status(204).body(());
    respond.send_response(response.context("an answer")?, true)?;
    Ok(())
}
