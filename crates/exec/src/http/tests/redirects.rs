//! Where answers lead, and what is taken along.

use super::*;

fn with_secret(method: &str, url: &str, body: Option<Value>) -> HttpPlan {
    let mut value = json!({
        "method": method,
        "url": url,
        "headers": [
            {"name": "authorization", "value": [{"secret": "key", "escape": "none"}]},
            {"name": "x-plain", "value": ["plain"]},
            {"name": "content-type", "value": ["text/plain"]},
        ],
    });
    if let Some(body) = body {
        value["body"] = body;
    }
    plan(value)
}

#[tokio::test]
async fn the_same_origin_gets_the_same_request_or_a_question_as_the_status_says() {
    for (method, code, then, has_body) in [
        ("GET", 301, "GET", false),
        ("GET", 302, "GET", false),
        ("GET", 303, "GET", false),
        ("GET", 307, "GET", false),
        ("GET", 308, "GET", false),
        ("HEAD", 303, "HEAD", false),
        ("POST", 301, "GET", false),
        ("POST", 302, "GET", false),
        ("POST", 303, "GET", false),
        ("POST", 307, "POST", true),
        ("POST", 308, "POST", true),
        ("PUT", 302, "PUT", true),
        ("PUT", 303, "GET", false),
        ("DELETE", 301, "DELETE", false),
    ] {
        let server = Server::start([found(code, "/b?c"), status(204, "")]).await;
        let body = matches!(method, "POST" | "PUT").then(|| json!(["the body"]));
        let done = simple(with_secret(method, &server.url("/a"), body)).await;
        answered(&done, true, "HTTP 204");
        let second = server.requests()[1].clone();
        assert!(second.starts_with(&format!("{then} /b?c HTTP/1.1\r\n")), "{method} {code}");
        assert_eq!(second.ends_with("the body"), has_body, "{method} {code}");
        assert!(second.contains(&format!("authorization: {SECRET}\r\n")));
        let described = then == method && code != 303;
        assert_eq!(second.contains("content-type"), described, "{method} {code}: {second}");
    }
}

#[tokio::test]
async fn another_origin_gets_a_plain_question_and_nothing_of_the_manifests() {
    let names = Names::new(&[("a.test", &[&["127.0.0.1"]]), ("b.test", &[&["127.0.0.1"]])]);
    for code in [301, 302, 303, 307, 308] {
        let other = Server::start([ok("other")]).await;
        let first = Server::start([found(code, &other.at("http", "b.test", "/x?y#z"))]).await;
        let plan = with_secret("GET", &first.at("http", "a.test", "/"), None);
        let done = run(&executor(names.clone()), plan).await;
        answered(&done, true, "HTTP 200");
        assert_eq!(text(&done), "other");
        let request = &other.requests()[0];
        assert_eq!(
            *request,
            format!(
                "GET /x?y HTTP/1.1\r\nhost: b.test:{}\r\naccept-encoding: identity\r\n\
                 user-agent: countersign/{}\r\naccept: */*\r\n\r\n",
                other.address.port(),
                env!("CARGO_PKG_VERSION")
            )
        );
        assert!(first.requests()[0].contains(SECRET));
    }
}

#[tokio::test]
async fn another_origin_never_gets_what_changes_something_or_has_a_body() {
    let names = Names::new(&[("a.test", &[&["127.0.0.1"]]), ("b.test", &[&["127.0.0.1"]])]);
    for (method, body) in [
        ("POST", Some(json!(["x"]))),
        ("POST", None),
        ("DELETE", None),
        ("GET", Some(json!([{"secret": "key", "escape": "none"}]))),
    ] {
        for code in [301, 302, 303, 307, 308] {
            let other = Server::start([ok("other")]).await;
            // The same name at another port, and another name.
            for host in ["a.test", "b.test"] {
                let first = Server::start([found(code, &other.at("http", host, "/"))]).await;
                let plan = with_secret(method, &first.at("http", "a.test", "/"), body.clone());
                let done = run(&executor(names.clone()), plan).await;
                answered(&done, false, "is another origin");
                assert!(done.stdout.is_empty());
            }
            assert_eq!(other.connections(), 0);
        }
    }
}

#[tokio::test]
async fn where_a_request_may_not_go_no_redirect_leads() {
    let names = Names::new(&[
        ("private.test", &[&["192.168.0.1"]]),
        ("meta.test", &[&["169.254.169.254"]]),
    ]);
    for (location, reason) in [
        ("http://169.254.169.254/latest/meta-data/", "secrets about themselves"),
        ("http://[::ffff:169.254.169.254]/", "secrets about themselves"),
        ("http://[::ffff:a9fe:a9fe]/", "secrets about themselves"),
        ("http://2852039166/", "secrets about themselves"),
        ("http://meta.test/", "secrets about themselves"),
        ("http://127.0.0.2:9/", "loopback"),
        ("http://2130706434:9/", "loopback"),
        ("http://0x7f.2:9/", "loopback"),
        ("//127.0.0.2:9/", "loopback"),
        ("\\\\127.0.0.2:9/", "loopback"),
        ("http://[::1]:9/", "loopback"),
        ("http://private.test/", "private"),
        ("http://u@127.0.0.1/", "a user or a password"),
        ("http://:p@127.0.0.1/", "a user or a password"),
        ("file:///etc/passwd", "`file` is none of http or https"),
        ("ftp://127.0.0.1/", "`ftp` is none of"),
        ("javascript:alert(1)", "`javascript` is none of"),
        ("http://", "is no address"),
        ("http://a b/", "is no address"),
        ("/\r\nlocation: /b", "several places"),
    ] {
        let server = Server::start([found(302, location), ok("reached")]).await;
        let done = run(&executor(names.clone()), get(&server.url("/"))).await;
        answered(&done, false, "HTTP 302 Found");
        answered(&done, false, reason);
        assert_eq!(server.connections(), 1, "{location}");
        assert!(done.stdout.is_empty(), "{location}");
    }
}

#[tokio::test]
async fn redirects_end_and_only_redirects_are_some() {
    let server = Server::start([found(302, "/")]).await;
    answered(&simple(get(&server.url("/"))).await, false, "it is the 6th");
    assert_eq!(server.connections(), 6);
    // Neither of these is one.
    for reply in [found(300, "/b"), found(304, "/b"), found(200, "/b"), status(302, ":)")] {
        let server = Server::start([reply]).await;
        simple(get(&server.url("/"))).await;
        assert_eq!(server.connections(), 1);
    }
    // The manifest takes it as it is.
    let server = Server::start([found(302, "/b")]).await;
    let url = server.url("/");
    let plan = plan(json!({"method": "GET", "url": url, "success_status": [302]}));
    let done = simple(plan).await;
    answered(&done, true, "HTTP 302");
    assert_eq!((text(&done), server.connections()), (":)", 1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("location: /b"));
    // After it, the request to the next place may arrive as well.
    let server = Server::start([found(302, "/b"), Reply::Close(Vec::new())]).await;
    unknown(&simple(get(&server.url("/"))).await, "no response");
}
