//! Certificates, and endpoints that have none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// A self-signed certificate for `endpoint.test`, 2020 to 2120, and its key. Guards nothing.
const CERTIFICATE: &str = "\
MIIBPTCB46ADAgECAgEBMAoGCCqGSM49BAMCMBgxFjAUBgNVBAMMDWVuZHBvaW50LnRlc3QwIBcNMjAwMTAxMDAw\
MDAwWhgPMjEyMDAxMDEwMDAwMDBaMBgxFjAUBgNVBAMMDWVuZHBvaW50LnRlc3QwWTATBgcqhkjOPQIBBggqhkjO\
PQMBBwNCAAQ59SXFhlWRSBcG1p8bav5y5lybDj0ngo6w35S7zsJFdXxCoYc80b2mXFetxC79K4LZmpsXdN2eGqlq\
ahsVI/1coxwwGjAYBgNVHREEETAPgg1lbmRwb2ludC50ZXN0MAoGCCqGSM49BAMCA0kAMEYCIQCrcN11oxFlU8vu\
GwKPblku98IvEH5C3fYVR8n5vLZOhwIhALXHYhrPLaOdr3VHbx5OT3oK5G6YkMVb3CYJpplymACg";
const CERTIFICATE_KEY: &str = "\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgHpmMmqMFlMZM12W16tt/J21//IETNIn6+CJnUOlx\
c2yhRANCAAQ59SXFhlWRSBcG1p8bav5y5lybDj0ngo6w35S7zsJFdXxCoYc80b2mXFetxC79K4LZmpsXdN2eGqlq\
ahsVI/1c";

fn tls_endpoint() -> SocketAddr {
    endpoint(|listener| {
        let certificate = STANDARD.decode(CERTIFICATE).unwrap().into();
        let key = STANDARD.decode(CERTIFICATE_KEY).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let session = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let stream = listener.accept().unwrap().0;
        let mut tls = rustls::StreamOwned::new(session, stream);
        if read_request(&mut tls).is_some() {
            tls.write_all(OK.as_bytes()).unwrap();
        }
    })
}

#[tokio::test]
async fn a_certificate_counts_only_when_trusted_and_for_its_name() {
    let roots = [STANDARD.decode(CERTIFICATE).unwrap()];
    let cases = [
        ("endpoint.test", &roots[..], None),
        ("endpoint.test", &[], Some(FailureKind::Tls)),
        ("other.test", &roots, Some(FailureKind::Tls)),
    ];
    for (host, roots, failure) in cases {
        let resolver = lookups(&[&["127.0.0.1"]]);
        let guard = guard(&["127.0.0.0/8"]);
        let client = GuardedClient::with_extra_roots(guard, resolver, "Carillon/test", roots);
        let port = tls_endpoint().port();
        let result = post(
            &client.unwrap(),
            &url(&format!("https://{host}:{port}/?s3cret")),
        )
        .await;
        match (result, failure) {
            (Ok(head), None) => assert_eq!(head.status, 200),
            (Err(error), Some(kind)) => {
                assert_eq!(error.kind, kind, "{error}");
                assert!(error.detail.contains("certificate"), "{error}");
                assert!(!error.detail.contains("s3cret"), "{error}");
            }
            (result, _) => panic!("{host}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_tls_is_a_tls_failure() {
    let serves: [fn(TcpListener); 2] = [
        |listener| {
            let mut stream = listener.accept().unwrap().0;
            stream.peek(&mut [0]).unwrap();
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
            wait_for_end(&mut stream);
        },
        // Reads the client's hello, and hangs up in good order.
        |listener| {
            let mut stream = listener.accept().unwrap().0;
            stream.read_exact(&mut [0; 5]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            wait_for_end(&mut stream);
        },
    ];
    for serve in serves {
        let url = url(&format!("https://{}/", endpoint(serve)));
        let error = failure(&local_client(), &url).await;
        assert_eq!(error.kind, FailureKind::Tls, "{error}");
    }
}
