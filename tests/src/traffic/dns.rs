//! Questions for names, one datagram each, as a program without a resolver would ask.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::netns::Namespace;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 address.
    A = 1,
    /// A name.
    Ptr = 12,
    /// An IPv6 address.
    Aaaa = 28,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An address.
    Address(IpAddr),
    /// A name, without a dot at its end.
    Name(String),
    /// The name has nothing of the kind.
    Nothing,
    /// There is no such name.
    NoName,
    /// Not asked for here.
    Refused,
    /// An error of the host: the question was turned away.
    Unreachable,
    /// Nothing, for as long as was waited.
    Silence,
}

/// Asks `resolver` for `name` out of `namespace`, and waits for `patience` at most.
///
/// # Errors
/// Where there is no socket to be had, or the answer is none.
pub fn ask(
    namespace: &Namespace,
    resolver: IpAddr,
    name: &str,
    kind: Kind,
    patience: Duration,
) -> anyhow::Result<Answer> {
    let any: SocketAddr = if resolver.is_ipv4() {
        "0.0.0.0:0".parse()?
    } else {
        "[::]:0".parse()?
    };
    let socket = namespace.run(|| UdpSocket::bind(any).context("bind a UDP port"))?;
    socket.set_read_timeout(Some(patience))?;
    let mut query = vec![0x47, 0x52, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, kind as u8, 0, 1]);
    let turned_away = |kind: ErrorKind| {
        [
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkUnreachable,
            ErrorKind::ConnectionRefused,
            ErrorKind::PermissionDenied,
        ]
        .contains(&kind)
    };
    let sent = socket
        .connect((resolver, 53))
        .and_then(|()| socket.send(&query));
    let mut answer = [0; 1500];
    let len = match sent.and_then(|_| socket.recv(&mut answer)) {
        Ok(len) => len,
        Err(error) if turned_away(error.kind()) => return Ok(Answer::Unreachable),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            return Ok(Answer::Silence);
        }
        Err(error) => return Err(error).context("ask for a name"),
    };
    read(&query, answer.get(..len).context("a datagram")?)
}

fn read(query: &[u8], answer: &[u8]) -> anyhow::Result<Answer> {
    ensure!(
        answer.get(..2) == query.get(..2),
        "another question's answer"
    );
    let code = answer.get(3).context("a short answer")? & 15;
    let records = answer.get(7).context("a short answer")?;
    match (code, records) {
        (3, 0) => return Ok(Answer::NoName),
        (5, 0) => return Ok(Answer::Refused),
        (0, 0) => return Ok(Answer::Nothing),
        (0, 1) => {}
        _ => bail!("code {code} with {records} records"),
    }
    // A pointer, kind, class, time to live, length.
    let data = answer.get(query.len() + 12..).context("a short record")?;
    if let Ok(v4) = <[u8; 4]>::try_from(data) {
        return Ok(Answer::Address(v4.into()));
    }
    if query.get(query.len() - 3) == Some(&(Kind::Aaaa as u8)) {
        return Ok(Answer::Address(<[u8; 16]>::try_from(data)?.into()));
    }
    let mut labels = Vec::new();
    let mut rest = data;
    while let Some((len, more)) = rest.split_first().filter(|(len, _)| **len > 0) {
        let (label, more) = more
            .split_at_checked(usize::from(*len))
            .context("a short label")?;
        labels.push(String::from_utf8(label.to_vec())?);
        rest = more;
    }
    Ok(Answer::Name(labels.join(".")))
}
