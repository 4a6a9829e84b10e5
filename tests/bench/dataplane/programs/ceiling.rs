//! The ceiling: the probe in `tests/bench/ceiling/`.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;

use gatereeve_tests::clock::wait_for;

use super::{Guard, Running, TUNNEL_MTU, own_addresses};
use crate::pair::Pair;
use crate::tool::Tools;

const PORT: u16 = 7777;

pub(super) fn start(
    program: &Path,
    [mode, cipher]: [&str; 2],
    pair: &Pair,
    tools: &Tools,
) -> anyhow::Result<Running> {
    let (v4, _) = own_addresses();
    let mut started = Vec::new();
    for (number, host) in pair.hosts().into_iter().enumerate() {
        let other = pair.hosts()[1 - number].underlay.v4;
        let arguments = [
            mode.to_owned(),
            cipher.to_owned(),
            ["left", "right"][number].to_owned(),
            format!("{}/24", v4[number]),
            TUNNEL_MTU.to_string(),
            format!("{}:{PORT}", host.underlay.v4),
            format!("{other}:{PORT}"),
        ];
        let mut running = tools.start(Some(&host.namespace), "ceiling", program, &arguments)?;
        wait_for("the ceiling", Duration::from_secs(10), || {
            let text = running.written();
            if !running.process.is_running() {
                bail!("it has ended: {text}");
            }
            Ok(text.contains("ready").then_some(()))
        })
        .map_err(|error| error.context(running.last_words()))?;
        started.push(running);
    }
    Ok(Running {
        v4,
        v6: None,
        daemons: started.iter().map(|one| one.process.id()).collect(),
        guards: started
            .into_iter()
            .map(|one| Box::new(one) as Box<dyn Guard>)
            .collect(),
    })
}
