//! Lists that come in pages.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{call::Call, error::Error};

/// Fetches all pages of a list: what stands under `key`, as long as `<key>_links` names a next page that was
/// not seen yet. APIs that ignore the marker would otherwise be read for ever.
pub async fn collect<T: DeserializeOwned>(call: Call, key: &str) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    let mut seen = vec![call.query_now()];
    loop {
        let query = seen.last().cloned().unwrap_or_default();
        let answer = call.with_query(query).send().await?;
        let next = next_query(&answer.body, key);
        let page: Vec<T> = answer.read(Some(key))?;
        let empty = page.is_empty();
        items.extend(page);
        match next {
            Some(next) if !empty && !seen.contains(&next) => seen.push(next),
            _ => return Ok(items),
        }
    }
}

/// The query of the next page's link. Only the query: behind a proxy the link's host and path are not always
/// those that we can reach.
fn next_query(body: &Value, key: &str) -> Option<Vec<(String, String)>> {
    let links = body.get(format!("{key}_links"))?.as_array()?;
    let next = links.iter().find(|link| link.get("rel").and_then(Value::as_str) == Some("next"))?;
    let href = reqwest::Url::parse(next.get("href")?.as_str()?).ok()?;
    Some(href.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
}
