//! Destinations as people write them.

use std::net::{IpAddr, SocketAddr};

use gatereeve_shared::policy::port::Protocol;

/// What `why` is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name, device ID or overlay address.
    pub peer: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port; 0 for protocols without.
    pub port: u16,
}

impl Target {
    /// Reads `web`, `web:22`, `web:tcp:22`, `web:udp:53` and `web:icmp`; an IPv6 address stands alone or
    /// in brackets.
    ///
    /// # Errors
    /// Says which form was expected.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::whole(&address.to_string()));
        }
        let (peer, rest) = if let Some(bracketed) = text.strip_prefix('[') {
            let (address, rest) = bracketed
                .split_once(']')
                .ok_or("the bracket around the address is not closed")?;
            let address: IpAddr = address
                .parse()
                .map_err(|_| format!("{address:?} is not an IP address"))?;
            (
                address.to_string(),
                rest.strip_prefix(':').or(rest.is_empty().then_some("")),
            )
        } else {
            match text.split_once(':') {
                Some((peer, rest)) => (peer.to_owned(), Some(rest)),
                None => (text.to_owned(), Some("")),
            }
        };
        let rest = rest.ok_or("a colon is missing behind the bracket")?;
        if peer.is_empty() {
            return Err("the peer is missing: write it like web:22".into());
        }
        if rest.is_empty() {
            return if text.ends_with(':') {
                Err("the port behind the colon is missing".into())
            } else {
                Ok(Self::whole(&peer))
            };
        }
        let (protocol, port) = match rest.split_once(':') {
            None if rest == "icmp" => (Protocol::Icmp, 0),
            None => (Protocol::Tcp, port(rest)?),
            Some(("tcp", number)) => (Protocol::Tcp, port(number)?),
            Some(("udp", number)) => (Protocol::Udp, port(number)?),
            Some(_) => {
                return Err("write PEER:PORT, PEER:tcp:PORT, PEER:udp:PORT or PEER:icmp".into());
            }
        };
        Ok(Self {
            peer,
            protocol,
            port,
        })
    }

    fn whole(peer: &str) -> Self {
        Self {
            peer: peer.to_owned(),
            protocol: Protocol::Any,
            port: 0,
        }
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(format!(
            "{text:?} is not a port: a number from 1 to 65535, or icmp"
        )),
    }
}

/// Reads an address, with or without a port behind it.
///
/// # Errors
/// Says what the text is not.
pub(super) fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|with_port| with_port.ip()))
        .map_err(|_| format!("{text:?} is not an IP address, alone or with a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, Protocol, u16) {
        let target = Target::parse(text).unwrap();
        (target.peer, target.protocol, target.port)
    }

    #[test]
    fn every_form_of_a_destination_reads() {
        assert_eq!(read("web"), ("web".into(), Protocol::Any, 0));
        assert_eq!(read("web:22"), ("web".into(), Protocol::Tcp, 22));
        assert_eq!(read("web:tcp:22"), ("web".into(), Protocol::Tcp, 22));
        assert_eq!(read("web:udp:53"), ("web".into(), Protocol::Udp, 53));
        assert_eq!(read("web:icmp"), ("web".into(), Protocol::Icmp, 0));
        assert_eq!(
            read("100.64.0.1:80"),
            ("100.64.0.1".into(), Protocol::Tcp, 80)
        );
        assert_eq!(read("fd00::1"), ("fd00::1".into(), Protocol::Any, 0));
        assert_eq!(
            read("[fd00::1]:udp:53"),
            ("fd00::1".into(), Protocol::Udp, 53)
        );
        assert_eq!(read("[fd00::1]"), ("fd00::1".into(), Protocol::Any, 0));
    }

    #[test]
    fn what_is_no_destination_is_refused() {
        for text in [
            "",
            ":22",
            "web:",
            "web:0",
            "web:65536",
            "web:sctp:1",
            "web:tcp:",
            "web:+5",
            "[fd00::1",
            "[web]:22",
            "[fd00::1]22",
        ] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn addresses_read_with_and_without_a_port() {
        let address: IpAddr = "100.64.0.7".parse().unwrap();
        assert_eq!(parse_address("100.64.0.7"), Ok(address));
        assert_eq!(parse_address("100.64.0.7:51234"), Ok(address));
        assert_eq!(parse_address("[fd00::1]:5"), Ok("fd00::1".parse().unwrap()));
        assert!(parse_address("web").is_err());
    }
}
