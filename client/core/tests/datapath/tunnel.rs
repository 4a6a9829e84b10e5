//! The real tunnel keeps the tunnel's contract.

use gatereeve_client_core::wg::{NoiseTunnels, contract};

#[test]
fn the_real_tunnel_keeps_the_contract() {
    contract::run(&NoiseTunnels);
}
