//! Debian's MariaDB on a folder and a port of its own, once for all tests of a program. It ends, and its folder
//! goes, when the program's end closes the pipe that keeps it.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

const KEEPER: &str = r#"
set -e
folder=$(mktemp -d)
trap 'exec 2>/dev/null; kill -9 "$server"; wait; rm -rf "$folder"' EXIT
mariadb-install-db --no-defaults --user=root --datadir="$folder/data" --skip-test-db \
    --auth-root-authentication-method=normal >"$folder/log" 2>&1 || { cat "$folder/log" >&2; exit 1; }
mariadbd --no-defaults --user=root --datadir="$folder/data" --socket="$folder/socket" --bind-address=127.0.0.1 \
    --port="$1" --innodb-buffer-pool-size=32M --innodb-flush-log-at-trx-commit=0 >>"$folder/log" 2>&1 &
server=$!
for _ in $(seq 3000); do
    mariadb-admin --no-defaults --socket="$folder/socket" ping >/dev/null 2>&1 && break
    kill -0 "$server" || { cat "$folder/log" >&2; exit 1; }
    sleep 0.1
done
mariadb --no-defaults --socket="$folder/socket" -e "CREATE USER ake@'127.0.0.1' IDENTIFIED BY 'sec/ret'; GRANT ALL ON \`ake%\`.* TO ake@'127.0.0.1';"
echo "$folder/socket"
cat >/dev/null
"#;

struct Server {
    port: u16,
    socket: String,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut keeper = Command::new("bash")
        .args(["-c", KEEPER, "keeper", &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash, and Debian's mariadb-server (tools/setup)");
    let mut socket = String::new();
    BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut socket).unwrap();
    assert!(!socket.is_empty(), "MariaDB does not start; is Debian's mariadb-server there (tools/setup)?");
    // its standard input stays open as long as this program runs
    std::mem::forget(keeper);
    Server { port, socket: socket.trim().to_owned() }
});

/// The URL of a new, empty database, for a user who has a password and that database alone.
pub(crate) fn fresh() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("ake{}", COUNT.fetch_add(1, Ordering::Relaxed));
    sql(&format!("CREATE DATABASE {name}"));
    format!("mysql://ake:sec%2Fret@127.0.0.1:{}/{name}", SERVER.port)
}

/// Runs statements as the database's administrator.
pub(crate) fn sql(statements: &str) -> String {
    let done = Command::new("mariadb")
        .args([
            "--no-defaults",
            "--batch",
            "--skip-column-names",
            "--socket",
            &SERVER.socket,
            "-e",
            statements,
        ])
        .output()
        .unwrap();
    assert!(done.status.success(), "{statements}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
