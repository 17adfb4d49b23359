//! Servers and names that mean harm, or fail.

use super::*;

#[tokio::test]
async fn addresses_that_are_not_public_are_not_connected_to_whatever_their_form() {
    let server = Server::start([ok("reached")]).await;
    let names = Names::new(&[
        ("private.test", &[&["10.0.0.1"]]),
        ("loop.test", &[&["127.0.0.2"]]),
        ("mapped.test", &[&["::ffff:127.0.0.2"]]),
        ("nat.test", &[&["64:ff9b::7f00:1"]]),
        ("meta.test", &[&["169.254.169.254"]]),
        ("none.test", &[&[]]),
    ]);
    for (host, reason) in [
        ("127.0.0.2", "127.0.0.2, which is loopback and not in `allow`"),
        ("127.2", "127.0.0.2, which is loopback"),
        ("0x7f000002", "127.0.0.2, which is loopback"),
        ("2130706434", "127.0.0.2, which is loopback"),
        ("0177.0.0.2", "127.0.0.2, which is loopback"),
        ("0.0.0.0", "unspecified"),
        ("[::1]", "::1, which is loopback"),
        ("[::ffff:127.0.0.2]", "loopback"),
        ("[64:ff9b::127.0.0.1]", "loopback"),
        ("[2002:7f00:1::]", "loopback"),
        ("10.1.2.3", "private"),
        ("169.254.169.254", "secrets about themselves"),
        ("[::ffff:169.254.169.254]", "secrets about themselves"),
        ("[fd00:ec2::254]", "secrets about themselves"),
        ("private.test", "10.0.0.1, which is private"),
        ("loop.test", "127.0.0.2, which is loopback"),
        ("mapped.test", "loopback"),
        ("nat.test", "loopback"),
        ("meta.test", "secrets about themselves"),
        ("none.test", "it has no address"),
        ("unknown.test", "unknown.test was not found"),
    ] {
        let done = run(&executor(names.clone()), get(&server.at("http", host, "/"))).await;
        not_started(&done, reason);
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn no_configuration_opens_the_way_to_metadata() {
    let everything = config(&["0.0.0.0/0", "::/0"]);
    let executor = HttpExecutor::resolving(everything, Box::new(Names::default())).unwrap();
    for host in ["169.254.169.254", "[fe80::1]", "[::ffff:a9fe:a9fe]", "100.100.100.200"] {
        let done = run(&executor, get(&format!("http://{host}/latest/meta-data/"))).await;
        not_started(&done, "no configuration allows that");
    }
}

#[tokio::test]
async fn the_address_that_was_judged_is_the_one_that_is_connected_to() {
    // Of several addresses, those that are refused are passed over.
    let server = Server::start([ok("reached")]).await;
    let refused = std::net::TcpListener::bind(("127.0.0.2", server.address.port())).unwrap();
    refused.set_nonblocking(true).unwrap();
    let names = Names::new(&[("mixed.test", &[&["127.0.0.2", "127.0.0.1"]])]);
    let done = run(&executor(names.clone()), get(&server.at("http", "mixed.test", "/"))).await;
    answered(&done, true, "HTTP 200");
    assert_eq!(refused.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(names.lookups(), ["mixed.test"], "looked up once for one connection");
    // A name that means something else the second time it is asked for.
    let server = Server::start([found(302, "/again"), ok("reached")]).await;
    let names = Names::new(&[("turns.test", &[&["127.0.0.1"], &["169.254.169.254"]])]);
    let done = run(&executor(names.clone()), get(&server.at("http", "turns.test", "/"))).await;
    answered(&done, false, "HTTP 302 Found led to http://turns.test");
    answered(&done, false, "which was not asked: no connection to http://turns.test");
    assert_eq!((names.lookups().len(), server.connections()), (2, 1));
}

#[tokio::test]
async fn a_body_is_read_to_its_bound_and_not_further() {
    let chunk = b"400\r\n".iter().copied().chain([b'x'; 0x400]).chain(*b"\r\n");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for reply in [
        Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 4096]),
        Reply::Endless(chunked.into(), chunk.collect()),
        Reply::Endless(
            b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551000\r\n\r\n".to_vec(),
            vec![b'x'; 4096],
        ),
        ok(&"x".repeat(1001)),
    ] {
        let server = Server::start([reply]).await;
        let done = simple(get(&server.url("/"))).await;
        answered(&done, true, "HTTP 200 OK");
        assert!(done.truncated());
        assert_eq!(text(&done), "x".repeat(1000));
        server.all_ended().await;
    }
    let server = Server::start([ok(&"x".repeat(1000))]).await;
    let done = simple(get(&server.url("/"))).await;
    assert!(!done.truncated() && done.stdout.len() == 1000);
}

#[tokio::test]
async fn a_body_that_is_not_what_was_announced_is_an_error_that_keeps_what_came() {
    for (reply, kept, says) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "half", "broke off"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", "half", "broke off"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
            "half",
            "broke off",
        ),
        // What comes after it belongs to nobody.
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhalf and more", "half", "HTTP 200 OK"),
        (
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
            "abc",
            "compressed with gzip, which was not asked for",
        ),
    ] {
        let server = Server::start([reply.into()]).await;
        let done = simple(get(&server.url("/"))).await;
        answered(&done, says == "HTTP 200 OK", says);
        assert_eq!(text(&done), kept);
    }
}

#[tokio::test]
async fn a_compressed_bomb_is_not_unpacked() {
    // Zeros, 1 MiB of them, in a deflate stream of one kilobyte.
    let mut bomb = b"HTTP/1.1 200 OK\r\ncontent-encoding: deflate\r\n\r\n\x78\x9c".to_vec();
    bomb.extend([0xed, 0xc1, 0x01, 0x01, 0, 0, 0, 0x80, 0x90, 0xfe, 0xaf, 0xee, 0x08, 0x0a]);
    bomb.extend([0; 1005]);
    let server = Server::start([Reply::Close(bomb)]).await;
    let done = simple(get(&server.url("/"))).await;
    answered(&done, false, "compressed with deflate");
    assert!(done.truncated() && done.stdout.len() == 1000);
}

#[tokio::test]
async fn the_deadline_holds_against_every_kind_of_slowness() {
    let limits = || RunLimits { timeout: Duration::from_millis(300), ..RunLimits::default() };
    for (reply, kept) in [
        (Reply::Stall(Vec::new()), ""),
        (Reply::Stall(b"HTTP/1.1 200 OK\r\n".to_vec()), ""),
        (Reply::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec()), "half"),
        (Reply::Drip(b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".to_vec()), ""),
        (Reply::Drip(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), b"x".to_vec()), "x"),
        (Reply::Drip(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()), ""),
        (Reply::Endless(Vec::new(), b"HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n".to_vec()), ""),
    ] {
        let drips = matches!(reply, Reply::Drip(..));
        let server = Server::start([reply]).await;
        let done = run_within(&executor(Names::default()), get(&server.url("/")), limits()).await;
        if drips && done.status != ExecutionStatus::TimedOut {
            // So many fields that there were too many before the deadline.
            unknown(&done, "no response");
            continue;
        }
        assert_eq!(done.status, ExecutionStatus::TimedOut);
        assert!(text(&done).starts_with(kept), "{done:?}");
        server.all_ended().await;
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_or_malformed_leaves_the_outcome_unknown() {
    let line = format!("x: {}\r\n", "y".repeat(1000));
    for (reply, reason) in [
        (format!("HTTP/1.1 200 OK\r\n{}\r\n", line.repeat(100)), "no response"),
        (format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101)), "no response"),
        ("HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n".to_owned(), "no response"),
        ("HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n".to_owned(), "no response"),
        ("HTTP/1.1 200 OK\r\nx y: a\r\n\r\n".to_owned(), "no response"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".into(), "no"),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n".to_owned(), "no response"),
        ("HTTP/1.1 2x0 OK\r\n\r\n".to_owned(), "no response"),
        ("HTTP/9.9 200 OK\r\n\r\n".to_owned(), "no response"),
        ("SSH-2.0-server\r\n".to_owned(), "no response"),
        ("an old server's plain words".to_owned(), "no response"),
    ] {
        let server = Server::start([Reply::Close(reply.into())]).await;
        let done = simple(get(&server.url("/"))).await;
        unknown(&done, reason);
        assert_eq!(server.connections(), 1, "asked once");
    }
    let most = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{}\r\n", "x: y\r\n".repeat(99));
    let server = Server::start([Reply::Close(most.into())]).await;
    answered(&simple(get(&server.url("/"))).await, true, "HTTP 200 OK");
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_unknown_and_not_sent_again() {
    for reply in [Reply::Close(Vec::new()), Reply::Close(b"HTTP/1.1 20".to_vec())] {
        for method in ["GET", "POST"] {
            let server = Server::start([reply.clone(), ok("second")]).await;
            let url = server.url("/");
            let done = simple(plan(json!({"method": method, "url": url, "body": ["x"]}))).await;
            unknown(&done, "no response");
            assert_eq!((server.connections(), server.requests().len()), (1, 1));
        }
    }
    // Nobody listens: nothing arrived.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    not_started(&simple(get(&format!("http://{address}/"))).await, "Connection refused");
}

#[tokio::test]
async fn cookies_and_unknown_fields_of_the_answer_stay_here() {
    let reply = "HTTP/1.1 200 OK\r\nset-cookie: session=1\r\nx-internal: 1\r\nETag: \"e\"\r\n\
                 X-RateLimit-Remaining: 3\r\ncontent-length: 0\r\n\r\n";
    let server = Server::start([reply.into()]).await;
    let done = simple(get(&server.url("/"))).await;
    let head = "HTTP 200 OK\netag: \"e\"\nx-ratelimit-remaining: 3\ncontent-length: 0\n";
    assert_eq!(String::from_utf8(done.stderr).unwrap(), head);
}

#[tokio::test]
async fn a_dropped_run_closes_its_connection() {
    let server = Server::start([Reply::Stall(Vec::new())]).await;
    let (executor, plan) = (executor(Names::default()), get(&server.url("/")));
    let running = tokio::spawn(async move { run(&executor, plan).await });
    let start = std::time::Instant::now();
    while server.requests().is_empty() {
        assert!(start.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    running.abort();
    server.all_ended().await;
}
