//! One request on its way out: a plan, and what redirects made of it.

use countersign_core::plan::{HttpPlan, Piece};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use url::Url;

use crate::connect::{Target, origin, request_target};
use crate::secret::Secrets;

/// A request with its secrets still named.
#[derive(Clone)]
pub(crate) struct Outgoing {
    method: Method,
    url: Url,
    headers: Vec<(HeaderName, Vec<Piece>)>,
    body: Option<Vec<Piece>>,
}

impl Outgoing {
    /// The plan's own request. The error says which part of it cannot be sent.
    pub(crate) fn new(plan: &HttpPlan, secrets: &Secrets) -> Result<Self, String> {
        let method = Method::from_bytes(plan.method.as_bytes())
            .map_err(|_| "the method is none of HTTP".to_owned())?;
        let url = Url::parse(&plan.url).map_err(|error| format!("the URL is none: {error}"))?;
        let mut headers = Vec::new();
        for header in &plan.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes())
                .map_err(|_| "a header has no name that can be sent".to_owned())?;
            headers.push((name, header.value.clone()));
        }
        let outgoing = Self { method, url, headers, body: plan.body.clone() };
        for name in outgoing.secrets() {
            if !secrets.has(name) {
                return Err(format!(
                    "there is no secret `{name}`; name it in [secrets] of the configuration"
                ));
            }
        }
        Ok(outgoing)
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Without query, which may be long.
    pub(crate) fn shown(&self) -> String {
        crate::quote::quote(&format!("{}{}", origin(&self.url), self.url.path()))
    }

    pub(crate) fn has_body(&self) -> bool {
        self.body.is_some()
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        let values = self.headers.iter().map(|(_, value)| value).chain(&self.body);
        values.flatten().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Secret(secret) => Some(secret.secret.as_str()),
        })
    }

    pub(crate) fn has_secrets(&self) -> bool {
        self.secrets().next().is_some()
    }

    /// The same request, to another place of the same origin.
    pub(crate) fn at(&self, url: Url) -> Self {
        Self { url, ..self.clone() }
    }

    /// A question to another place, without anything of the manifest's but the URL's own.
    pub(crate) fn bare(&self, url: Url) -> Self {
        let method = self.question_method();
        Self { method, url, headers: Vec::new(), body: None }
    }

    /// A question in place of this request, to the same origin: without what describes a body.
    pub(crate) fn question(&self, url: Url) -> Self {
        let headers = self
            .headers
            .iter()
            .filter(|(name, _)| !name.as_str().starts_with("content-") && name != HOST);
        let method = self.question_method();
        Self { method, url, headers: headers.cloned().collect(), body: None }
    }

    fn question_method(&self) -> Method {
        if self.method == Method::HEAD { Method::HEAD } else { Method::GET }
    }

    pub(crate) fn target(&self) -> Result<Target, String> {
        Target::of(&self.url).ok_or_else(|| "the URL is none of http or https".to_owned())
    }

    /// With the secrets put in. The error names what cannot be sent, and repeats nothing of it.
    pub(crate) fn request(&self, secrets: &Secrets) -> Result<Request<Full<Bytes>>, String> {
        let (target, host) =
            request_target(&self.url).ok_or_else(|| "the URL cannot be sent".to_owned())?;
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(target)
            .header(HOST, host)
            // A compressed answer could unpack to any size.
            .header(ACCEPT_ENCODING, "identity");
        let has = |name: HeaderName| self.headers.iter().any(|(known, _)| *known == name);
        if !has(USER_AGENT) {
            let agent = concat!("countersign/", env!("CARGO_PKG_VERSION"));
            request = request.header(USER_AGENT, agent);
        }
        if !has(ACCEPT) {
            request = request.header(ACCEPT, "*/*");
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != ACCEPT_ENCODING) {
            let bytes = secrets.fill(value)?;
            let mut sent = HeaderValue::from_bytes(bytes.as_bytes()).map_err(|_| {
                let secret = value.iter().any(|piece| matches!(piece, Piece::Secret(_)));
                let why = if secret { ", with its secret put in," } else { "" };
                format!("the header `{name}`{why} holds a control character")
            })?;
            sent.set_sensitive(true);
            request = request.header(name.clone(), sent);
        }
        let body = match &self.body {
            Some(body) => Bytes::from_owner(secrets.fill(body)?),
            None => Bytes::new(),
        };
        request.body(Full::new(body)).map_err(|error| format!("no request: {error}"))
    }
}
