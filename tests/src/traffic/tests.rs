use super::*;

fn server(answers: Vec<&'static str>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn a_loop_counts_what_was_lost_and_for_how_long() {
    let mut seen = Loop::default();
    for (at, good) in [(0.1, true), (0.5, false), (0.9, true), (1.5, false), (2.0, true)] {
        seen.note(at, if good { Ok(()) } else { Err("no".into()) });
    }
    assert_eq!((seen.sent, seen.lost), (5, 2));
    assert!((seen.seconds_of_loss() - 1.0).abs() < 1e-9);
}

#[test]
fn the_first_answer_comes_over_the_first_connection() {
    let address = server(vec!["HTTP/1.1 200 OK\r\n\r\n"]); // which takes no other
    assert!(first_answer(address, "/", Duration::from_secs(1)).is_ok());
}

#[test]
fn round_trips_without_any_answer_say_what_was_in_the_way() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let complaint = latency(nobody, "/", 3).unwrap_err();
    assert!(complaint.contains(&nobody.to_string()), "{complaint}");
    assert!(complaint.contains("3 requests") && complaint.contains("refused"), "{complaint}");
    let one = server(vec!["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]);
    assert_eq!(latency(one, "/", 1).unwrap().count, 1);
}

#[test]
fn a_loop_goes_on_until_it_is_calm() {
    let address = server(vec![
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 503 Busy\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ]);
    let (pace, calm) = (Duration::from_millis(40), Duration::from_millis(100));
    let mut asked = 0;
    let stop = || {
        asked += 1;
        asked > 2
    };
    let seen = request_loop(address, "/", pace, Duration::from_secs(5), calm, stop);
    assert!(seen.sent > 3, "{seen:?}");
    assert_eq!(seen.complaints.get("answer: status 503"), Some(&1), "{seen:?}");
}

#[test]
fn a_flow_tells_how_its_connection_ended() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 512];
        for answer in
            ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]
        {
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let seen = flow(address, "/", Duration::ZERO, Duration::from_secs(5), || false);
    assert_eq!(seen.answers, 2);
    assert!(seen.broken.is_some() && seen.longest < 5.0, "{seen:?}");
}

#[test]
fn a_flow_of_datagrams_measures_the_longest_silence() {
    let answering = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = answering.local_addr().unwrap();
    std::thread::spawn(move || {
        for number in 0..40 {
            let Ok((_, from)) = answering.recv_from(&mut [0; 16]) else { return };
            // Ten datagrams, 10 ms apart, get no answer.
            if !(10..20).contains(&number) {
                let _ = answering.send_to(b"x", from);
            }
        }
    });
    let mut left = 40;
    let seen = udp_flow(address, "x", Duration::from_millis(10), Duration::from_secs(9), || {
        left -= 1;
        left < 0
    });
    assert!(seen.answers > 20 && seen.longest >= 0.1 && seen.broken.is_none(), "{seen:?}");
}

#[test]
fn only_an_answer_of_200_is_good() {
    let address = server(vec!["HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.1 503 No\r\n\r\n", "garbage"]);
    assert_eq!(get(address, "/").unwrap(), "hello");
    assert!(get(address, "/").unwrap_err().contains("503"));
    assert!(get(address, "/").is_err());
}

#[test]
fn answers_are_counted_by_what_they_say() {
    let [a, b] = ["HTTP/1.1 200 OK\r\n\r\na", "HTTP/1.1 200 OK\r\n\r\nb"];
    let address = server(vec![a, b, a]);
    let seen = spread(address, "/hostname", 3);
    assert_eq!((seen.answers["a"], seen.answers["b"], seen.lost), (2, 1, 0));
}
