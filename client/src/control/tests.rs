//! Links to controllers that behave, misbehave, or are somebody else.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the variant that it expects"
)]

use super::*;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use gatereeve_runtime::framed::{Reader, Writer};
use gatereeve_runtime::quic::{self, CloseCode};
use gatereeve_shared::identity::binding::ControllerBinding;
use gatereeve_shared::time::{PERIOD, UnixMillis};
use gatereeve_shared::wire::client::{ClientMessage, Leave};
use gatereeve_shared::wire::codec;
use gatereeve_shared::wire::controller::{Pong, Refusal, RefusalCode, Standing};
use quinn::{Connection, Endpoint, SendStream};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Far beyond anything that is to happen.
const PATIENCE: Duration = Duration::from_secs(20);

fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

const NETWORK: u8 = 1;
const TLS: u8 = 2;
const DEVICE: u8 = 3;
const IMPOSTOR: u8 = 4;

/// The network key's word for the controller's TLS key.
fn genuine() -> ControllerBinding {
    ControllerBinding::sign(&key(NETWORK), key(TLS).public(), UnixMillis::MAX)
}

fn greeting(binding: ControllerBinding) -> ControllerMessage {
    ControllerMessage::Hello(ControllerHello {
        minor: 1,
        binding,
        now: UnixMillis(1),
        standing: Standing::Approved,
        observed: ([127, 0, 0, 1], 1).into(),
    })
}

/// What somebody in the controller's place has learnt of a connection.
#[derive(Clone, Debug, Default)]
struct Seen {
    key: Option<IdentityPublicKey>,
    messages: Vec<ClientMessage>,
}

/// Somebody in the controller's place: answers each hello with `answer`, pings with pongs, and one
/// ping, 666, with rubbish.
struct Fake {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    endpoint: Endpoint,
}

impl Fake {
    fn new(tls: u8, answer: ControllerMessage) -> Self {
        let endpoint = quic::server_endpoint((Ipv4Addr::LOCALHOST, 0).into(), &key(tls)).unwrap();
        let seen = Arc::default();
        tokio::spawn(serve(endpoint.clone(), Arc::clone(&seen), answer));
        Self {
            address: endpoint.local_addr().unwrap(),
            seen,
            endpoint,
        }
    }

    fn good() -> Self {
        Self::new(TLS, greeting(genuine()))
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Nobody who was here proved the device's key, and nothing but a hello was said.
    fn assert_learnt_nothing(&self) {
        for seen in self.seen() {
            assert_ne!(seen.key, Some(key(DEVICE).public()));
            let hellos = |m: &ClientMessage| matches!(m, ClientMessage::Hello(_));
            assert!(seen.messages.iter().all(hellos), "{:?}", seen.messages);
        }
    }
}

async fn serve(endpoint: Endpoint, seen: Arc<Mutex<Vec<Seen>>>, answer: ControllerMessage) {
    while let Some(incoming) = endpoint.accept().await {
        let (seen, answer) = (Arc::clone(&seen), answer.clone());
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                converse(connection, seen, answer).await;
            }
        });
    }
}

async fn converse(connection: Connection, seen: Arc<Mutex<Vec<Seen>>>, answer: ControllerMessage) {
    let index = {
        let mut seen = seen.lock().unwrap();
        seen.push(Seen {
            key: quic::peer_key(&connection),
            messages: Vec::new(),
        });
        seen.len() - 1
    };
    let Ok((send, recv)) = connection.accept_bi().await else {
        return;
    };
    let mut writer = Writer::<ControllerMessage>::new(send, PATIENCE);
    let mut reader = Reader::<ClientMessage>::new(recv, PATIENCE);
    while let Ok(Some(message)) = reader.next().await {
        seen.lock().unwrap()[index].messages.push(message.clone());
        let reply = match message {
            ClientMessage::Hello(_) => answer.clone(),
            ClientMessage::Ping(666) => {
                // A header of another frame version.
                let mut stream: SendStream = writer.into_stream();
                stream.write_all(&[9; 16]).await.unwrap();
                connection.closed().await;
                return;
            }
            ClientMessage::Ping(nonce) => ControllerMessage::Pong(Pong {
                nonce,
                now: UnixMillis(2),
            }),
            _ => continue,
        };
        if writer.send(&reply).await.is_err() {
            return;
        }
    }
    quic::close(&connection, CloseCode::Done);
}

fn target(controllers: &[SocketAddr], known_tls: Option<u8>) -> Target {
    Target {
        controllers: controllers.iter().map(ToString::to_string).collect(),
        network: Fingerprint::of(&key(NETWORK).public()),
        identity: Arc::new(key(DEVICE)),
        known_tls: known_tls.map(|seed| key(seed).public()),
        names: Names::System,
    }
}

struct Link {
    link: ControlLink,
    events: mpsc::Receiver<ControlEvent>,
}

fn link(controllers: &[SocketAddr], known_tls: Option<u8>) -> Link {
    link_with(controllers, known_tls, Timing::default())
}

fn link_with(controllers: &[SocketAddr], known_tls: Option<u8>, timing: Timing) -> Link {
    let (sender, events) = mpsc::channel(8);
    let target = target(controllers, known_tls);
    Link {
        link: ControlLink::connect_with(target, sender, timing),
        events,
    }
}

impl Link {
    async fn event(&mut self) -> ControlEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event")
            .expect("a link that has not ended")
    }

    async fn connected(&mut self) -> ControllerHello {
        match self.event().await {
            ControlEvent::Connected { hello, local } => {
                assert_eq!(local.ip(), Ipv4Addr::LOCALHOST);
                assert_ne!(local.port(), 0);
                hello
            }
            other => panic!("{other:?}"),
        }
    }

    async fn pong(&mut self, nonce: u64) {
        self.link.send(ClientMessage::Ping(nonce)).unwrap();
        match self.event().await {
            ControlEvent::Message(ControllerMessage::Pong(pong)) => assert_eq!(pong.nonce, nonce),
            other => panic!("{other:?}"),
        }
    }

    /// The last event: the error, and whether it is a mismatch.
    async fn disconnected(&mut self) -> (String, bool) {
        let ended = match self.event().await {
            ControlEvent::Disconnected { error, mismatch } => (error, mismatch),
            other => panic!("{other:?}"),
        };
        assert!(self.events.recv().await.is_none());
        ended
    }
}

#[tokio::test]
async fn the_first_connection_is_anonymous_and_the_second_is_the_devices() {
    let controller = Fake::good();
    let mut link = link(&[controller.address], None);
    assert_eq!(link.connected().await.binding, genuine());
    link.pong(7).await;
    let seen = controller.seen();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0].key, Some(key(DEVICE).public()));
    assert!(matches!(
        seen[0].messages.as_slice(),
        [ClientMessage::Hello(_)]
    ));
    assert_eq!(seen[1].key, Some(key(DEVICE).public()));
    assert!(matches!(
        seen[1].messages.as_slice(),
        [ClientMessage::Hello(_), ClientMessage::Ping(7)]
    ));
}

#[tokio::test]
async fn a_known_tls_key_saves_the_first_connection() {
    let controller = Fake::good();
    let mut link = link(&[controller.address], Some(TLS));
    link.connected().await;
    let seen = controller.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].key, Some(key(DEVICE).public()));
}

#[tokio::test]
async fn an_impostor_learns_nothing() {
    let foreign = ControllerBinding::sign(&key(IMPOSTOR), key(IMPOSTOR).public(), UnixMillis::MAX);
    // The right network key over the wrong signature.
    let mut bytes = codec::encode(&foreign).unwrap();
    bytes[..32].copy_from_slice(key(NETWORK).public().as_bytes());
    let forged: ControllerBinding = codec::decode::<_, 1024>(&bytes).unwrap();
    assert_eq!(forged.network, key(NETWORK).public());
    // Its own network's word; a forged one; the genuine one, which is for another TLS key.
    for binding in [foreign, forged, genuine()] {
        for known in [None, Some(TLS)] {
            let impostor = Fake::new(IMPOSTOR, greeting(binding.clone()));
            let mut link = link(&[impostor.address], known);
            let (error, mismatch) = link.disconnected().await;
            assert!(mismatch, "{error}");
            assert!(error.contains("controller key mismatch"), "{error}");
            assert!(!impostor.seen().is_empty());
            impostor.assert_learnt_nothing();
        }
    }
}

#[tokio::test]
async fn a_replaced_tls_key_is_taken_on_the_network_keys_word() {
    let replaced = ControllerBinding::sign(&key(NETWORK), key(IMPOSTOR).public(), UnixMillis::MAX);
    let controller = Fake::new(IMPOSTOR, greeting(replaced.clone()));
    let mut link = link(&[controller.address], Some(TLS));
    assert_eq!(link.connected().await.binding, replaced);
    // First refused unseen, then asked by nobody in particular, then told.
    let keys: Vec<bool> = controller
        .seen()
        .iter()
        .map(|seen| seen.key == Some(key(DEVICE).public()))
        .collect();
    assert_eq!(keys, [false, true]);
}

#[tokio::test]
async fn an_impostor_does_not_hide_the_controller() {
    let own = ControllerBinding::sign(&key(IMPOSTOR), key(IMPOSTOR).public(), UnixMillis::MAX);
    let impostor = Fake::new(IMPOSTOR, greeting(own));
    let controller = Fake::good();
    for known in [None, Some(TLS)] {
        let mut link = link(&[impostor.address, controller.address], known);
        link.connected().await;
    }
    assert!(!impostor.seen().is_empty());
    impostor.assert_learnt_nothing();
}

#[tokio::test]
async fn an_expired_statement_does_not_hold() {
    let expired = ControllerBinding::sign(&key(NETWORK), key(TLS).public(), UnixMillis(1));
    let controller = Fake::new(TLS, greeting(expired));
    let mut link = link(&[controller.address], None);
    let (error, mismatch) = link.disconnected().await;
    assert!(error.contains("expired") && !mismatch, "{error}");
    controller.assert_learnt_nothing();
}

#[tokio::test]
async fn a_refusal_in_place_of_a_hello_is_passed_on_in_plain_letters() {
    let refused = ControllerMessage::Refused(Refusal {
        code: RefusalCode::Version,
        message: "update\u{1b}[31m".to_owned(),
    });
    let controller = Fake::new(TLS, refused);
    let mut link = link(&[controller.address], None);
    let (error, mismatch) = link.disconnected().await;
    assert!(error.contains("refuses: update\u{fffd}[31m") && !mismatch);
    controller.assert_learnt_nothing();
}

#[tokio::test]
async fn answers_that_are_no_hello_of_ours_end_it() {
    let ControllerMessage::Hello(mut hello) = greeting(genuine()) else {
        panic!("a greeting is a hello");
    };
    hello.minor = 999;
    for (answer, expected) in [
        (ControllerMessage::Hello(hello), "version 999"),
        (ControllerMessage::Posture(Vec::new()), "protocol"),
    ] {
        let controller = Fake::new(TLS, answer);
        let mut link = link(&[controller.address], None);
        let (error, mismatch) = link.disconnected().await;
        assert!(error.contains(expected) && !mismatch, "{error}");
        controller.assert_learnt_nothing();
    }
}

#[tokio::test]
async fn rubbish_on_the_stream_ends_it() {
    let controller = Fake::good();
    let mut link = link(&[controller.address], Some(TLS));
    link.connected().await;
    link.pong(1).await;
    link.link.send(ClientMessage::Ping(666)).unwrap();
    let (error, mismatch) = link.disconnected().await;
    assert!(error.contains("frame version 9") && !mismatch, "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_in_time() {
    // Takes packets and says nothing.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let timing = Timing {
        dial: Duration::from_millis(300),
        ..Timing::default()
    };
    for known in [None, Some(TLS)] {
        let mut link = link_with(&[silent.local_addr().unwrap()], known, timing);
        let (error, mismatch) = link.disconnected().await;
        assert!(error.contains("cannot be reached at 127.0.0.1"), "{error}");
        assert!(!mismatch);
    }
    let mut nowhere = link(&[], None);
    let (error, _) = nowhere.disconnected().await;
    assert!(error.contains("cannot be found"), "{error}");
}

#[tokio::test]
async fn a_controller_that_does_not_answer_the_hello_is_given_up() {
    // Completes handshakes and never accepts a stream.
    let endpoint = quic::server_endpoint((Ipv4Addr::LOCALHOST, 0).into(), &key(TLS)).unwrap();
    let address = endpoint.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Some(incoming) = endpoint.accept().await {
            held.extend(incoming.await.ok());
        }
    });
    let timing = Timing {
        hello: Duration::from_millis(300),
        ..Timing::default()
    };
    let mut link = link_with(&[address], None, timing);
    let (error, _) = link.disconnected().await;
    assert!(error.contains("did not answer within 300ms"), "{error}");
    serving.abort();
}

/// Carries packets both ways between one client and `to`, until aborted.
async fn forward(socket: UdpSocket, to: SocketAddr) {
    let mut client = None;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let onward = if from == to {
            client
        } else {
            client = Some(from);
            Some(to)
        };
        if let Some(onward) = onward {
            socket.send_to(&buffer[..length], onward).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_controller_that_falls_silent_is_gone_and_one_that_answers_is_not() {
    let controller = Fake::good();
    let middle = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = middle.local_addr().unwrap();
    let way = tokio::spawn(forward(middle, controller.address));
    let silence = Duration::from_millis(800);
    let timing = Timing {
        silence,
        grace: Duration::from_millis(100),
        ..Timing::default()
    };
    let mut link = link_with(&[address], Some(TLS), timing);
    link.connected().await;
    for nonce in 0..20 {
        link.pong(nonce).await;
        tokio::time::sleep(silence / 8).await;
    }
    way.abort();
    let (error, mismatch) = link.disconnected().await;
    assert!(error.contains("within 800ms") && !mismatch, "{error}");
}

#[test]
fn a_dead_controller_is_noticed_within_15_seconds_and_a_quiet_one_is_not() {
    let silence = Timing::default().silence;
    // `silence` looks every so often; the keep-alive leaves room for an answer and a retry.
    assert!(silence + PERIOD <= Duration::from_secs(15));
    assert!(silence >= quic::KEEP_ALIVE + Duration::from_secs(2));
    assert!(silence < quic::IDLE);
}

#[tokio::test]
async fn what_was_sent_before_the_close_arrives() {
    let controller = Fake::good();
    let mut link = link(&[controller.address], Some(TLS));
    link.connected().await;
    link.link.send(ClientMessage::Ping(1)).unwrap();
    link.link.send(ClientMessage::Leave(Leave {})).unwrap();
    let Link { link, mut events } = link;
    link.close();
    let mut ends = 0;
    while let Some(event) = timeout(PATIENCE, events.recv()).await.unwrap() {
        ends += usize::from(matches!(event, ControlEvent::Disconnected { .. }));
    }
    assert_eq!(ends, 1);
    let seen = controller.seen();
    assert!(matches!(
        seen[0].messages.as_slice(),
        [
            ClientMessage::Hello(_),
            ClientMessage::Ping(1),
            ClientMessage::Leave(_)
        ]
    ));
}

#[tokio::test]
async fn an_attempt_can_be_given_up_and_says_so() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let Link { link, mut events } = link(&[silent.local_addr().unwrap()], None);
    link.close();
    let event = timeout(PATIENCE, events.recv()).await.unwrap();
    assert!(
        matches!(event, Some(ControlEvent::Disconnected { error, .. }) if error.contains("closed by this device"))
    );
}

#[tokio::test]
async fn a_controller_that_goes_away_says_why() {
    let controller = Fake::good();
    let mut link = link(&[controller.address], Some(TLS));
    link.connected().await;
    controller
        .endpoint
        .close(CloseCode::ShuttingDown.code(), b"");
    let (error, mismatch) = link.disconnected().await;
    assert!(error.contains("shutting down") && !mismatch, "{error}");
    assert_eq!(
        link.link.send(ClientMessage::Ping(1)),
        Err(SendError::Closed)
    );
}
