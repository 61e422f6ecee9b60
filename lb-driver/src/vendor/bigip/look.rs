//! Reads what is on a unit: lists by the page, and what in them is ours.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

use super::{
    derive::Style,
    foreign::Foreign,
    objects::{Kind, MARK, Object, Objects},
    replies,
    unit::{Failure, Request, Unit},
};

/// Objects on a page: fewer where what stands below them comes along, which is slow.
const PAGE: usize = 100;
/// Fewest that are asked for at once.
const SMALLEST_PAGE: usize = 10;
/// How often a list that changed meanwhile is read anew.
const TRIES: usize = 3;

/// What was read of a unit.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) unit: usize,
    pub(super) objects: Arc<Objects>,
    /// Names of partitions of ours.
    pub(super) partitions: BTreeSet<String>,
    pub(super) foreign: Arc<Foreign>,
}

/// A whole collection, page by page; a list that changed meanwhile is read anew.
pub(super) async fn list(unit: &Unit, path: &str, expand: bool) -> Result<Vec<Value>, Failure> {
    let (mut size, mut tries) = (PAGE, 0);
    'anew: loop {
        let mut items = Vec::new();
        loop {
            let skip = items.len();
            let more = if expand { "&expandSubcollections=true" } else { "" };
            let path = format!("tm/{path}?$top={size}&$skip={skip}{more}");
            let repeatable = !expand || size <= SMALLEST_PAGE;
            let request = Request { repeatable, ..Request::get(&path) };
            let page = match unit.read::<replies::Page>(request).await {
                // what takes too long at once may do in smaller parts
                Err(Failure::Lost(_) | Failure::Doubtful(_)) if !repeatable => {
                    size = (size / 2).max(SMALLEST_PAGE);
                    continue;
                }
                page => page?,
            };
            let (count, total) = (page.items.len(), page.total_items);
            items.extend(page.items);
            if page.next_link.is_some() && count > 0 {
                continue;
            }
            match total {
                Some(total) if total != items.len() && tries < TRIES => {
                    tries += 1;
                    continue 'anew;
                }
                // an incomplete list would look as if something had gone
                Some(total) if total != items.len() => {
                    let got = items.len();
                    let said = format!("{path}: {got} objects of {total}, it keeps changing");
                    return Err(Failure::Busy(said));
                }
                _ => return Ok(items),
            }
        }
    }
}

/// What the description of a partition says when it is ours.
pub(super) fn partition_mark(name: &str, style: &Style) -> String {
    match name.strip_prefix(&style.prefix) {
        Some(project) => format!("{MARK} project {project}"),
        None => format!("{MARK} state"),
    }
}

/// Everything that is ours, and what of others could meet it.
pub(super) async fn look(index: usize, unit: &Unit, style: &Style) -> Result<Seen, Failure> {
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    for item in list(unit, "auth/partition", false).await? {
        let (Some(name), said) = (item["name"].as_str(), item["description"].as_str().unwrap_or_default())
        else {
            continue;
        };
        let names = if said == partition_mark(name, style) { &mut ours } else { &mut theirs };
        names.insert(name.to_owned());
    }
    let (mut objects, mut others) = (Objects::new(), Vec::new());
    for kind in Kind::ALL {
        for item in list(unit, kind.collection(), kind.has_subcollections()).await? {
            match Object::read(kind, item.clone()) {
                Some((key, object)) if ours.contains(&key.partition) => {
                    objects.insert(key, object);
                }
                _ => others.push((kind, item)),
            }
        }
    }
    let foreign = Arc::new(Foreign::new(theirs, &others, &ours, &objects));
    Ok(Seen { unit: index, objects: Arc::new(objects), partitions: ours, foreign })
}
