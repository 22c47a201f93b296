//! Which endpoints may be created, and which are called.

use proptest::prelude::*;

use super::*;

proptest! {
    /// The two libraries have notions of their own of what a URL may contain.
    #[test]
    fn every_endpoint_url_can_be_sent_to(
        host in "[!-.0-~ä]{1,12}",
        rest in "(/[!-~ä]{0,20}){0,2}(\\?[!-~ä]{0,20})?",
    ) {
        if let Ok(url) = EndpointUrl::parse(&format!("https://{host}{rest}")) {
            let uri = url.as_str().parse::<hyper::Uri>();
            prop_assert!(uri.is_ok(), "{}: {uri:?}", url.as_str());
        }
    }
}

#[tokio::test]
async fn private_literals_are_refused_at_creation_and_at_sending() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = client(&[], lookups(&[&["93.184.216.34"]]));
    for host in [
        "127.0.0.1",
        "10.0.0.1",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "0x7f.1",
        "2130706433",
        "0",
    ] {
        let url = url(&format!("https://{host}:{port}/"));
        let refused = client.check_endpoint(&url, HttpsRule::Any).await;
        assert!(
            matches!(refused, Err(EndpointRefused::RefusedAddress { .. })),
            "{host}"
        );
        assert_eq!(
            failure(&client, &url).await.kind,
            FailureKind::RefusedAddress,
            "{host}"
        );
    }
    assert!(never_contacted(&listener));
}

#[tokio::test]
async fn a_name_that_turns_private_later_is_refused_at_connect_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = client(
        &[],
        lookups(&[&["93.184.216.34"], &["127.0.0.1", "::ffff:10.0.0.1"]]),
    );
    let url = url(&format!("https://endpoint.test:{port}/?token=s3cret"));
    let checked = client
        .check_endpoint(&url, HttpsRule::RequiredUnlessExcepted)
        .await;
    assert_eq!(checked, Ok(()));
    let error = failure(&client, &url).await;
    assert_eq!(error.kind, FailureKind::RefusedAddress);
    assert_eq!(
        error.detail,
        "endpoint.test is, or resolves to, an address that is not public"
    );
    assert!(never_contacted(&listener));
}

#[tokio::test]
async fn of_a_mixed_lookup_only_permitted_addresses_are_called() {
    // Addresses of its own: no other test can hold the second one's port.
    let refused = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = refused.local_addr().unwrap().port();
    let permitted = TcpListener::bind(("127.0.0.3", port)).unwrap();
    std::thread::spawn(move || {
        let mut stream = permitted.accept().unwrap().0;
        read_request(&mut stream);
        stream.write_all(OK.as_bytes()).unwrap();
    });
    let client = client(&["127.0.0.3/32"], lookups(&[&["127.0.0.2", "127.0.0.3"]]));
    let url = url(&format!("http://endpoint.test:{port}/"));
    assert_eq!(post(&client, &url).await.unwrap().status, 200);
    assert!(never_contacted(&refused));
    let checked = client.check_endpoint(&url, HttpsRule::Any).await;
    assert!(
        matches!(checked, Err(EndpointRefused::RefusedAddress { .. })),
        "{checked:?}"
    );
}

#[tokio::test]
async fn a_name_without_an_address_is_a_dns_failure() {
    let client = client(&[], lookups(&[&[]]));
    let url = url("https://endpoint.test/?token=s3cret");
    let error = failure(&client, &url).await;
    assert_eq!(
        (error.kind, error.detail.as_str()),
        (FailureKind::Dns, "no such host")
    );
    let checked = client
        .check_endpoint(&url, HttpsRule::Any)
        .await
        .unwrap_err();
    assert_eq!(
        checked.to_string(),
        "the host name endpoint.test does not resolve"
    );
}

#[tokio::test]
async fn new_endpoints_need_https_unless_every_address_is_excepted() {
    use HttpsRule::{Any, RequiredUnlessExcepted as Required};
    let public: &[&str] = &["93.184.216.34", "2606:4700::1111"];
    let local: &[&str] = &["127.0.0.1", "127.0.0.2"];
    let mixed: &[&str] = &["127.0.0.1", "93.184.216.34"];
    let https_required = || Err(EndpointRefused::HttpsRequired);
    let cases = [
        ("https://endpoint.test/", public, Required, Ok(())),
        ("http://endpoint.test/", public, Required, https_required()),
        ("http://endpoint.test/", public, Any, Ok(())),
        ("http://endpoint.test/", local, Required, Ok(())),
        ("http://endpoint.test/", mixed, Required, https_required()),
        ("https://endpoint.test/", mixed, Required, Ok(())),
        ("http://93.184.216.34/", local, Required, https_required()),
        ("http://127.0.0.1:8080/", public, Required, Ok(())),
        ("http://[::ffff:127.0.0.1]/", public, Required, Ok(())),
    ];
    for (text, addresses, rule, expected) in cases {
        let client = client(&["127.0.0.0/8"], lookups(&[addresses]));
        let checked = client.check_endpoint(&url(text), rule).await;
        assert_eq!(checked, expected, "{text} {addresses:?} {rule:?}");
    }
    let client = client(&[], lookups(&[&["93.184.216.34", "10.0.0.1"]]));
    let checked = client
        .check_endpoint(&url("https://endpoint.test/"), Any)
        .await;
    let (host, address) = ("endpoint.test".to_owned(), "10.0.0.1".parse().unwrap());
    assert_eq!(
        checked,
        Err(EndpointRefused::RefusedAddress { host, address })
    );
}

#[tokio::test]
async fn the_system_resolver_answers_and_its_answer_is_guarded() {
    let localhost = SystemResolver
        .resolve("localhost".to_owned())
        .await
        .unwrap();
    assert!(localhost.iter().all(IpAddr::is_loopback), "{localhost:?}");
    let client = client(&[], Arc::new(SystemResolver));
    let url = url("https://localhost/");
    let checked = client.check_endpoint(&url, HttpsRule::Any).await;
    assert!(
        matches!(checked, Err(EndpointRefused::RefusedAddress { .. })),
        "{checked:?}"
    );
    assert_eq!(
        failure(&client, &url).await.kind,
        FailureKind::RefusedAddress
    );
}
