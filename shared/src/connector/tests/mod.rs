mod callbacks;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::mapping::map_unguarded;
use super::*;
use crate::limits::CALLBACK_BODY_BYTES_MAX;

const BAMBOOHR: &str = EMBEDDED[0].1;

/// Loaded once, as in a service.
fn connectors() -> &'static Connectors {
    static CONNECTORS: LazyLock<Connectors> = LazyLock::new(|| Connectors::embedded().unwrap());
    &CONNECTORS
}

/// A connector with the given program that may emit `ats_jobs.created`.
fn with_program(program: &str) -> Connector {
    let text = format!(
        r#"
        provider = "acme"
        name = "Acme"
        signing_secret = "generated"
        events = ["ats_jobs.created"]
        verification = {{ token = {{ header = "x-token" }} }}
        mapping = {{ program = '''{program}''' }}
        "#
    );
    Connector::parse("acme", &text).unwrap()
}

/// Maps without the bulkhead, so that a panic of jaq fails the test.
fn map(connector: &Connector, body: &[u8]) -> Result<Vec<MappedEvent>, MapError> {
    let headers = [
        ("x-sent".to_owned(), "1".to_owned()),
        ("x-sent".to_owned(), "2".to_owned()),
    ];
    let callback = Callback {
        method: "POST",
        query: "a=1&a=2&b=%C3%A9+x",
        headers: &headers,
        body,
    };
    map_unguarded(&connector.program, &connector.file.events, &callback)
}

fn mapped(program: &str, body: &str) -> Vec<MappedEvent> {
    map(&with_program(program), body.as_bytes()).unwrap()
}

#[test]
fn connectors_are_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Connectors>();
}

#[test]
fn embedded_connectors_say_what_accounts_need() {
    let connectors = connectors();
    let providers: Vec<&str> = connectors.iter().map(Connector::provider).collect();
    assert_eq!(providers, ["bamboohr", "greenhouse"]);
    let source = |provider| connectors.get(provider).unwrap().signing_secret();
    assert_eq!(source("bamboohr"), SigningSecretSource::Given);
    assert_eq!(source("greenhouse"), SigningSecretSource::Generated);
    assert!(
        connectors
            .iter()
            .all(|connector| connector.success_status() == 200)
    );
    assert!(connectors.get("acme").is_none());
}

#[test]
fn mistakes_in_a_file_are_found_at_load_and_named() {
    for (from, to, expected) in [
        ("name = \"BambooHR\"", "", "missing field `name`"),
        ("name = \"BambooHR\"", "name = \"\"", "f: name: "),
        (
            "success_status = 200",
            "sucess_status = 200",
            "unknown field `sucess_status`",
        ),
        (
            "success_status = 200",
            "success_status = 302",
            "f: success_status: ",
        ),
        (
            "provider = \"bamboohr\"",
            "provider = \"Bamboo HR\"",
            "f: provider: ",
        ),
        ("\"given\"", "\"taken\"", "unknown variant `taken`"),
        (
            "hris_employees.created\",",
            "hris_employees.made\",",
            "f: events[0]: is not in the catalog",
        ),
        (
            "hris_employees.created\",",
            "acme_employees.created\",",
            "f: events[0]: is not in the catalog",
        ),
        (
            "hris_employees.created\",",
            "EmployeeCreated\",",
            "f: events[0]: is not in the catalog",
        ),
        (
            "hris_employees.created\",",
            "account.created\",",
            "f: events[0]: is a type that only Carillon itself sends",
        ),
        (
            "hris_employees.created\",",
            "webhook.failing\",",
            "f: events[0]: is a type that only Carillon itself sends",
        ),
        (
            "provider = \"bamboohr\"",
            "provider = \"first_party\"",
            "f: provider: is a name that Carillon itself uses",
        ),
        (
            "provider = \"bamboohr\"",
            "provider = \"account\"",
            "f: provider: is a name that Carillon itself uses",
        ),
        (
            "\"hris_employees.created\", ",
            "\"hris_employees.deleted\", ",
            "f: events[2]: is there twice",
        ),
        ("[\"body\", ", "[", "f: verification.hmac.message: "),
        (
            "x-bamboohr-timestamp\" }]",
            "X-BambooHR-Timestamp\" }]",
            "f: verification.hmac.message: ",
        ),
        ("\"sha256\"", "\"md5\"", "unknown variant `md5`"),
        (
            "ascii_downcase",
            "ascii_dwncase",
            "f: mapping.program: undefined filter \"ascii_dwncase\"",
        ),
        (".headers[", ".headers[[", "f: mapping.program: expected "),
        (".headers[", "\"", "f: mapping.program: expected "),
    ] {
        let text = BAMBOOHR.replacen(from, to, 1);
        assert_ne!(text, BAMBOOHR, "{from}");
        let error = Connector::parse("f", &text).unwrap_err().to_string();
        assert!(
            error.starts_with("f: ") && error.contains(expected),
            "{to}: {error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_program_sees_body_headers_and_query() {
    let events = mapped(
        r#"{event: "ats_jobs.created", record_id: .body.id, dedup: .headers["x-sent"], event_data: .query}"#,
        r#"{"id": 18446744073709551615}"#,
    );
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(event.record_id, "18446744073709551615");
    assert_eq!(event.dedup.as_deref(), Some("1, 2"));
    assert_eq!(
        event.event_data.as_ref().unwrap().get(),
        r#"{"a":"1","b":"é x"}"#
    );
}

#[test]
fn a_program_reaches_nothing_but_its_input() {
    for code in [
        "now",
        "env",
        "$ENV",
        "input",
        "inputs",
        "halt",
        "halt(1)",
        "halt_error",
        "debug",
        "stderr",
        "fromjson",
        "tonumber",
        "import \"a\" as a; .",
        "include \"a\"; .",
        "input_filename",
        "localtime",
        "@sh \"\\(.)\"",
        "test(\"a\")",
    ] {
        assert!(Program::compile(code).is_err(), "{code}");
    }
}

#[test]
fn record_ids_are_text_or_whole_numbers() {
    let program = r#"{event: "ats_jobs.created", record_id: .body.id}"#;
    for (id, expected) in [
        ("7", Some("7")),
        ("-7", Some("-7")),
        ("\"x 7\"", Some("x 7")),
        ("\"\"", None),
        ("\" \"", None),
        ("null", None),
        ("7.5", None),
        // Longer than 64 bits: read as a fraction, and two such ids could look the same.
        ("123456789012345678901", None),
        ("true", None),
        ("[7]", None),
        ("{}", None),
    ] {
        let result = map(
            &with_program(program),
            format!("{{\"id\":{id}}}").as_bytes(),
        );
        let found = result.as_ref().map(|events| events[0].record_id.as_str());
        let error = MapError::RecordId {
            event: "ats_jobs.created".to_owned(),
        };
        assert_eq!(found, expected.ok_or(&error), "{id}");
    }
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(513));
    assert!(matches!(
        map(&with_program(program), long.as_bytes()),
        Err(MapError::RecordId { .. })
    ));
}

#[test]
fn times_are_read_leniently_and_never_refused() {
    let program = r#"{event: "ats_jobs.created", record_id: 1, occurred_at: .body}"#;
    for (at, expected) in [
        (
            "\"2026-01-31T18:42:00+0000\"",
            Some("2026-01-31T18:42:00.000Z"),
        ),
        (
            "\"2026-01-31T18:42:00+01:00\"",
            Some("2026-01-31T17:42:00.000Z"),
        ),
        (
            "\"2026-01-31T18:42:00.123456Z\"",
            Some("2026-01-31T18:42:00.123Z"),
        ),
        ("\"2026-01-31T18:42:00\"", Some("2026-01-31T18:42:00.000Z")),
        ("\"2026-01-31 18:42:00\"", Some("2026-01-31T18:42:00.000Z")),
        ("1769884920", Some("2026-01-31T18:42:00.000Z")),
        ("9223372036854775807", None),
        ("18446744073709551615", None),
        ("1.5", None),
        ("\"soon\"", None),
        ("\"\"", None),
        ("null", None),
        ("{}", None),
    ] {
        let found = mapped(program, at)[0]
            .occurred_at
            .map(|time| time.to_string());
        assert_eq!(found.as_deref(), expected, "{at}");
    }
}

#[test]
fn dedup_names_the_change_or_is_absent() {
    let program = r#"{event: "ats_jobs.created", record_id: 1, dedup: .body}"#;
    for (dedup, expected) in [
        ("null", None),
        ("\"\"", None),
        ("\"x\"", Some("x")),
        ("7", Some("7")),
        ("false", Some("false")),
        (
            r#"{"b": 1, "a": [null, 1.50]}"#,
            Some(r#"{"a":[null,1.5],"b":1}"#),
        ),
    ] {
        assert_eq!(
            mapped(program, dedup)[0].dedup.as_deref(),
            expected,
            "{dedup}"
        );
    }
}

/// What programs ask for most is not written in jq, yet says what these would.
#[test]
fn text_and_omit_missing_are_as_their_definitions_in_jq() {
    let program = r#"
        def text_by_jq: if isstring and . != "" then . elif isnumber then tostring else null end;
        def omit_by_jq: with_entries(select(.value | . != null and . != "" and . != [] and . != {}));
        .body[] | {event: "ats_jobs.created", record_id: 1, event_data: {
            text: [text, text_by_jq],
            omitted: (if isobject then [omit_missing, omit_by_jq] else [0, 0] end),
            raises: [try (omit_missing | false) catch true]
        }}"#;
    let body = r#"[null, true, "", "a", " ", 0, -0, 1, 1.50, -2.5e-7, 1e100, 12345678901234567890123,
        [], [1], {}, {"z": 1, "a": "", "b": null, "c": [], "d": {}, "e": false, "f": 0, "g": [0], "h": {"i": null}}]"#;
    let events = mapped(program, body);
    assert_eq!(events.len(), 16);
    for event in events {
        let data: serde_json::Value =
            serde_json::from_str(event.event_data.unwrap().get()).unwrap();
        for what in ["text", "omitted"] {
            assert_eq!(
                data[what][0].to_string(),
                data[what][1].to_string(),
                "{data}"
            );
        }
        let is_object = data["omitted"][0].is_object();
        assert_eq!(data["raises"][0], !is_object, "{data}");
    }
}

/// Likewise what names several fields, or asks for a value's kind.
#[test]
fn functions_over_values_are_as_their_definitions_in_jq() {
    let program = r#"
        def one_of(values): . as $x | any(values; . == $x);
        def joined($by): reduce .[] as $x (null; if . == null then "" else . + $by end
            + ($x | if . == null then "" elif isstring then . else tostring end)) // "";
        def is(kind): isstring == (kind == "string") and isarray == (kind == "array")
            and isobject == (kind == "object");
        def named: {new: (.old | text), same: (.same | text)} | omit_missing;
        .body[] | {event: "ats_jobs.created", record_id: 1, event_data: {
            in: [IN(1, "a", null, [1], {"same": 1}), one_of(1, "a", null, [1], {"same": 1})],
            among_none: [IN(empty), false],
            kinds: [is(type), true],
            strings: [[strings], [select(type == "string")]],
            arrays: [[arrays], [select(type == "array")]],
            texts: [try texts("new=old same") catch "raised", try named catch "raised"],
            paths: [(try ((.. | strings) |= 1) catch "raised"), (try ((.. | select(type == "string")) |= 1) catch "raised")],
            join: [try join(", ") catch "raised",
                if isarray and all(.[]; IN(objects, arrays) | not) then joined(", ") else "raised" end]
        }}"#;
    let body = r#"[null, true, "", "a", 0, 1, 1.50, [], [1], ["a", 1.5, null, true, ""], [null], [[1]], [{}],
        {}, {"same": 1}, {"old": "o", "same": 2, "other": 3}, {"old": null, "same": ""}, {"old": ["x"]}]"#;
    let events = mapped(program, body);
    assert_eq!(events.len(), 18);
    for event in events {
        let data: serde_json::Value =
            serde_json::from_str(event.event_data.unwrap().get()).unwrap();
        for (what, both) in data.as_object().unwrap() {
            assert_eq!(both[0], both[1], "{what} in {data}");
        }
    }
}

#[test]
fn event_data_keeps_the_order_that_the_program_gave() {
    let program = r#"{event: "ats_jobs.created", record_id: 1, event_data: ({z: .body, a: 1.50, n: null, e: ""} | omit_missing)}"#;
    let events = mapped(
        program,
        r#"{"k":"<é\u0007\"\ud83d\ude00","f":-0.25,"big":18446744073709551615}"#,
    );
    let data = events[0].event_data.as_ref().unwrap().get();
    assert_eq!(
        data,
        r#"{"z":{"k":"<é\u0007\"😀","f":-0.25,"big":18446744073709551615},"a":1.5}"#
    );
}

#[test]
fn invalid_outputs_are_the_connectors_fault_and_quote_nothing() {
    for (output, expected) in [
        ("7", MapError::InvalidOutput("not an object")),
        (
            r#"{event: "ats_jobs.updated", record_id: 1}"#,
            MapError::InvalidOutput("an event that the connector does not declare"),
        ),
        (
            r#"{record_id: 1}"#,
            MapError::InvalidOutput("an event that the connector does not declare"),
        ),
        (
            r#"{event: "ats_jobs.created", record_id: 1, data: {}}"#,
            MapError::InvalidOutput("an unknown field"),
        ),
        (
            r#"{event: "ats_jobs.created", record_id: 1, event_data: []}"#,
            MapError::InvalidOutput("event_data is no object"),
        ),
        (
            r#"{event: "ats_jobs.created", record_id: 1, event_data: {a: (0 / 0)}}"#,
            MapError::InvalidOutput("a value that JSON cannot say"),
        ),
        (
            r#"{event: "ats_jobs.created", record_id: 1, event_data: {(.body): 1}}"#,
            MapError::InvalidOutput("a value that JSON cannot say"),
        ),
        (r#"error("the payload")"#, MapError::Failed),
        (".body.a", MapError::Failed),
    ] {
        assert_eq!(
            map(&with_program(output), b"[1]").unwrap_err(),
            expected,
            "{output}"
        );
    }
}

#[test]
fn bodies_that_are_no_json_are_refused() {
    let deep = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    let identity = with_program("empty");
    for body in [
        &b""[..],
        b"{",
        b"a=1&b=2",
        b"{} {}",
        b"\"\xff\"",
        b"NaN",
        b"\xef\xbb\xbf{}",
        &deep(128),
        &deep(500_000),
        &vec![b'['; 1 << 20],
    ] {
        assert_eq!(map(&identity, body).unwrap_err(), MapError::NotJson);
    }
    assert!(map(&identity, &deep(127)).unwrap().is_empty());
    let long = vec![b' '; CALLBACK_BODY_BYTES_MAX + 1];
    assert_eq!(map(&identity, &long).unwrap_err(), MapError::TooLarge);
}

#[test]
fn outputs_are_limited_in_number_and_size() {
    let events =
        |count: usize| format!(r#"range({count}) | {{event: "ats_jobs.created", record_id: .}}"#);
    assert_eq!(mapped(&events(1_000), "0").len(), EVENTS_PER_CALLBACK_MAX);
    assert_eq!(
        map(&with_program(&events(1_001)), b"0").unwrap_err(),
        MapError::TooMuch
    );
    let endless = r#"repeat({event: "ats_jobs.created", record_id: "1"})"#;
    assert_eq!(
        map(&with_program(endless), b"0").unwrap_err(),
        MapError::TooMuch
    );

    let body = format!("\"{}\"", "x".repeat(1_000_000));
    for field in ["dedup: .body", "event_data: {a: .body}", "dedup: [.body]"] {
        let copies = |count: usize| {
            let program = format!(
                r#". as {{$body}} | range({count}) as $i | {{body: $body}} | {{event: "ats_jobs.created", record_id: "1", {field}}}"#
            );
            map(&with_program(&program), body.as_bytes()).map(|events| events.len())
        };
        assert_eq!(copies(8), Ok(8), "{field}");
        assert_eq!(copies(9), Err(MapError::TooMuch), "{field}");
    }
    let nested = r#"{event: "ats_jobs.created", record_id: 1, event_data: (reduce range(200) as $i ({}; {a: .}))}"#;
    assert_eq!(
        map(&with_program(nested), b"0").unwrap_err(),
        MapError::InvalidOutput("a value that JSON cannot say")
    );
}

/// The largest bodies of the worst shapes: neither the stack nor the time may give out.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "measures that mapping is not quadratic"
)]
fn a_body_as_large_as_allowed_is_mapped_in_bounded_time() {
    let connectors = connectors();
    let fill = |item: &dyn Fn(usize) -> String, bytes: usize| {
        let mut text = String::new();
        for index in 0.. {
            let next = item(index);
            if text.len() + next.len() >= bytes {
                return text.trim_end_matches(',').to_owned();
            }
            text += &next;
        }
        text
    };
    let room = CALLBACK_BODY_BYTES_MAX - 200;
    let fields = fill(&|index| format!("\"Field {index}\":{index},"), room);
    let items = fill(&|index| format!("{{\"id\":{index}}},"), room);
    let ids = fill(&|index| format!("{index},"), room);
    let data = "x".repeat(900);
    let full = fill(
        &|index| {
            if index < 1_000 {
                format!("{{\"id\":{index},\"fields\":{{\"a\":\"{data}\"}}}},")
            } else {
                " ".repeat(1 << 20)
            }
        },
        room,
    );
    for (provider, body, expected) in [
        (
            "bamboohr",
            format!("{{\"employees\":[{{\"id\":1,\"fields\":{{{fields}}}}}]}}"),
            Ok(1),
        ),
        (
            "bamboohr",
            format!("{{\"employees\":[{items}]}}"),
            Err(MapError::TooMuch),
        ),
        ("bamboohr", format!("{{\"employees\":[{full}]}}"), Ok(1_000)),
        ("bamboohr", format!("{{\"employees\":{{{fields}}}}}"), Ok(0)),
        (
            "greenhouse",
            format!(
                "{{\"action\":\"delete_candidate\",\"payload\":{{\"person\":{{\"id\":1,\"deleted_application_ids\":[{ids}]}}}}}}"
            ),
            Err(MapError::TooMuch),
        ),
        (
            "greenhouse",
            format!(
                "{{\"action\":\"update_candidate\",\"payload\":{{\"candidate\":{{\"id\":1,\"email_addresses\":[{items}]}}}}}}"
            ),
            Ok(1),
        ),
        ("greenhouse", format!("{{\"action\":[{ids}]}}"), Ok(0)),
    ] {
        assert!(body.len() <= CALLBACK_BODY_BYTES_MAX);
        let started = Instant::now();
        let result =
            map(connectors.get(provider).unwrap(), body.as_bytes()).map(|events| events.len());
        let start: String = body.chars().take(60).collect();
        assert_eq!(result, expected, "{start}");
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{start}: {:?}",
            started.elapsed()
        );
    }
}

/// Labels are transformed character by character, at some microseconds each.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "measures that the length of a label does not count"
)]
fn a_label_is_cut_before_it_is_transformed() {
    let bamboohr = connectors().get("bamboohr").unwrap();
    let long = "a".repeat(1_000_000);
    let change = |action: &str, fields: &str| {
        format!(r#"{{"employees":[{{"id":1,"action":"{action}","fields":{{{fields}}}}}]}}"#)
    };
    let several: String = (0..200)
        .map(|index| format!("\"{index}{}\":1,", "a".repeat(5_000)))
        .collect();
    for body in [
        change("Updated", &format!(r#""{long}":1,"First name":"Tefi""#)),
        change("Updated", &format!(r#"{several}"First name":"Tefi""#)),
        change(&long, r#""First name":"Tefi""#),
    ] {
        let started = Instant::now();
        let events = map(bamboohr, body.as_bytes()).unwrap();
        let took = started.elapsed();
        assert_eq!(events[0].event, "hris_employees.updated");
        // Uncut, each would take several seconds.
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}
