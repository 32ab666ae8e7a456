//! The page at `/`: where things are, for whoever opens the address in a browser.

/// Plain HTML without scripts, styles or anything fetched from elsewhere.
pub(super) fn page(telemetry_path: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let telemetry_path = escape(telemetry_path);
    format!(
        "<!DOCTYPE html>\n\
         <html lang=\"en\">\n\
         <head><meta charset=\"utf-8\"><title>netobs</title></head>\n\
         <body>\n\
         <h1>netobs</h1>\n\
         <p>A kernel-level TCP observer for Linux, version {version}.</p>\n\
         <ul>\n\
         <li><a href=\"{telemetry_path}\">Metrics</a> for Prometheus</li>\n\
         <li><a href=\"/events?since=-5m\">Events</a> of the last five minutes, as JSON lines</li>\n\
         <li><a href=\"/status\">Status</a>: probes, methods, exactness, loss</li>\n\
         <li><a href=\"/-/ready\">Ready</a> and <a href=\"/-/healthy\">healthy</a></li>\n\
         </ul>\n\
         </body>\n\
         </html>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telemetry_path_cannot_break_out() {
        let page = page("/m\"><script>&");
        assert!(
            page.contains("href=\"/m&quot;&gt;&lt;script&gt;&amp;\""),
            "{page}"
        );
    }
}
