//! What an attempt comes to, answer by answer.

use super::*;

#[tokio::test]
async fn a_post_goes_out_as_given_and_its_answer_is_fixed_at_the_head() {
    let (url, requests) = answering(OK);
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_static("evt_1"));
    let body = Bytes::from_static(b"{\"a\":1}");
    let head = local_client()
        .post(&url, headers, body, AMPLE)
        .await
        .unwrap();
    assert_eq!(
        head,
        ResponseHead {
            status: 200,
            answer: Bytes::new(),
        }
    );
    let (_, request) = requests.recv().unwrap();
    assert!(
        request.starts_with("POST /hook?token=s3cret HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.ends_with("\r\n\r\n{\"a\":1}"), "{request}");
    for header in [
        "webhook-id: evt_1",
        "user-agent: Carillon/test",
        "accept-encoding: identity",
        "content-length: 7",
    ] {
        assert!(
            request.contains(&format!("\r\n{header}\r\n")),
            "{header} in {request}"
        );
    }
    assert!(!request.contains("referer"), "{request}");
}

#[tokio::test]
async fn of_other_answers_one_kibibyte_is_kept() {
    let long = "x".repeat(5_000);
    let cut = "x".repeat(1_024);
    let cases = [
        ("204 No Content", "\r\n", ""),
        (
            "500 Oops",
            &format!("content-length: 5000\r\n\r\n{long}"),
            &cut,
        ),
        (
            "503 Busy",
            "transfer-encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n",
            "busy",
        ),
        ("410 Gone", "content-length: 0\r\n\r\n", ""),
    ];
    let client = local_client();
    for (status, rest, answer) in cases {
        let (url, _requests) = answering(format!("HTTP/1.1 {status}\r\n{rest}"));
        let head = post(&client, &url).await.unwrap();
        assert!(status.starts_with(&head.status.to_string()), "{status}");
        assert_eq!(head.answer, answer, "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_heard_of_429_and_503_alone() {
    let date = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let now = Timestamp::from_millis(784_111_777_000);
    let in_a_minute = "retry-after: Sun, 06 Nov 1994 08:50:37 GMT\r\n";
    let an_hour_ahead = "date: Sun, 06 Nov 1994 09:49:37 GMT\r\n";
    let in_an_hour_and_a_minute = "retry-after: Sun, 06 Nov 1994 09:50:37 GMT\r\n";
    let long = format!("retry-after: {}\r\n", "1".repeat(200));
    let cases = [
        (429, "retry-after: 120\r\n".to_owned(), Some(120_000)),
        (503, "Retry-After: 0\r\n".into(), Some(0)),
        (503, "retry-after: 90000\r\n".into(), Some(86_400_000)),
        (503, in_a_minute.into(), Some(60_000)),
        (503, format!("{date}{in_a_minute}"), Some(60_000)),
        (
            429,
            format!("{an_hour_ahead}{in_an_hour_and_a_minute}"),
            Some(60_000),
        ),
        (429, String::new(), None),
        (429, "retry-after: soon\r\n".into(), None),
        (429, "retry-after: \u{fc}\r\n".into(), None),
        (429, long, None),
        (200, "retry-after: 120\r\n".into(), None),
        (301, "retry-after: 120\r\n".into(), None),
        (410, "retry-after: 120\r\n".into(), None),
        (500, "retry-after: 120\r\n".into(), None),
    ];
    let client = local_client();
    for (status, headers, expected) in cases {
        let response = format!("HTTP/1.1 {status} X\r\n{headers}content-length: 0\r\n\r\n");
        let (url, _requests) = answering(response);
        let answer = client
            .send(&url, HeaderMap::new(), Bytes::new(), AMPLE)
            .await;
        let answer = answer.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(answer.status(), status);
        assert_eq!(answer.retry_after_ms(now), expected, "{status} {headers}");
    }
}

#[tokio::test]
async fn redirects_are_answers_and_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = elsewhere.local_addr().unwrap();
    for status in [301, 302, 303, 307, 308] {
        let (url, _requests) = answering(format!(
            "HTTP/1.1 {status} Moved\r\nlocation: http://{target}/\r\ncontent-length: 0\r\n\r\n"
        ));
        assert_eq!(post(&local_client(), &url).await.unwrap().status, status);
    }
    assert!(never_contacted(&elsewhere));
}

#[tokio::test]
async fn connections_are_used_again_after_success_and_failure() {
    for response in [OK, "HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops"] {
        let (url, requests) = answering(response);
        let client = local_client();
        for _ in 0..3 {
            post(&client, &url).await.unwrap();
            assert_eq!(requests.recv().unwrap().0, 0, "the first connection");
        }
    }
}

#[tokio::test]
async fn a_hanging_endpoint_is_a_timeout() {
    let address = endpoint(|listener| wait_for_end(&mut listener.accept().unwrap().0));
    let url = url(&format!("http://{address}/?token=s3cret"));
    let within = Duration::from_millis(200);
    let result = local_client()
        .post(&url, HeaderMap::new(), Bytes::new(), within)
        .await;
    let error = result.unwrap_err();
    assert_eq!(error.kind, FailureKind::Timeout);
    assert_eq!(error.detail, "no response head within 200 ms");
}

#[tokio::test]
async fn a_connection_that_ends_before_the_head_is_a_reset() {
    let serves: [fn(TcpListener); 3] = [
        |listener| {
            read_request(&mut listener.accept().unwrap().0);
        },
        // Closing with the request unread makes the system send RST.
        |listener| {
            let stream = listener.accept().unwrap().0;
            stream.peek(&mut [0]).unwrap();
        },
        |listener| {
            let mut stream = listener.accept().unwrap().0;
            read_request(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").unwrap();
        },
    ];
    for serve in serves {
        let url = url(&format!("http://{}/?token=s3cret", endpoint(serve)));
        let error = failure(&local_client(), &url).await;
        assert_eq!(error.kind, FailureKind::Reset, "{error}");
        assert!(!error.detail.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_protocol_failure() {
    for answer in ["SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 2000 OK\r\n\r\n"] {
        let (url, _requests) = answering(answer);
        let error = failure(&local_client(), &url).await;
        assert_eq!(error.kind, FailureKind::Protocol, "{answer}: {error}");
        assert!(!error.detail.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn a_closed_port_is_a_connect_failure() {
    // An address of its own, so that no other test takes the port once it is free.
    let freed = TcpListener::bind("127.0.0.4:0").unwrap();
    let address = freed.local_addr().unwrap();
    drop(freed);
    let error = failure(
        &local_client(),
        &url(&format!("http://{address}/?token=s3cret")),
    )
    .await;
    assert_eq!(error.kind, FailureKind::Connect);
    assert!(error.detail.contains("refused"), "{error}");
    assert!(!error.detail.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_body_that_never_ends_changes_nothing_and_holds_nothing() {
    let heads = [
        // Stalls after the head; what came of a failure's answer is kept.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            200,
            "",
            false,
        ),
        (
            "HTTP/1.1 500 Oops\r\ncontent-length: 10\r\n\r\nhalf",
            500,
            "half",
            false,
        ),
        // Floods.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n",
            200,
            "",
            true,
        ),
    ];
    for (head, status, answer, floods) in heads {
        let (ended, end) = channel();
        let address = endpoint(move |listener| {
            let mut stream = listener.accept().unwrap().0;
            read_request(&mut stream);
            stream.write_all(head.as_bytes()).unwrap();
            while floods && stream.write_all(&[b'x'; 4096]).is_ok() {}
            wait_for_end(&mut stream);
            ended.send(()).unwrap();
        });
        let url = url(&format!("http://{address}/"));
        let result = post(&local_client(), &url).await.unwrap();
        assert_eq!(
            (result.status, &result.answer[..]),
            (status, answer.as_bytes())
        );
        let ended = tokio::task::spawn_blocking(move || end.recv_timeout(AMPLE));
        ended.await.unwrap().expect("the connection is given up");
    }
}

#[tokio::test]
async fn the_head_is_known_before_the_body() {
    let (go_on, wait) = channel();
    let address = endpoint(move |listener| {
        let mut stream = listener.accept().unwrap().0;
        read_request(&mut stream);
        stream
            .write_all(b"HTTP/1.1 502 Bad\r\ncontent-length: 4\r\n\r\n")
            .unwrap();
        wait.recv().unwrap();
        stream.write_all(b"late").unwrap();
    });
    let url = url(&format!("http://{address}/"));
    let sent = local_client()
        .send(&url, HeaderMap::new(), Bytes::new(), AMPLE)
        .await;
    let answer = sent.unwrap();
    assert_eq!(answer.status(), 502);
    go_on.send(()).unwrap();
    assert_eq!(answer.keep().await.answer, "late");
}
