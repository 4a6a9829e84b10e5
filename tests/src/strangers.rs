//! Devices that enroll through the real protocol and are never heard of again: the many that a
//! network has, for those that measure the few.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use tokio::sync::mpsc;

use gatereeve_client::control::{ControlEvent, ControlLink, Names, Target};
use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::invite::Invite;
use gatereeve_shared::wire::client::{ClientMessage, Enroll};
use gatereeve_shared::wire::controller::{ControllerMessage, EnrollReply, Standing};

use crate::netns::Namespace;

/// How long one of them may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Enrolls `count` of them from `namespace`, by an invite that is good for as many.
///
/// # Errors
/// Where the controller refuses one, or does not answer.
pub fn enroll(namespace: &Namespace, invite: &str, count: u16) -> anyhow::Result<()> {
    let invite: Invite = invite.parse().map_err(|error| anyhow!("{error}"))?;
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            for number in 1..=count {
                tokio::time::timeout(LIMIT, enroll_one(&invite, number))
                    .await
                    .map_err(|_| anyhow!("no answer within {LIMIT:?}"))
                    .flatten()
                    .with_context(|| format!("enroll stranger {number}"))?;
            }
            Ok(())
        })
    })
}

async fn enroll_one(invite: &Invite, number: u16) -> anyhow::Result<()> {
    let identity = Arc::new(IdentityKey::from_seed(&random()?));
    let public = WgSecret::from_bytes(random()?).public();
    let (sender, mut events) = mpsc::channel(16);
    let link = ControlLink::connect(
        Target {
            controllers: invite.controllers.clone(),
            network: invite.network,
            identity: Arc::clone(&identity),
            known_tls: None,
            names: Names::System,
        },
        sender,
    );
    while let Some(event) = events.recv().await {
        match event {
            ControlEvent::Connected { .. } => {
                link.send(ClientMessage::Enroll(Enroll {
                    invite: Some((invite.id, invite.secret.clone())),
                    name: format!("stranger{number}"),
                    binding: KeyBinding::sign(&identity, &invite.network, public, 1),
                }))?;
            }
            ControlEvent::Message(ControllerMessage::Enrolled(reply)) => {
                ensure!(reply == EnrollReply::Done(Standing::Approved), "{reply:?}");
                return Ok(());
            }
            ControlEvent::Message(ControllerMessage::Refused(refusal)) => bail!("{refusal:?}"),
            ControlEvent::Message(_) => {}
            ControlEvent::Disconnected { error, .. } => bail!("disconnected: {error}"),
        }
    }
    bail!("the link ended")
}

fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}
