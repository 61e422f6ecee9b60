//! Against the kernel itself, in a network namespace of the test's own. They need root, ip and nft.

use std::{path::Path, process::Command};

use super::*;
use crate::agent::config::tests::{dual_stack, sample};

fn run(command: &str) -> String {
    let done = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// A node with one link. The namespace goes with the thread.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("tests of the network need root");
        run("ip link set lo up; ip link add eth0 mtu 1442 type veth peer name far; ip link set far up; ip link set eth0 up;
             ip address add 192.168.77.30/24 dev eth0; ip route add default via 192.168.77.1;
             ip route add 10.240.9.0/24 via 192.168.77.9");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    thread.join().unwrap();
}

fn nodes() -> Vec<NodeView> {
    [("demo-worker-0", "192.168.77.30", "10.240.0.0/24"), ("demo-worker-1", "192.168.77.31", "10.240.1.0/24")]
        .map(|(name, address, range)| NodeView {
            name: name.into(),
            addresses: vec![address.parse().unwrap()],
            pod_ranges: vec![range.parse().unwrap()],
        })
        .to_vec()
}

fn options(cni: &Path) -> Options {
    Options { kubeconfig: PathBuf::new(), cni: cni.to_owned(), period: Duration::from_secs(1) }
}

async fn steps(keeper: &Keeper<'_>, nodes: &[NodeView]) -> Vec<String> {
    let seen =
        observe::observe(&keeper.netlink, &keeper.guard, &keeper.options.cni, keeper.config).await.unwrap();
    let wanted = plan::Wanted::new(keeper.config, own_address(keeper.config, &seen), Some(nodes));
    plan::plan(&wanted, &seen).steps.iter().map(ToString::to_string).collect()
}

fn keeper<'a>(config: &'a NodeConfig, options: &'a Options) -> Keeper<'a> {
    let netlink = Netlink::open().unwrap();
    Keeper { netlink, config, options, guard: guard::Guard::default(), told: String::new() }
}

#[test]
fn a_node_comes_to_what_is_wanted_and_stays_without_a_write() {
    in_namespace(|| async {
        let cni = tempfile::tempdir().unwrap();
        let config = NodeConfig::parse(&sample("worker").to_string()).unwrap();
        let options = options(cni.path());
        let mut first = keeper(&config, &options);
        assert!(first.converge(Some(&nodes())).await.unwrap());
        assert_eq!(run("ip route show proto 107").trim(), "10.240.1.0/24 via 192.168.77.31 dev eth0");
        let conflist = std::fs::read_to_string(cni.path().join(cni::FILE)).unwrap();
        assert!(conflist.contains("10.240.0.0/24") && conflist.contains("1442"), "{conflist}");
        assert_eq!(steps(&first, &nodes()).await, Vec::<String>::new());
        // A restarted agent knows its own work again.
        assert_eq!(steps(&keeper(&config, &options), &nodes()).await, Vec::<String>::new());
    });
}

#[test]
fn an_agent_that_dies_between_two_steps_is_followed_by_one_that_ends_the_work() {
    // In a new namespace for each step more that the first one lives to take.
    for lived in 0.. {
        let (tell, told) = std::sync::mpsc::channel();
        in_namespace(move || async move { tell.send(end_the_work_of_one_that_took(lived).await).unwrap() });
        if told.recv().unwrap() <= lived {
            break;
        }
    }
}

/// How many steps there were.
async fn end_the_work_of_one_that_took(lived: usize) -> usize {
    run("ip route add 10.240.7.0/24 via 192.168.77.9 proto 107");
    let cni = tempfile::tempdir().unwrap();
    let config = NodeConfig::parse(&sample("worker").to_string()).unwrap();
    let options = options(cni.path());
    let nodes = nodes();
    let mut first = keeper(&config, &options);
    let seen = observe::observe(&first.netlink, &first.guard, cni.path(), &config).await.unwrap();
    let wanted = plan::Wanted::new(&config, own_address(&config, &seen), Some(&nodes));
    let all = plan::plan(&wanted, &seen).steps;
    assert!(all.len() >= 4, "a guard, a route that comes and one that goes, and CNI: {all:?}");
    for step in all.iter().take(lived) {
        apply::apply(step, &first.netlink, &mut first.guard, cni.path()).await.unwrap();
    }
    drop(first);

    let mut second = keeper(&config, &options);
    assert_eq!(steps(&second, &nodes).await.len(), all.len() - lived, "{lived} of {all:?}");
    assert!(second.converge(Some(&nodes)).await.unwrap());
    assert_eq!(steps(&second, &nodes).await, Vec::<String>::new(), "after {lived} of {all:?}");
    assert_eq!(run("ip route show proto 107").trim(), "10.240.1.0/24 via 192.168.77.31 dev eth0");
    all.len()
}

#[test]
fn a_node_of_two_families_has_routes_of_both() {
    in_namespace(|| async {
        run("ip address add fd00:77::30/64 dev eth0 nodad; ip route add default via fd00:77::1");
        let cni = tempfile::tempdir().unwrap();
        let config = NodeConfig::parse(&dual_stack("worker").to_string()).unwrap();
        let options = options(cni.path());
        let mut keeper = keeper(&config, &options);
        let mut nodes = nodes();
        for (number, node) in nodes.iter_mut().enumerate() {
            node.addresses.push(format!("fd00:77::3{number}").parse().unwrap());
            node.pod_ranges.push(format!("fd00:240:0:10{number}::/64").parse().unwrap());
        }
        assert!(keeper.converge(Some(&nodes)).await.unwrap());
        assert_eq!(
            run("ip -6 route show proto 107").split(" metric").next().unwrap().trim(),
            "fd00:240:0:101::/64 via fd00:77::31 dev eth0"
        );
        assert_eq!(run("ip route show proto 107").trim(), "10.240.1.0/24 via 192.168.77.31 dev eth0");
        let conflist = std::fs::read_to_string(cni.path().join(cni::FILE)).unwrap();
        assert!(conflist.contains("fd00:240:0:100::/64"), "{conflist}");
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").unwrap().trim(), "1");
        assert_eq!(steps(&keeper, &nodes).await, Vec::<String>::new());
    });
}

#[test]
fn only_own_routes_are_removed() {
    in_namespace(|| async {
        let cni = tempfile::tempdir().unwrap();
        let config = NodeConfig::parse(&sample("worker").to_string()).unwrap();
        let options = options(cni.path());
        let mut keeper = keeper(&config, &options);
        keeper.converge(Some(&nodes())).await.unwrap();
        keeper.converge(Some(&nodes()[..1])).await.unwrap();
        assert_eq!(run("ip route show proto 107"), "");
        assert!(run("ip route show 10.240.9.0/24").contains("192.168.77.9"));
    });
}

#[test]
fn what_somebody_changed_in_the_guard_is_put_right() {
    in_namespace(|| async {
        let cni = tempfile::tempdir().unwrap();
        let config = NodeConfig::parse(&sample("worker").to_string()).unwrap();
        let options = options(cni.path());
        let mut keeper = keeper(&config, &options);
        keeper.converge(Some(&nodes())).await.unwrap();
        let rules = run("nft --stateless list table inet ake");
        for change in ["nft add rule inet ake to_pods accept", "nft delete table inet ake"] {
            run(change);
            assert_eq!(steps(&keeper, &nodes()).await.len(), 1, "{change}");
            keeper.converge(Some(&nodes())).await.unwrap();
            assert_eq!(run("nft --stateless list table inet ake"), rules);
        }
    });
}

#[test]
fn a_setting_of_the_kernel_is_put_right() {
    in_namespace(|| async {
        let cni = tempfile::tempdir().unwrap();
        let config = NodeConfig::parse(&sample("master").to_string()).unwrap();
        let options = options(cni.path());
        let mut keeper = keeper(&config, &options);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        keeper.converge(Some(&nodes())).await.unwrap();
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "1");
        assert!(!cni.path().join(cni::FILE).exists());
    });
}

#[test]
fn the_vip_comes_to_lo_and_goes() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        for vip in ["203.0.113.17", "2001:db8:113::17"] {
            let address: IpAddr = vip.parse().unwrap();
            assert!(!netlink.loopback_has(address).await.unwrap());
            netlink.add_to_loopback(address).await.unwrap();
            assert!(netlink.loopback_has(address).await.unwrap());
            assert!(run("ip address show dev lo").contains(vip));
            netlink.remove_from_loopback(address).await.unwrap();
            assert!(!run("ip address show dev lo").contains(vip));
        }
        assert!(run("ip address show dev lo").contains("127.0.0.1"));
    });
}

#[test]
fn a_node_waits_for_its_ipv6_address_to_be_its_own() {
    in_namespace(|| async {
        let mut config = NodeConfig::parse(&dual_stack("worker").to_string()).unwrap();
        config.vip = "192.168.77.1".parse().unwrap();
        run("ip -6 address add fd00:77::30/64 dev eth0; ip -6 route add default via fd00:77::1 dev eth0");
        assert!(
            run("ip -6 address show dev eth0 tentative").contains("fd00:77::30"),
            "checked for duplicates"
        );
        assert!(join::own_address("fd00:96::".parse().unwrap(), 6443).is_err(), "only ::1 is there yet");
        let found = join::own_addresses(&config, Duration::from_secs(60)).await.unwrap();
        assert_eq!(found, ["192.168.77.30", "fd00:77::30"].map(|a| a.parse::<IpAddr>().unwrap()));
    });
}
