use super::*;

fn caller(uid: u32, gid: u32) -> Caller {
    Caller {
        uid,
        gid,
        pid: None,
    }
}

fn rights(own: u32) -> Rights {
    Rights {
        own,
        operator: None,
        group: None,
    }
}

const CHANGES: [LocalRequest; 5] = [
    LocalRequest::Up,
    LocalRequest::Down,
    LocalRequest::Leave,
    LocalRequest::Repair,
    LocalRequest::Flows {
        peer: None,
        limit: 1,
    },
];

#[test]
fn everyone_may_ask_and_few_may_change() {
    let with_group = Rights {
        own: 50,
        operator: Some(1000),
        group: Some(70_000),
    };
    // 65000 and above are users that no database knows: their groups are those of their process.
    for (uid, gid, may) in [
        (0, 0, true),
        (50, 50, true),
        (1000, 1000, true),
        (65_001, 70_000, true),
        (65_001, 70_001, false),
    ] {
        let caller = caller(uid, gid);
        assert!(with_group.permit(caller, &LocalRequest::Status).is_ok());
        for change in CHANGES {
            let permitted = with_group.permit(caller, &change);
            assert_eq!(permitted.is_ok(), may, "{uid} {gid} {change:?}");
        }
    }
    let refused = rights(0).permit(caller(1000, 1000), &LocalRequest::Down);
    assert_eq!(refused.unwrap_err().exit_status, 3);
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let (calls, _inbox) = mpsc::channel(1);
    for (url, body, status) in [
        ("/v2/status", "{}", 4),
        ("/v1", "{}", 4),
        ("/v1/status/", "{}", 4),
        ("/v1/ping", "{}", 2),
        ("/v1/ping", "{\"peer\":\"web\",\"count\":-1}", 2),
        ("/v1/ping", "{\"peer\":\"web\",\"count\":0}", 2),
        ("/v1/ping", "{\"peer\":\"web\",\"count\":1001}", 2),
        ("/v1/flows", "{\"peer\":null,\"limit\":1001}", 2),
        ("/v1/ping", "{\"peer\":\"web\",\"count\":1,\"x\":1}", 2),
        ("/v1/status", "{\"request\":\"leave\"}", 2),
        ("/v1/status", "[]", 2),
        ("/v1/status", "", 2),
    ] {
        let error = answer(&calls, &rights(0), caller(0, 0), url, body.as_bytes())
            .await
            .unwrap_err();
        assert_eq!(error.exit_status, status, "{url} {body}: {error:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_one_reaches_the_daemon() {
    let (calls, mut inbox) = mpsc::channel(1);
    let rights = rights(0);
    let asked = LocalRequest::Ping {
        peer: "web".into(),
        count: 1000,
    };
    let (url, body) = address(&asked).unwrap();
    assert_eq!(url, "/v1/ping");
    let body = body.to_string();
    let asking = answer(&calls, &rights, caller(1000, 1000), &url, body.as_bytes());
    let daemon = async {
        let call = inbox.recv().await.unwrap();
        assert_eq!(call.request, asked);
    };
    // The daemon drops the question, as it does when it stops.
    let (answered, ()) = tokio::join!(asking, daemon);
    assert_eq!(answered.unwrap_err().exit_status, 6);
}

/// Bytes that are almost requests, and bytes that are nothing: each is a request or an error.
#[test]
fn no_bytes_are_too_odd() {
    let seeds = [
        "{\"peer\":\"web\",\"count\":3}",
        "{\"peer\":\"web\",\"protocol\":\"tcp\",\"port\":22}",
        "{\"controller\":{\"address\":\"a:1\",\"fingerprint\":\"x\"}}",
        "{\"address\":\"fd00::1\"}",
        "{}",
    ];
    // A linear congruential generator: the same bytes at every run.
    let mut state: u64 = 0x5247;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 40).unwrap()
    };
    let mut good = 0;
    for round in 0..200_000 {
        let mut body = seeds[next() % seeds.len()].as_bytes().to_vec();
        for _ in 0..next() % 4 {
            let at = next() % body.len();
            match next() % 4 {
                0 => body[at] = u8::try_from(next() % 256).unwrap(),
                1 => drop(body.remove(at)),
                2 => body.truncate(at),
                _ => body.extend_from_within(at..),
            }
            if body.is_empty() {
                break;
            }
        }
        let url = format!("{PREFIX}{}", OPERATIONS[next() % OPERATIONS.len()]);
        match parse(&url, &body) {
            Ok(_) => good += 1,
            Err(error) => assert!([2, 4].contains(&error.exit_status), "{round}: {error:?}"),
        }
    }
    assert!(good > 100, "control: some are requests still: {good}");
    assert_eq!(
        parse("/v1/up", "[".repeat(100_000).as_bytes())
            .unwrap_err()
            .exit_status,
        2
    );
}
