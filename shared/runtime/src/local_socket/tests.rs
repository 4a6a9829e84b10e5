//! A server and its callers over a real socket.

use super::*;
use crate::clock::Clock;
use crate::shutdown::Shutdown;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

struct Served {
    _directory: tempfile::TempDir,
    path: PathBuf,
    shutdown: Shutdown,
}

/// Echoes the URL and the body; `/teapot` is an error.
fn served() -> Served {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/x.sock");
    let shutdown = Shutdown::new();
    let listener = bind(&path, 0o660, None).unwrap();
    shutdown.spawn(serve(
        listener,
        shutdown.clone(),
        |caller: Caller, url: String, body: Vec<u8>| async move {
            let status = if url == "/teapot" { 418 } else { 200 };
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let reply = serde_json::json!({"uid": caller.uid, "url": url, "body": body});
            (status, reply.to_string().into_bytes())
        },
    ));
    Served {
        _directory: directory,
        path,
        shutdown,
    }
}

async fn ask(path: &Path) -> Result<serde_json::Value, CallError> {
    call(path, "/v1", &[1, 2]).await
}

async fn raw(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn a_call_arrives_with_its_caller_and_comes_back() {
    let served = served();
    let uid = nix::unistd::geteuid().as_raw();
    assert_eq!(
        ask(&served.path).await.unwrap(),
        serde_json::json!({"uid": uid, "url": "/v1", "body": [1, 2]})
    );
    let refused = call::<serde_json::Value>(&served.path, "/teapot", &"x").await;
    assert!(
        matches!(refused, Err(CallError::Remote { status: 418, body }) if body.starts_with(b"{"))
    );
    assert!(matches!(
        call::<u32>(&served.path, "/v1", &"x").await,
        Err(CallError::Malformed(_))
    ));
    assert_eq!(
        fs::metadata(&served.path).unwrap().permissions().mode() & 0o777,
        0o660
    );
}

#[tokio::test]
async fn what_is_no_json_post_is_refused() {
    let served = served();
    let good = "POST /v1 HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n1";
    assert!(raw(&served.path, good).await.starts_with("HTTP/1.1 200"));
    for (change, to, status) in [
        ("POST", "GET", "405"),
        ("application/json", "text/plain", "415"),
        ("host: x", "host: x\r\norigin: https://evil.example", "403"),
        ("content-length: 1", "content-length: 9999999", "413"),
        ("POST /v1 HTTP/1.1", "nonsense", "400"),
    ] {
        let reply = raw(&served.path, &good.replace(change, to)).await;
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status}")),
            "{to}: {reply}"
        );
    }
}

#[tokio::test]
async fn silent_connections_do_not_keep_others_out_and_one_too_many_is_closed() {
    let served = served();
    let root = nix::unistd::geteuid().is_root();
    let limit = if root {
        CONNECTIONS
    } else {
        CONNECTIONS_PER_USER
    };
    let mut held = Vec::new();
    for _ in 1..limit {
        held.push(UnixStream::connect(&served.path).await.unwrap());
    }
    assert!(ask(&served.path).await.is_ok());
    held.push(UnixStream::connect(&served.path).await.unwrap());
    let mut over = UnixStream::connect(&served.path).await.unwrap();
    assert_eq!(over.read(&mut [0; 1]).await.unwrap(), 0);
    drop(held);
    // Places are given back as the server sees the ends.
    while ask(&served.path).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_and_slow_ones_leave_room_for_a_call_soon() {
    let served = served();
    let mut slow = Vec::new();
    for _ in 0..1000 {
        // Those that are one too many are closed at once; writing to them may fail.
        if let Ok(mut stream) = UnixStream::connect(&served.path).await {
            drop(stream.write_all(b"POST /v1 HTTP/1.1\r\nhost: ").await);
            slow.push(stream);
        }
    }
    // Header by header no one gets further than the deadline, however much trickles in.
    let began = Clock::mono();
    let one = slow.first_mut().unwrap();
    while one.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(Clock::until(began.saturating_add(HEADER_DEADLINE * 2)) > Duration::ZERO);
    }
    let freed = Clock::mono();
    while ask(&served.path).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(Clock::until(freed.saturating_add(Duration::from_secs(1))) > Duration::ZERO);
}

#[tokio::test]
async fn garbage_is_answered_or_closed_and_serving_goes_on() {
    let served = served();
    let good = "POST /v1 HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n1";
    // A linear congruential generator: the same bytes at every run.
    let mut state: u64 = 0x5247;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 40).unwrap()
    };
    for round in 0..3000 {
        let mut bytes = good.as_bytes().to_vec();
        if round % 3 == 0 {
            bytes = (0..next() % 300)
                .map(|_| u8::try_from(next() % 256).unwrap())
                .collect();
        } else {
            for _ in 0..=next() % 4 {
                let at = next() % bytes.len();
                bytes[at] = u8::try_from(next() % 256).unwrap();
            }
        }
        let mut stream = UnixStream::connect(&served.path).await.unwrap();
        // It may have been closed in the middle.
        drop(stream.write_all(&bytes).await);
        drop(stream.shutdown().await);
        let mut reply = Vec::new();
        drop(stream.read_to_end(&mut reply).await);
        assert!(
            reply.is_empty() || reply.starts_with(b"HTTP/1."),
            "{round}: {reply:?}"
        );
        if round % 500 == 0 {
            assert!(ask(&served.path).await.is_ok(), "{round}");
        }
    }
    assert!(ask(&served.path).await.is_ok());
}

#[tokio::test]
async fn a_socket_in_use_is_kept_a_stale_one_replaced_a_file_left_alone() {
    let served = served();
    let again = bind(&served.path, 0o600, None).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    assert!(ask(&served.path).await.is_ok());

    assert!(served.shutdown.finish(Duration::from_secs(5)).await);
    assert!(!served.path.exists());
    assert!(matches!(
        ask(&served.path).await,
        Err(CallError::Unreachable { source, .. }) if source.kind() == io::ErrorKind::NotFound
    ));

    // As a killed daemon leaves it: std removes no file.
    drop(std::os::unix::net::UnixListener::bind(&served.path).unwrap());
    assert!(served.path.exists());
    let listener = bind(&served.path, 0o600, None).unwrap();
    drop(listener);

    fs::write(&served.path, "precious").unwrap();
    let blocked = bind(&served.path, 0o600, None).unwrap_err();
    assert_eq!(blocked.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&served.path).unwrap(), b"precious");
}

#[tokio::test]
async fn an_unknown_group_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let error = bind(&path, 0o660, Some("no-such-group-here")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(bind(&path, 0o660, Some("root")).is_ok() || !nix::unistd::geteuid().is_root());
}

#[test]
fn membership_counts_whatever_group_the_process_has() {
    let caller = |uid, gid| Caller {
        uid,
        gid,
        pid: None,
    };
    // Every Unix has root, whose first group is 0 and who is in no group of this number.
    assert!(caller(0, 70_000).is_member(0), "by the databases");
    assert!(!caller(0, 0).is_member(70_000));
    // No database knows this one: its groups are those of its process.
    assert!(caller(65_001, 70_000).is_member(70_000));
    assert!(!caller(65_001, 70_000).is_member(0));
}
