//! Packets of one flow arrive in the order in which they were sent.

use anyhow::ensure;

use gatereeve_tests::traffic::order::answered_bursts;
use gatereeve_tests::traffic::tcp::TcpSource;

use crate::scene::{LIMIT, apply, pair, rule, wait_open, world};

/// Flows of each family: where an answer chooses the queue, it is another than before for most.
const FLOWS: u64 = 30;
/// Datagrams of a flow after its answer: as many as a queue holds, twice.
const MORE: u64 = 1000;

/// A UDP flow that sends at once is answered in the middle, and stays in order.
pub(crate) fn an_answer_moves_no_flow() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let ports = r#"["tcp:81", "udp:53"]"#;
    apply(&world, &rule("tag:client", "tag:server", ports, ""))?;
    let source = TcpSource::start(&server.namespace, 81)?;
    wait_open(&client, &server, 81)?;
    drop(source);
    for device in [&client, &server] {
        // With one there would be nothing to move to.
        let queues = device.status()?.offloads.map(|view| view.tun.queues);
        ensure!(queues > Some(1), "{queues:?}");
    }
    for to in [server.v4(53)?, server.v6(53)?] {
        let (near, far) = (&client.namespace, &server.namespace);
        let bursts = answered_bursts(near, far, to, FLOWS, MORE, LIMIT)?;
        // The control: flows went on after the answer.
        let went_on = bursts.iter().filter(|burst| burst.after > 100).count();
        ensure!(went_on > bursts.len() / 2, "{bursts:?}");
        let late: Vec<_> = bursts.iter().filter(|burst| burst.late > 0).collect();
        ensure!(late.is_empty(), "{} of {FLOWS} flows: {late:?}", late.len());
    }
    Ok(())
}
