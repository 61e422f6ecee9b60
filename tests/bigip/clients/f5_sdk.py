"""F5's own SDK for Python against a BIG-IP: every type that AKE's driver writes is made, read, changed and
deleted, one transaction fails as a whole, one list comes by the page. Arguments: host, port."""

import sys
import warnings

warnings.filterwarnings("ignore")

from f5.bigip import ManagementRoot
from f5.bigip.contexts import TransactionContextManager
from icontrol.exceptions import iControlUnexpectedHTTPError

host, port = sys.argv[1], int(sys.argv[2])
passed = 0


def holds(what, truth):
    global passed
    if not truth:
        sys.exit(f"f5-sdk: {what}: does not hold")
    passed += 1


root = ManagementRoot(host, "admin", "admin", port=port, token=True)
ltm = root.tm.ltm
P = "sdk"
partition = root.tm.auth.partitions.partition.create(name=P, description="made by f5-sdk")
holds("partition", partition.description == "made by f5-sdk")
generation = partition.generation
partition.modify(description="changed by f5-sdk")
read = root.tm.auth.partitions.partition.load(name=P)
holds("the partition is another", read.description == "changed by f5-sdk" and read.generation > generation)


def life(kind, name, made, changed):
    """Makes, reads, changes; the caller deletes when nothing refers to it any more."""
    one = kind.create(name=name, partition=P, **made)
    holds(f"{name} is there", kind.exists(name=name, partition=P))
    read = kind.load(name=name, partition=P)
    for key, value in {**made}.items():
        if isinstance(value, str) and key not in ("monitor", "defaultsFrom"):
            holds(f"{name}.{key} = {getattr(read, key)}", getattr(read, key) == value)
    read.modify(**changed)
    again = kind.load(name=name, partition=P)
    for key, value in changed.items():
        if not isinstance(value, (list, dict)):
            holds(f"{name}.{key} = {getattr(again, key)}", str(getattr(again, key)).strip() == str(value))
    holds(f"{name}: another generation", again.generation > one.generation)
    return again


made = [
    life(ltm.monitor.tcps.tcp, "tcp-22", {"destination": "*:22", "transparent": "disabled"}, {"interval": 7}),
    life(ltm.monitor.https.http, "http-80", {"destination": "*:80", "send": "GET /", "recv": "^HTTP"}, {"timeout": 31}),
    life(ltm.profile.fastl4s.fastl4, "npath", {"looseClose": "enabled"}, {"idleTimeout": "400"}),
    life(ltm.persistence.source_addrs.source_addr, "client-ip", {"timeout": "300"}, {"matchAcrossServices": "enabled"}),
    life(ltm.data_group.internals.internal, "group", {"type": "string", "records": [{"name": "b"}, {"name": "a"}]},
         {"description": "two"}),
    life(ltm.nodes.node, "192.168.1.20", {"address": "192.168.1.20"}, {"description": "one"}),
    life(ltm.pools.pool, "nodes", {"loadBalancingMode": "ratio-member", "monitor": f"/{P}/tcp-22"},
         {"serviceDownAction": "reselect"}),
]
pool = made[-1]
member = pool.members_s.members.create(name="192.168.1.20:0", partition=P, description="w0")
holds("the member is monitored", pool.members_s.members.load(name="192.168.1.20:0", partition=P).state == "up")
member.modify(session="user-disabled")
holds("the member drains", pool.members_s.members.load(name="192.168.1.20:0", partition=P).session == "user-disabled")
holds("one member", len(pool.members_s.get_collection()) == 1)
virtual_made = {"destination": f"/{P}/203.0.113.17:80", "ipProtocol": "tcp", "pool": f"/{P}/nodes",
                "translateAddress": "disabled", "translatePort": "disabled", "profiles": [f"/{P}/npath"],
                "persist": [{"name": f"/{P}/client-ip"}]}
address = life(ltm.virtual_address_s.virtual_address, "203.0.113.17", {"address": "203.0.113.17", "autoDelete": "false"},
               {"arp": "disabled"})
virtual = life(ltm.virtuals.virtual, "web", virtual_made, {"description": "web"})
holds("its profile", [p.name for p in virtual.profiles_s.get_collection()] == ["npath"])


def refused(what, code, act):
    try:
        act()
    except iControlUnexpectedHTTPError as e:
        holds(f"{what}: {e}", e.response.status_code == code)
    else:
        sys.exit(f"f5-sdk: {what}: was not refused")


refused("a pool in use goes", 400, pool.delete)
refused("a monitor in use goes", 400, made[0].delete)
refused("a name twice", 409, lambda: ltm.pools.pool.create(name="nodes", partition=P))
refused("a port twice", 400, lambda: ltm.virtuals.virtual.create(name="web2", partition=P, **virtual_made))

# one transaction does two things, another one fails with its second and leaves nothing of its first
with TransactionContextManager(root.tm.transactions.transaction) as api:
    api.tm.ltm.pools.pool.create(name="t1", partition=P)
    api.tm.ltm.pools.pool.create(name="t2", partition=P)
holds("both are there", all(ltm.pools.pool.exists(name=n, partition=P) for n in ("t1", "t2")))
try:
    with TransactionContextManager(root.tm.transactions.transaction) as api:
        api.tm.ltm.pools.pool.create(name="t3", partition=P)
        api.tm.ltm.pools.pool.create(name="t1", partition=P)
    sys.exit("f5-sdk: a transaction with a name twice was not refused")
except Exception as e:
    holds(f"the transaction fails: {e}", "already exists" in str(e))
holds("nothing of it is there", not ltm.pools.pool.exists(name="t3", partition=P))

for n in range(25):
    ltm.nodes.node.create(name=f"10.9.0.{n}", partition=P, address=f"10.9.0.{n}")
session, names, skip = root._meta_data["icr_session"], [], 0
while True:
    page = session.get(f"https://{host}:{port}/mgmt/tm/ltm/node?$top=10&$skip={skip}&$filter=partition+eq+{P}").json()
    names += [item["name"] for item in page.get("items", [])]
    skip += 10
    if "nextLink" not in page:
        break
holds(f"26 nodes by the page: {names}", len(names) == 26 == len(set(names)))

refused("a partition that is not empty goes", 400, partition.delete)
virtual.delete()
address.delete()
member.delete()
for one in reversed(made):
    one.delete()
for n in ("t1", "t2"):
    ltm.pools.pool.load(name=n, partition=P).delete()
for node in ltm.nodes.get_collection():
    node.delete()
partition.refresh()
partition.delete()
holds("nothing is left", not root.tm.auth.partitions.partition.exists(name=P))
root.tm.sys.failover.exec_cmd("run", standby=True)
states = [device.failoverState for device in root.tm.cm.devices.get_collection()]
holds(f"it gives the traffic away: {states}", states == ["standby"])
print(f"{passed} passed, 0 failed")
