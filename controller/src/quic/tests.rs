//! The door over loopback: real connections, short deadlines.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the variant that it expects"
)]

use super::*;
use gatereeve_runtime::framed::{FrameError, Reader, Writer};
use gatereeve_runtime::quic::{self, CloseCode};
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::client::ClientHello;
use gatereeve_shared::wire::controller::{Pong, RefusalCode};
use gatereeve_shared::wire::map::MapUpdate;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use std::net::Ipv4Addr;

const SHORT: Duration = Duration::from_millis(300);
/// Far beyond anything that is to happen.
const PATIENCE: Duration = Duration::from_secs(20);

struct Door {
    addr: SocketAddr,
    events: mpsc::Receiver<SessionEvent>,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<()>,
}

impl Door {
    fn new(limits: Limits) -> Self {
        let endpoint = quic::server_endpoint((Ipv4Addr::LOCALHOST, 0).into(), &key(1)).unwrap();
        let addr = endpoint.local_addr().unwrap();
        let (sender, events) = mpsc::channel(1);
        let shutdown = Shutdown::new();
        let running = tokio::spawn(accept_loop_with(
            endpoint,
            sender,
            shutdown.clone(),
            limits,
            100,
        ));
        Self {
            addr,
            events,
            shutdown,
            running,
        }
    }

    async fn event(&mut self) -> SessionEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event")
            .expect("a running door")
    }

    async fn opened(&mut self) -> (SessionId, IdentityPublicKey, mpsc::Sender<SessionOutput>) {
        match self.event().await {
            SessionEvent::Opened {
                session,
                key,
                from,
                outbound,
            } => {
                assert_eq!(from.ip(), Ipv4Addr::LOCALHOST);
                (session, key, outbound)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn message(&mut self) -> ClientMessage {
        match self.event().await {
            SessionEvent::Message { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    async fn closed(&mut self) -> SessionId {
        match self.event().await {
            SessionEvent::Closed { session } => session,
            other => panic!("{other:?}"),
        }
    }

    async fn dial(&self, seed: u8) -> Result<Peer, quic::ConnectError> {
        let endpoint = quic::client_endpoint((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let server = key(1).public();
        let connection = quic::connect(&endpoint, self.addr, &key(seed), Some(&server)).await?;
        Ok(Peer {
            connection,
            _endpoint: endpoint,
        })
    }
}

struct Peer {
    connection: Connection,
    _endpoint: Endpoint,
}

type Streams = (Writer<ClientMessage>, Reader<ControllerMessage>);

impl Peer {
    async fn raw(&self) -> (SendStream, RecvStream) {
        self.connection.open_bi().await.unwrap()
    }

    /// Opens the stream and says hello.
    async fn hello(&self) -> Streams {
        let (send, recv) = self.raw().await;
        let mut writer = Writer::new(send, PATIENCE);
        writer.send(&hello()).await.unwrap();
        (writer, Reader::new(recv, PATIENCE))
    }

    async fn close_code(&self) -> u64 {
        match timeout(PATIENCE, self.connection.closed()).await.unwrap() {
            ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("{other:?}"),
        }
    }
}

fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

fn hello() -> ClientMessage {
    ClientMessage::Hello(ClientHello {
        min_minor: 1,
        max_minor: 1,
    })
}

fn pong(nonce: u64) -> ControllerMessage {
    ControllerMessage::Pong(Pong {
        nonce,
        now: UnixMillis(1),
    })
}

fn map() -> ControllerMessage {
    ControllerMessage::Map(MapUpdate {
        from: None,
        to: Generation::default(),
        this: None,
        removed: Vec::new(),
        upserted: Vec::new(),
        checkpoint: None,
        more: false,
    })
}

fn refusal(code: RefusalCode, message: &str) -> Refusal {
    Refusal {
        code,
        message: message.to_owned(),
    }
}

async fn refused_with(reader: &mut Reader<ControllerMessage>) -> RefusalCode {
    match reader.next().await {
        Ok(Some(ControllerMessage::Refused(refusal))) => refusal.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_has_a_key_and_carries_messages_both_ways_in_order() {
    let mut door = Door::new(Limits::default());
    let peer = door.dial(2).await.unwrap();
    let (mut writer, mut reader) = peer.hello().await;
    let (session, proven, outbound) = door.opened().await;
    assert_eq!((session, proven), (SessionId(100), key(2).public()));
    assert_eq!(door.message().await, hello());
    // The channel to the actor holds one: the rest waits in the stream, and nothing is lost.
    for nonce in 0..200 {
        writer.send(&ClientMessage::Ping(nonce)).await.unwrap();
    }
    for nonce in 0..200 {
        assert_eq!(door.message().await, ClientMessage::Ping(nonce));
        outbound
            .send(SessionOutput::Message(pong(nonce)))
            .await
            .unwrap();
    }
    for nonce in 0..200 {
        assert_eq!(reader.next().await.unwrap(), Some(pong(nonce)));
    }
    peer.connection.close(0u32.into(), b"");
    assert_eq!(door.closed().await, session);
    let next = door.dial(2).await.unwrap();
    let _streams = next.hello().await;
    assert_eq!(door.opened().await.0, SessionId(101));
}

#[tokio::test]
async fn what_is_no_message_of_ours_is_refused_and_the_session_closed() {
    let frame = |kind: u16, length: u32, body: &[u8]| {
        let mut bytes = vec![1];
        bytes.extend(kind.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
        bytes
    };
    let mut old = hello().to_frame().unwrap();
    old[0] = 0;
    let limit = u32::try_from(ClientMessage::LIMIT).unwrap();
    for bytes in [
        old,
        frame(999, 0, b""),
        frame(0, 3, b"abc"),
        frame(9, limit + 1, b""),
        frame(9, u32::MAX, b""),
        frame(1, 3, &[1, 1, 1]),
        frame(1, 1, &[1]),
    ] {
        let mut door = Door::new(Limits::default());
        let peer = door.dial(2).await.unwrap();
        let (mut send, recv) = peer.raw().await;
        // The control: the same stream, a good frame first.
        send.write_all(&hello().to_frame().unwrap()).await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let (session, _, _outbound) = door.opened().await;
        assert_eq!(door.message().await, hello());
        let mut reader = Reader::new(recv, PATIENCE);
        assert_eq!(refused_with(&mut reader).await, RefusalCode::Protocol);
        assert!(matches!(reader.next().await, Ok(None)));
        assert_eq!(door.closed().await, session);
        assert_eq!(
            peer.close_code().await,
            CloseCode::Protocol.code().into_inner()
        );
    }
}

#[tokio::test]
async fn a_dribble_of_bytes_meets_the_deadline_and_a_pause_between_messages_does_not() {
    let mut door = Door::new(Limits {
        frame: SHORT,
        ..Limits::default()
    });
    let peer = door.dial(2).await.unwrap();
    let (mut send, _recv) = peer.raw().await;
    let frame = hello().to_frame().unwrap();
    send.write_all(&frame).await.unwrap();
    let (session, _, _outbound) = door.opened().await;
    assert_eq!(door.message().await, hello());
    tokio::time::sleep(SHORT * 2).await;
    send.write_all(&frame).await.unwrap();
    assert_eq!(door.message().await, hello());
    let dribbling = tokio::spawn(async move {
        for byte in frame.iter().cycle() {
            if send.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(SHORT / 3).await;
        }
    });
    assert_eq!(door.closed().await, session);
    assert_eq!(
        peer.close_code().await,
        CloseCode::TooSlow.code().into_inner()
    );
    dribbling.await.unwrap();
}

#[tokio::test]
async fn who_does_not_begin_is_closed_and_the_actor_never_hears_of_it() {
    let mut door = Door::new(Limits {
        handshake: SHORT,
        ..Limits::default()
    });
    let silent = door.dial(2).await.unwrap();
    let too_slow = CloseCode::TooSlow.code().into_inner();
    assert_eq!(silent.close_code().await, too_slow);
    // With a stream, but without a first message.
    let begun = door.dial(3).await.unwrap();
    let (mut send, _recv) = begun.raw().await;
    send.write_all(&[1]).await.unwrap();
    assert_eq!(begun.close_code().await, too_slow);
    // The first event is of the one that has a stream.
    assert_eq!(door.opened().await.1, key(3).public());
    door.closed().await;
    // The control: who begins in time stays.
    let good = door.dial(4).await.unwrap();
    let _streams = good.hello().await;
    let (_, _, _outbound) = door.opened().await;
    assert_eq!(door.message().await, hello());
    tokio::time::sleep(SHORT * 2).await;
    assert!(good.connection.close_reason().is_none());
}

#[tokio::test]
async fn a_peer_that_never_reads_is_closed_and_one_that_reads_gets_all() {
    let large =
        ControllerMessage::Refused(refusal(RefusalCode::Unavailable, &"x".repeat(1_000_000)));
    let mut door = Door::new(Limits {
        write: SHORT * 3,
        ..Limits::default()
    });
    let reading = door.dial(2).await.unwrap();
    let (_writer, mut reader) = reading.hello().await;
    let (_, _, outbound) = door.opened().await;
    assert_eq!(door.message().await, hello());
    for _ in 0..4 {
        let output = SessionOutput::Message(large.clone());
        outbound.send(output).await.unwrap();
    }
    for _ in 0..4 {
        assert_eq!(reader.next().await.unwrap(), Some(large.clone()));
    }

    let deaf = door.dial(3).await.unwrap();
    let (_writer, _unread) = deaf.hello().await;
    let (session, _, outbound) = door.opened().await;
    assert_eq!(door.message().await, hello());
    for _ in 0..4 {
        let output = SessionOutput::Message(large.clone());
        outbound.send(output).await.unwrap();
    }
    assert_eq!(door.closed().await, session);
    assert_eq!(
        deaf.close_code().await,
        CloseCode::TooSlow.code().into_inner()
    );
    outbound.closed().await;
    assert!(reading.connection.close_reason().is_none());
}

#[tokio::test]
async fn a_source_has_its_places_and_devices_of_the_network_take_none() {
    let mut door = Door::new(Limits {
        per_source: 2,
        ..Limits::default()
    });
    let first = door.dial(2).await.unwrap();
    let (_writer, mut reader) = first.hello().await;
    let (_, _, outbound) = door.opened().await;
    assert_eq!(door.message().await, hello());
    let second = door.dial(3).await.unwrap();
    let _streams = second.hello().await;
    let (second_session, _, _outbound) = door.opened().await;
    assert_eq!(door.message().await, hello());
    assert!(door.dial(4).await.is_err());

    outbound.send(SessionOutput::Message(map())).await.unwrap();
    assert_eq!(reader.next().await.unwrap(), Some(map()));
    let third = door.dial(4).await.unwrap();
    let _streams = third.hello().await;
    let (_, proven, _outbound) = door.opened().await;
    assert_eq!(proven, key(4).public());
    assert_eq!(door.message().await, hello());
    assert!(door.dial(5).await.is_err());

    // A place that is left is free again.
    quic::close(&second.connection, CloseCode::Done);
    assert_eq!(door.closed().await, second_session);
    while door.dial(5).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_address_can_be_made_to_prove_itself_first() {
    let mut door = Door::new(Limits {
        unvalidated: 0,
        ..Limits::default()
    });
    let peer = door.dial(2).await.unwrap();
    let _streams = peer.hello().await;
    assert_eq!(door.opened().await.1, key(2).public());
}

#[tokio::test]
async fn last_words_arrive_before_the_close() {
    let mut door = Door::new(Limits::default());
    let peer = door.dial(2).await.unwrap();
    let (_writer, mut reader) = peer.hello().await;
    let (session, _, outbound) = door.opened().await;
    assert_eq!(door.message().await, hello());
    let refusal = refusal(RefusalCode::Replaced, "attached from elsewhere");
    for output in [
        SessionOutput::Message(pong(1)),
        SessionOutput::Close(Some(refusal.clone())),
        SessionOutput::Message(pong(2)),
    ] {
        outbound.send(output).await.unwrap();
    }
    assert_eq!(reader.next().await.unwrap(), Some(pong(1)));
    let refused = ControllerMessage::Refused(refusal);
    assert_eq!(reader.next().await.unwrap(), Some(refused));
    assert!(matches!(reader.next().await, Ok(None)));
    assert_eq!(door.closed().await, session);
    assert_eq!(
        peer.close_code().await,
        CloseCode::Refused.code().into_inner()
    );

    // Dropping the sender closes too, behind what was sent.
    let peer = door.dial(2).await.unwrap();
    let (_writer, mut reader) = peer.hello().await;
    let (_, _, outbound) = door.opened().await;
    assert_eq!(door.message().await, hello());
    outbound
        .send(SessionOutput::Message(pong(3)))
        .await
        .unwrap();
    drop(outbound);
    assert_eq!(reader.next().await.unwrap(), Some(pong(3)));
    assert!(matches!(reader.next().await, Ok(None)));
    assert_eq!(peer.close_code().await, CloseCode::Done.code().into_inner());
}

#[tokio::test]
async fn a_shutdown_says_so_and_ends() {
    let mut door = Door::new(Limits::default());
    let peer = door.dial(2).await.unwrap();
    let (_writer, mut reader) = peer.hello().await;
    let (session, _, _outbound) = door.opened().await;
    assert_eq!(door.message().await, hello());
    door.shutdown.trigger();
    assert_eq!(refused_with(&mut reader).await, RefusalCode::ShuttingDown);
    assert_eq!(door.closed().await, session);
    assert_eq!(
        peer.close_code().await,
        CloseCode::ShuttingDown.code().into_inner()
    );
    assert!(door.shutdown.finish(PATIENCE).await);
    timeout(PATIENCE, &mut door.running).await.unwrap().unwrap();
    // Nobody answers any more.
    let late = timeout(SHORT, door.dial(3)).await;
    assert!(!matches!(late, Ok(Ok(_))));
}

#[tokio::test]
async fn a_vanished_peer_is_no_message() {
    let mut door = Door::new(Limits::default());
    let peer = door.dial(2).await.unwrap();
    let (mut send, recv) = peer.raw().await;
    let frame = hello().to_frame().unwrap();
    send.write_all(&frame).await.unwrap();
    send.write_all(&frame[..3]).await.unwrap();
    let (session, _, _outbound) = door.opened().await;
    assert_eq!(door.message().await, hello());
    send.finish().unwrap();
    assert_eq!(door.closed().await, session);
    let mut reader = Reader::<ControllerMessage>::new(recv, PATIENCE);
    assert!(matches!(
        reader.next().await,
        Ok(None) | Err(FrameError::Io(_))
    ));
}
