//! A helper whose processes are shells: what answers, what dies, what hangs.

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// Answers a question for addresses with one.
const ANSWERS: &str = r#"read -r line && echo '{"addresses":["127.0.0.1:80"]}' >&0"#;

fn shell(script: &str, question: OwnedFd) -> std::io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(Stdio::from(question))
        .stdout(Stdio::null())
        .spawn()
}

/// A helper, how many processes it has started, and the thread that it is here.
struct Started {
    helper: Helper,
    processes: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

/// Answers its first questions with `scripts`, one each, and the others as it should.
fn started(scripts: &'static [&'static str]) -> Started {
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    let processes = Arc::new(AtomicUsize::new(0));
    let number = Arc::clone(&processes);
    let serving = std::thread::spawn(move || {
        serve::supervise(&theirs, |question| {
            let script = scripts.get(number.fetch_add(1, Ordering::Relaxed));
            shell(script.unwrap_or(&ANSWERS), question)
        })
        .unwrap();
    });
    Started {
        helper: PreparedHelper::over(ours).start().unwrap(),
        processes,
        serving,
    }
}

async fn ensure_answers(helper: &Helper) {
    let found = helper.resolve("web:80").await.unwrap();
    assert_eq!(found, ["127.0.0.1:80".parse::<SocketAddr>().unwrap()]);
}

#[tokio::test]
async fn every_question_has_a_process_of_its_own_until_the_daemon_ends() {
    let Started {
        helper, serving, ..
    } = started(&[]);
    ensure_answers(&helper).await;
    // One that gives up does not put the answers out of step.
    tokio::select! {
        biased;
        answer = helper.resolve("other:80") => panic!("{answer:?}"),
        () = std::future::ready(()) => {}
    }
    ensure_answers(&helper).await;
    drop(helper);
    let ended = tokio::task::spawn_blocking(move || serving.join().unwrap());
    tokio::time::timeout(PATIENCE, ended)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_process_that_dies_fails_its_question_at_once_and_no_other() {
    let Started { helper, .. } = started(&[
        "kill -9 $$",
        "read -r line; kill -9 $$",
        "read -r line; printf '{\"addresses\":[' >&0; kill -9 $$",
        "read -r line; echo nonsense >&0",
    ]);
    for _ in 0..4 {
        let asked = tokio::time::timeout(Duration::from_secs(5), helper.resolve("web:80"));
        let died = asked.await.unwrap().unwrap_err();
        assert!(matches!(died, HelperError::Died), "{died:?}");
    }
    ensure_answers(&helper).await;
}

#[tokio::test]
async fn no_more_are_started_at_a_time_than_there_are_places() {
    // They end when the question is given up.
    const HANGS: &str = "read -r line; read -r end";
    let Started {
        helper, processes, ..
    } = started(&[HANGS; serve::AT_A_TIME]);
    let helper = Arc::new(helper);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..serve::AT_A_TIME {
        let helper = Arc::clone(&helper);
        waiting.spawn(async move { helper.resolve("web:80").await.map(drop) });
    }
    until(|| processes.load(Ordering::Relaxed) == serve::AT_A_TIME).await;
    let refused = tokio::time::timeout(Duration::from_secs(5), helper.resolve("web:80"));
    let refused = refused.await.unwrap().unwrap_err();
    assert!(matches!(refused, HelperError::Died), "{refused:?}");
    assert_eq!(processes.load(Ordering::Relaxed), serve::AT_A_TIME);
    waiting.shutdown().await;
    let answered = async {
        while helper.resolve("web:80").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.unwrap();
}

async fn until(mut reached: impl FnMut() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

#[tokio::test]
async fn a_helper_that_is_gone_is_said_to_be() {
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    let helper = PreparedHelper::over(ours).start().unwrap();
    drop(theirs);
    for _ in 0..2 {
        let gone = helper.resolve("127.0.0.1:80").await.unwrap_err();
        assert!(gone.to_string().contains("restart"), "{gone}");
    }
}

#[test]
fn what_is_asked_reads_back() {
    let request = Request::Collect {
        watched: vec!["/opt/agent".into()],
    };
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
}

#[test]
fn who_takes_too_long_is_ended_with_what_it_has_started() {
    let mut child = Command::new("/bin/sh")
        .args(["-c", "sleep 600 & echo $!; wait"])
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let grandchild = std::path::PathBuf::from(format!("/proc/{}", line.trim()));
    assert!(grandchild.exists(), "the control");
    serve::end(&mut child);
    assert!(child.try_wait().unwrap().is_some());
    let state = || std::fs::read_to_string(grandchild.join("stat"));
    // Whoever is the first process here may be slow to take notice of its end.
    let is_gone = || state().map_or(true, |stat| stat.contains(") Z "));
    for _ in 0..500 {
        if is_gone() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(is_gone());
    // Once more changes nothing.
    serve::end(&mut child);
}
