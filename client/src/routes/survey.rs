//! What of ours is on the host, by the kernel's word: for `gatereeve repair`, and for `gatereeve status` while
//! no daemon runs. Reading needs no rights.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::LinkMessage;

use gatereeve_client_core::api::PlaceView;

use super::interfaces::link_of;
use super::linux::{self, HostNetwork};
use super::netlink::{Netlink, NetworkThread};
use super::route::Via;
use super::{HostPlan, Place};

/// Every place on this host that has something of ours.
///
/// # Errors
/// When the kernel gives no netlink socket or does not list what there is.
pub async fn survey(thread: &NetworkThread) -> Result<Vec<PlaceView>> {
    list(&Netlink::open(thread, &[])?.handle).await
}

async fn list(handle: &rtnetlink::Handle) -> Result<Vec<PlaceView>> {
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .context("cannot list the interfaces")?;
    let name = |index| {
        link_of(&links, index).map_or_else(|| format!("if{index}"), |(name, _)| name.to_owned())
    };
    let mut places: BTreeMap<Place, PlaceView> = BTreeMap::new();
    for (rule, _) in linux::own_rules(handle).await? {
        if let Some(place) = Place::of_priority(rule.priority) {
            view(&mut places, place).rules.push(rule.to_string());
        }
    }
    for (table, route, _) in linux::own_routes(handle).await? {
        let Some(place) = Place::of_table(table) else {
            continue;
        };
        let view = view(&mut places, place);
        let Some(route) = route else {
            view.routes.push("a route of another version".into());
            continue;
        };
        view.routes.push(route.show(name));
        match route.via {
            Via::Tunnel(index) => view.interface = Some(name(index)),
            Via::Nowhere => view.blackhole.push(route.destination.to_string()),
            Via::Local(..) => {}
        }
    }
    Ok(places.into_values().collect())
}

fn view(places: &mut BTreeMap<Place, PlaceView>, place: Place) -> &mut PlaceView {
    places.entry(place).or_insert_with(|| PlaceView {
        table: place.table,
        priority: place.priority,
        interface: None,
        blackhole: Vec::new(),
        rules: Vec::new(),
        routes: Vec::new(),
    })
}

/// Takes everything of ours at these places away; what was there, in words.
///
/// # Errors
/// When the kernel refuses: it takes `CAP_NET_ADMIN`.
pub async fn remove(
    thread: &NetworkThread,
    places: impl IntoIterator<Item = Place>,
) -> Result<Vec<String>> {
    let mut changes = Vec::new();
    for place in places {
        changes.extend(HostNetwork::open(thread, place)?.remove().await?);
    }
    Ok(changes)
}

/// What `plan` leaves unreachable while there is no tunnel.
#[must_use]
pub fn blackhole(plan: &HostPlan) -> Vec<String> {
    vec![
        plan.prefixes.v4.trunc().to_string(),
        plan.prefixes.v6.trunc().to_string(),
    ]
}
