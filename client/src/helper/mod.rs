//! What the daemon cannot do once it is confined, done by a process that it starts before.
//!
//! The helper has no socket to any network when it starts, no key and, where the daemon is not root, no
//! capability. It does two things, each when asked over a socket pair of its own: it starts a posture collector
//! ([`crate::posture::process`]), where no other one is to be had, and it looks up the names of controllers, whose
//! answers come from the network and whose configuration files are replaced while the daemon runs. It ends with
//! the daemon.

mod client;
mod serve;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::posture::CollectedFact;

pub use client::{Helper, HelperError, PreparedHelper};
pub use serve::serve;

/// The longest line, either way.
const MAX_LINE: u64 = 256 * 1024;

/// What the helper is asked: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// To collect posture.
    Collect {
        /// Executables whose running is asked for.
        watched: Vec<String>,
    },
    /// The addresses of `host:port`.
    Resolve(String),
}

/// What it answers: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Reply {
    Facts(Vec<CollectedFact>),
    Addresses(Vec<SocketAddr>),
    /// Why there is no answer.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn started() -> (Helper, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = client::pairs().unwrap();
        let serving = async move {
            let [collect, resolve] = theirs.map(|stream| {
                stream.set_nonblocking(true).unwrap();
                tokio::net::UnixStream::from_std(stream).unwrap()
            });
            serve::serve_both(collect, resolve, Path::new("/")).await;
        };
        #[expect(clippy::disallowed_methods, reason = "ends with the helper")]
        let serving = tokio::spawn(serving);
        (PreparedHelper::over(ours).start().unwrap(), serving)
    }

    #[tokio::test]
    async fn names_are_looked_up_one_after_the_other_until_the_daemon_ends() {
        let (helper, serving) = started();
        let found = helper.resolve("127.0.0.1:80").await.unwrap();
        assert_eq!(found, ["127.0.0.1:80".parse::<SocketAddr>().unwrap()]);
        let wrong = helper.resolve("no port").await.unwrap_err();
        assert!(matches!(wrong, HelperError::Failed(_)), "{wrong:?}");
        // One that gives up does not put the answers out of step.
        tokio::select! {
            biased;
            answer = helper.resolve("[::1]:1") => panic!("{answer:?}"),
            () = std::future::ready(()) => {}
        }
        let found = helper.resolve("[::1]:2").await.unwrap();
        assert_eq!(found, ["[::1]:2".parse::<SocketAddr>().unwrap()]);
        drop(helper);
        tokio::time::timeout(PATIENCE, serving)
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn a_helper_that_is_gone_is_said_to_be() {
        let (helper, serving) = started();
        serving.abort();
        drop(serving.await);
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
}
