//! Over an in-memory pipe, with tokio's paused time.

use super::*;
use gatereeve_shared::wire::client::ClientHello;
use tokio::io::{DuplexStream, duplex};

fn hello() -> ClientMessage {
    ClientMessage::Hello(ClientHello {
        min_minor: 1,
        max_minor: 3,
    })
}

fn reader(stream: DuplexStream) -> Reader<ClientMessage, DuplexStream> {
    Reader::new(stream, FRAME_DEADLINE)
}

#[tokio::test]
async fn messages_arrive_whole_and_in_order_and_the_end_is_clean() {
    let (near, far) = duplex(16);
    let sending = tokio::spawn(async move {
        let mut writer = Writer::<ClientMessage, _>::new(near, FRAME_DEADLINE);
        for nonce in 0..100 {
            writer.send(&ClientMessage::Ping(nonce)).await.unwrap();
        }
        writer.send(&hello()).await.unwrap();
    });
    let mut reader = reader(far);
    for nonce in 0..100 {
        assert_eq!(
            reader.next().await.unwrap(),
            Some(ClientMessage::Ping(nonce))
        );
    }
    assert_eq!(reader.next().await.unwrap(), Some(hello()));
    assert_eq!(reader.next().await.unwrap(), None);
    sending.await.unwrap();
}

#[tokio::test]
async fn hostile_headers_end_it_before_a_body_comes() {
    let length = |n: u32| {
        let mut header = vec![1, 0, 1];
        header.extend(n.to_be_bytes());
        header
    };
    let limit = u32::try_from(ClientMessage::LIMIT).unwrap();
    for (bytes, expected) in [
        (vec![2, 0, 1, 0, 0, 0, 1], WireError::Version(2)),
        (
            length(limit + 1),
            WireError::TooLong {
                length: limit + 1,
                limit: ClientMessage::LIMIT,
            },
        ),
        (
            length(u32::MAX),
            WireError::TooLong {
                length: u32::MAX,
                limit: ClientMessage::LIMIT,
            },
        ),
        (vec![1, 0xff, 0xff, 0, 0, 0, 0], WireError::Kind(0xffff)),
    ] {
        let (mut near, far) = duplex(64);
        near.write_all(&bytes).await.unwrap();
        // The writing side stays open: the reader must not wait for more.
        let error = reader(far).next().await.unwrap_err();
        assert!(matches!(error, FrameError::Wire(found) if found == expected));
    }
    let (mut near, far) = duplex(64);
    near.write_all(&hello().to_frame().unwrap()).await.unwrap();
    assert_eq!(reader(far).next().await.unwrap(), Some(hello()));
}

#[tokio::test]
async fn a_claimed_length_reserves_little() {
    let (mut near, far) = duplex(64);
    let limit = u32::try_from(ClientMessage::LIMIT).unwrap();
    near.write_all(&[1, 0, 1]).await.unwrap();
    near.write_all(&limit.to_be_bytes()).await.unwrap();
    let mut reader = reader(far);
    assert!(
        timeout(Duration::from_millis(20), reader.next())
            .await
            .is_err()
    );
    assert!(reader.buffer.capacity() <= 2 * STEP);
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_is_an_error() {
    let frame = hello().to_frame().unwrap();
    for cut in 1..frame.len() {
        let (mut near, far) = duplex(64);
        near.write_all(&frame[..cut]).await.unwrap();
        drop(near);
        let error = reader(far).next().await.unwrap_err();
        assert!(matches!(error, FrameError::Truncated), "cut at {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dribble_of_bytes_meets_the_deadline_and_silence_between_frames_does_not() {
    let (mut near, far) = duplex(64);
    let frame = hello().to_frame().unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        near.write_all(&frame).await.unwrap();
        for byte in frame {
            tokio::time::sleep(Duration::from_secs(4)).await;
            if near.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    });
    let mut reader = reader(far);
    assert_eq!(reader.next().await.unwrap(), Some(hello()));
    let begun = Instant::now();
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, FrameError::Deadline(_)));
    // The first byte comes after 4 s and starts the clock.
    assert_eq!(begun.elapsed().as_secs(), 4 + FRAME_DEADLINE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_side_that_never_reads_meets_the_deadline() {
    let (near, _far) = duplex(8);
    let mut writer = Writer::<ClientMessage, _>::new(near, FRAME_DEADLINE);
    let error = writer.send(&hello()).await.unwrap_err();
    assert!(matches!(error, FrameError::Deadline(_)));
}

#[tokio::test(start_paused = true)]
async fn dropped_reads_and_writes_lose_nothing() {
    let (near, far) = duplex(3);
    let mut writer = Writer::<ClientMessage, _>::new(near, FRAME_DEADLINE);
    let mut reader = reader(far);
    // Neither fits: both are dropped half way, by turns.
    assert!(
        timeout(Duration::from_secs(1), writer.send(&hello()))
            .await
            .is_err()
    );
    assert!(
        timeout(Duration::from_secs(1), reader.next())
            .await
            .is_err()
    );
    let sending = tokio::spawn(async move { writer.send(&ClientMessage::Ping(7)).await });
    assert_eq!(reader.next().await.unwrap(), Some(hello()));
    assert_eq!(reader.next().await.unwrap(), Some(ClientMessage::Ping(7)));
    sending.await.unwrap().unwrap();
}
