//! Protocols and port ranges, parsed once and valid from then on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// What a rule can speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Every IP protocol, ports or not.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6 echo. Errors about a permitted flow need no rule.
    Icmp,
}

/// A protocol and, for TCP and UDP, a range of destination ports. `first <= last` always.
///
/// Text: `tcp:22`, `udp:8000-8100`, `tcp:*`, `icmp`, `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSpec {
    protocol: Protocol,
    first: u16,
    last: u16,
}

/// Why a text is no [`PortSpec`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortError {
    /// Not one of the forms.
    #[error("ports take the form tcp:22, udp:8000-8100, tcp:*, icmp or *")]
    Form,
    /// Not a port number.
    #[error("a port is a number from 1 to 65535")]
    Number,
    /// A range with its larger end first.
    #[error("the range runs backwards: write the smaller port first")]
    Backwards,
}

impl PortSpec {
    /// Everything.
    pub const ANY: Self = Self {
        protocol: Protocol::Any,
        first: 0,
        last: u16::MAX,
    };
    /// Echo, both families.
    pub const ICMP: Self = Self {
        protocol: Protocol::Icmp,
        first: 0,
        last: u16::MAX,
    };

    /// The ports `first..=last` of TCP or UDP; for the others the ports are ignored. `None` where the
    /// range runs backwards.
    #[must_use]
    pub fn new(protocol: Protocol, first: u16, last: u16) -> Option<Self> {
        match protocol {
            Protocol::Any => Some(Self::ANY),
            Protocol::Icmp => Some(Self::ICMP),
            Protocol::Tcp | Protocol::Udp if first <= last => Some(Self {
                protocol,
                first,
                last,
            }),
            Protocol::Tcp | Protocol::Udp => None,
        }
    }

    /// The protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The smallest port; 0 where ports mean nothing or all are meant.
    #[must_use]
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The largest port.
    #[must_use]
    pub fn last(&self) -> u16 {
        self.last
    }

    /// Whether traffic of `protocol` to `port` is inside. For ICMP the port is ignored.
    /// [`Protocol::Any`] as the question is inside [`Self::ANY`] only: it stands for an IP protocol
    /// that has no name here.
    #[must_use]
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        match self.protocol {
            Protocol::Any => true,
            Protocol::Icmp => protocol == Protocol::Icmp,
            Protocol::Tcp | Protocol::Udp => {
                self.protocol == protocol && (self.first..=self.last).contains(&port)
            }
        }
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.protocol {
            Protocol::Any => return f.write_str("*"),
            Protocol::Icmp => return f.write_str("icmp"),
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        match (self.first, self.last) {
            (0, u16::MAX) => write!(f, "{name}:*"),
            (first, last) if first == last => write!(f, "{name}:{first}"),
            (first, last) => write!(f, "{name}:{first}-{last}"),
        }
    }
}

impl FromStr for PortSpec {
    type Err = PortError;

    fn from_str(s: &str) -> Result<Self, PortError> {
        let (name, ports) = match s {
            "*" => return Ok(Self::ANY),
            "icmp" => return Ok(Self::ICMP),
            _ => s.split_once(':').ok_or(PortError::Form)?,
        };
        let protocol = match name {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(PortError::Form),
        };
        if ports == "*" {
            return Ok(Self {
                protocol,
                first: 0,
                last: u16::MAX,
            });
        }
        let number = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ => Err(PortError::Number),
        };
        let (first, last) = match ports.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(ports)?, number(ports)?),
        };
        Self::new(protocol, first, last).ok_or(PortError::Backwards)
    }
}

impl Serialize for PortSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            (self.protocol, self.first, self.last).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for PortSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(de::Error::custom)
        } else {
            let (protocol, first, last) = Deserialize::deserialize(deserializer)?;
            Self::new(protocol, first, last).ok_or_else(|| de::Error::custom(PortError::Backwards))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back() {
        for text in [
            "*",
            "icmp",
            "tcp:22",
            "udp:8000-8100",
            "tcp:*",
            "udp:1-65535",
        ] {
            let spec: PortSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
        }
    }

    #[test]
    fn malformed_ports_are_refused() {
        for text in [
            "",
            "tcp",
            "tcp:",
            "tcp:0",
            "tcp:65536",
            "tcp:9-3",
            "sctp:1",
            "tcp:+5",
            "TCP:22",
            "tcp:1-",
            "icmp:8",
            "22",
        ] {
            assert!(text.parse::<PortSpec>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn each_protocol_stays_within_itself() {
        let tcp: PortSpec = "tcp:10-20".parse().unwrap();
        assert!(tcp.contains(Protocol::Tcp, 10) && tcp.contains(Protocol::Tcp, 20));
        assert!(!tcp.contains(Protocol::Tcp, 21) && !tcp.contains(Protocol::Udp, 10));
        assert!(!tcp.contains(Protocol::Any, 10) && !tcp.contains(Protocol::Icmp, 10));
        assert!(PortSpec::ANY.contains(Protocol::Any, 0));
        assert!(!PortSpec::ICMP.contains(Protocol::Any, 0));
    }
}
