//! systemd-resolved, over D-Bus (`org.freedesktop.resolve1(5)`).

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use nix::net::if_::{if_indextoname, if_nametoindex};
use nix::sys::socket::AddressFamily;
use serde::Serialize;
use zbus::connection::Builder;
use zbus::{
    Connection, DynamicType, Error, ObjectPath, OwnedObjectPath, OwnedVariant, Result, fdo,
};

use super::{Link, Told};

const NAME: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const LINK: &str = "org.freedesktop.resolve1.Link";
const BUS: &str = "/run/dbus/system_bus_socket";
/// How long all of it may take: less than the daemon waits for the helper.
const PATIENCE: Duration = Duration::from_secs(10);
/// It hears of a new interface a little later than we do.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// What programs have in `/etc/resolv.conf` that ask resolved.
const STUBS: [&str; 2] = ["127.0.0.53", "127.0.0.54"];
/// Other interfaces' domains that are named.
const MOST_RIVALS: usize = 8;
/// Longest file that is looked at, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The address family and the address, as resolved has them.
type Server = (i32, Vec<u8>);

/// Tells resolved what it does not know yet of our interface.
///
/// # Errors
/// Why it cannot be spoken to, or does not take it.
pub async fn tell(link: &Link) -> std::result::Result<Told, String> {
    if !Path::new(BUS).exists() {
        return Ok(Told::Absent);
    }
    let index = if_nametoindex(link.interface.as_str())
        .map_err(|error| format!("the interface {}: {error}", link.interface))?;
    let index = i32::try_from(index).map_err(|error| error.to_string())?;
    let address = format!("unix:path={BUS}");
    let told = tokio::time::timeout(PATIENCE, tell_bus(&address, index, link)).await;
    let told = told.map_err(|_| format!("it did not answer within {PATIENCE:?}"))?;
    match told {
        Ok(None) => Ok(Told::Absent),
        Ok(Some(rivals)) => Ok(Told::Done {
            is_asked: is_asked(),
            rivals: (!rivals.is_empty()).then(|| rivals.join(", ")),
        }),
        Err(error) => match forbidden(&error) {
            Some(why) => Ok(Told::Forbidden(why.to_owned())),
            None => Err(error.to_string()),
        },
    }
}

/// Why it is not for this user to do, if that is why.
fn forbidden(error: &Error) -> Option<&str> {
    let Error::FDO(error) = error else {
        return None;
    };
    if let fdo::Error::AccessDenied(why)
    | fdo::Error::AuthFailed(why)
    | fdo::Error::InteractiveAuthorizationRequired(why) = &**error
    {
        Some(why)
    } else {
        None
    }
}

/// Tells it; the domains of other interfaces that are within ours. `None` where there is no resolved.
async fn tell_bus(bus: &str, index: i32, link: &Link) -> Result<Option<Vec<String>>> {
    let connection = Builder::address(bus).build().await?;
    let resolved = Resolved { connection };
    // One that does not run is not to be started by us: what it would do to the host is for others to decide.
    if !resolved.runs().await? {
        return Ok(None);
    }
    let path = resolved.link(index).await?;
    if !resolved.knows(&path, link).await? {
        resolved.set(&path, index, link).await?;
    }
    let domains: Vec<(i32, String, bool)> = resolved.property(PATH, MANAGER, "Domains").await?;
    Ok(Some(rivals(&domains, index, &link.domain)))
}

/// By the longest domain that fits is decided who is asked, and by all of that length where there are several.
fn rivals(domains: &[(i32, String, bool)], own: i32, ours: &str) -> Vec<String> {
    let within = |domain: &str| {
        let rest = domain.trim_end_matches('.').to_ascii_lowercase();
        rest.strip_suffix(ours)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let others = domains
        .iter()
        .filter(|(index, domain, _)| *index != own && within(domain));
    let words = others.map(|(index, domain, _)| {
        let name = u32::try_from(*index).ok().filter(|index| *index > 0);
        match name.and_then(|index| if_indextoname(index).ok()) {
            Some(name) => format!("{} has the domain {domain}", name.to_string_lossy()),
            None => format!("the host has the domain {domain}"),
        }
    });
    words.take(MOST_RIVALS).collect()
}

struct Resolved {
    connection: Connection,
}

impl Resolved {
    async fn runs(&self) -> Result<bool> {
        let bus = "org.freedesktop.DBus";
        let path = "/org/freedesktop/DBus";
        let answer = self
            .connection
            .call_method(Some(bus), path, Some(bus), "NameHasOwner", &NAME)
            .await?;
        answer.body().deserialize()
    }

    /// The object of an interface.
    async fn link(&self, index: i32) -> Result<OwnedObjectPath> {
        let mut tries = TRIES;
        loop {
            let answer = self
                .connection
                .call_method(Some(NAME), PATH, Some(MANAGER), "GetLink", &index)
                .await;
            match answer {
                Ok(answer) => return answer.body().deserialize(),
                Err(Error::MethodError(name, ..)) if name.ends_with(".NoSuchLink") && tries > 0 => {
                    tries -= 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether it has been told all of it already: whoever tells it again has it forget what it keeps of all networks.
    async fn knows(&self, path: &OwnedObjectPath, link: &Link) -> Result<bool> {
        let mut servers: Vec<Server> = self.property(path, LINK, "DNS").await?;
        let mut domains: Vec<(String, bool)> = self.property(path, LINK, "Domains").await?;
        let (mut wanted_servers, mut wanted_domains) = (servers_of(link), domains_of(link));
        servers.sort();
        wanted_servers.sort();
        domains.sort();
        wanted_domains.sort();
        if servers != wanted_servers || domains != wanted_domains {
            return Ok(false);
        }
        let is_default = optional(self.property(path, LINK, "DefaultRoute").await)?;
        let mut is_off = is_default != Some(true);
        for (property, _) in OFF {
            is_off &= self.is_off(path, property).await?;
        }
        Ok(is_off)
    }

    /// Whether something is off on the interface. What an old resolved does not have is.
    async fn is_off(&self, path: &OwnedObjectPath, property: &str) -> Result<bool> {
        let mode: Option<String> = optional(self.property(path, LINK, property).await)?;
        Ok(mode.is_none_or(|mode| mode == "no"))
    }

    async fn property<'p, P, T>(&self, path: P, interface: &str, name: &str) -> Result<T>
    where
        P: TryInto<ObjectPath<'p>>,
        P::Error: Into<Error>,
        T: TryFrom<OwnedVariant, Error = Error>,
    {
        let properties = "org.freedesktop.DBus.Properties";
        let answer = self
            .connection
            .call_method(
                Some(NAME),
                path,
                Some(properties),
                "Get",
                &(interface, name),
            )
            .await?;
        answer.body().deserialize::<OwnedVariant>()?.try_into()
    }

    /// The servers last: until then nobody is asked for anything here.
    async fn set(&self, path: &OwnedObjectPath, index: i32, link: &Link) -> Result<()> {
        optional(self.call("SetLinkDefaultRoute", &(index, false)).await)?;
        for (property, method) in OFF {
            // Left alone where there is nothing to do: each of these is a right of its own.
            if !self.is_off(path, property).await? {
                optional(self.call(method, &(index, "no")).await)?;
            }
        }
        self.call("SetLinkDomains", &(index, domains_of(link)))
            .await?;
        self.call("SetLinkDNS", &(index, servers_of(link))).await
    }

    async fn call<B: Serialize + DynamicType>(&self, method: &str, body: &B) -> Result<()> {
        self.connection
            .call_method(Some(NAME), PATH, Some(MANAGER), method, body)
            .await
            .map(drop)
    }
}

/// What an old resolved does not have, it does not do either.
fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::FDO(error))
            if matches!(
                *error,
                fdo::Error::UnknownMethod(_) | fdo::Error::UnknownProperty(_)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What is of no use on this interface, with how it is switched off: the data path answers in plain datagrams, which do not leave
/// the host, and passes nothing that is for many.
const OFF: [(&str, &str); 4] = [
    ("LLMNR", "SetLinkLLMNR"),
    ("MulticastDNS", "SetLinkMulticastDNS"),
    ("DNSOverTLS", "SetLinkDNSOverTLS"),
    ("DNSSEC", "SetLinkDNSSEC"),
];

fn servers_of(link: &Link) -> Vec<Server> {
    let servers = link.servers.iter().map(|server| match server {
        IpAddr::V4(v4) => (AddressFamily::Inet as i32, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AddressFamily::Inet6 as i32, v6.octets().to_vec()),
    });
    servers.collect()
}

/// Domains, and whether names are only asked for here and not completed with it.
fn domains_of(link: &Link) -> Vec<(String, bool)> {
    let own = (link.domain.clone(), !link.search);
    let reverse = link.reverse.iter().map(|domain| (domain.clone(), true));
    std::iter::once(own).chain(reverse).collect()
}

/// Whether programs on this host ask resolved, by the C library's files.
fn is_asked() -> bool {
    let read = |path: &str| {
        let small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_FILE);
        small
            .then(|| fs::read_to_string(path).ok())
            .flatten()
            .unwrap_or_default()
    };
    asks_resolved(&read("/etc/resolv.conf"), &read("/etc/nsswitch.conf"))
}

fn asks_resolved(resolv_conf: &str, nsswitch: &str) -> bool {
    // The first one is asked, the next where it is silent.
    let first = resolv_conf
        .lines()
        .find_map(|line| line.trim().strip_prefix("nameserver"));
    let by_stub = first.is_some_and(|server| STUBS.contains(&server.trim()));
    let mut hosts = nsswitch
        .lines()
        .filter_map(|line| line.trim().strip_prefix("hosts:"))
        .flat_map(str::split_ascii_whitespace)
        .filter(|source| ["resolve", "dns"].contains(source));
    by_stub || hosts.next() == Some("resolve")
}

#[cfg(test)]
mod tests;
