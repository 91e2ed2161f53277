//! What a service manager is sent.

use std::time::Duration;

use sd_notify::{NotifyState, notify, watchdog_enabled};

use super::Shared;

/// How many times within the watchdog's patience it is sent that all is well.
const SIGNS: u32 = 3;

/// Tells it something; without a service manager nothing happens.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        log::warn!("cannot notify the service manager: {error}");
    }
}

/// Drops are being counted, and clients are served.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The run ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells the watchdog that all is well, as long as counts arrive.
pub async fn watch(shared: Shared) {
    let Some(patience) = watchdog_enabled() else { return };
    let mut sign = tokio::time::interval((patience / SIGNS).max(Duration::from_millis(10)));
    loop {
        sign.tick().await;
        if shared.is_fresh() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}
