//! Where an answer leads.

use hyper::header::{HeaderMap, LOCATION};
use hyper::{Method, StatusCode};

use super::request::Outgoing;
use crate::connect::origin;
use crate::quote::quote;

/// Bytes of a Location.
const LOCATION_MAX: usize = 8 << 10;

pub(super) enum Next {
    Follow(Outgoing),
    /// And why not.
    Refused(String),
}

/// What follows from a redirect, with so many still to be followed; `None` if the answer is none.
pub(super) fn next(
    from: &Outgoing,
    status: StatusCode,
    headers: &HeaderMap,
    left: usize,
) -> Option<Next> {
    let repeats = match status.as_u16() {
        307 | 308 => true,
        // As everybody does it, whatever the words once were.
        301 | 302 => *from.method() != Method::POST,
        303 => false,
        _ => return None,
    };
    let location = headers.get(LOCATION)?;
    let refused = |why: String| Some(Next::Refused(why));
    if headers.get_all(LOCATION).iter().count() > 1 {
        return refused("it names several places".to_owned());
    }
    if location.len() > LOCATION_MAX {
        return refused(format!("its address exceeds {LOCATION_MAX} bytes"));
    }
    let text = String::from_utf8_lossy(location.as_bytes());
    let mut url = match from.url().join(&text) {
        Ok(url) => url,
        Err(error) => return refused(format!("`{}` is no address: {error}", quote(&text))),
    };
    url.set_fragment(None);
    let shown = quote(&origin(&url));
    if !matches!(url.scheme(), "http" | "https") {
        return refused(format!("`{}` is none of http or https", quote(url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("its address holds a user or a password".to_owned());
    }
    if from.url().scheme() == "https" && url.scheme() == "http" {
        return refused(format!("{shown} is not encrypted, and the request was"));
    }
    if left == 0 {
        return refused(format!("it is the {}th", super::REDIRECTS_MAX + 1));
    }
    let question = matches!(*from.method(), Method::GET | Method::HEAD);
    if url.origin() != from.url().origin() {
        // Also of a POST that would become a GET: what was approved was for the first origin.
        if !question || from.has_body() {
            let why = format!("{shown} is another origin, and the request is no plain GET");
            return refused(why);
        }
        return Some(Next::Follow(from.bare(url)));
    }
    Some(Next::Follow(match repeats {
        true => from.at(url),
        false => from.question(url),
    }))
}
