//! What is embedded: pages for browsers and the client library.

use tidegate_config::Page;

/// The type and the bytes of a page.
pub(crate) fn content(page: Page) -> (&'static str, &'static [u8]) {
    const HTML: &str = "text/html; charset=utf-8";
    match page {
        Page::Index => (HTML, include_bytes!("../assets/index.html")),
        Page::Chat => (HTML, include_bytes!("../assets/chat.html")),
        Page::WebSocket => (HTML, include_bytes!("../assets/websocket.html")),
        Page::Broadcast => (HTML, include_bytes!("../assets/broadcast.html")),
        Page::Client => ("text/javascript; charset=utf-8", include_bytes!("../assets/tidegate.js")),
    }
}
