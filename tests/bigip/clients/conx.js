// f5-conx-core against a BIG-IP: every type that AKE's driver writes is made, read, changed and deleted, one
// transaction fails as a whole, one list comes by the page. Arguments: host, port.
'use strict';

process.env.F5_CONX_CORE_REJECT_UNAUTORIZED = 'false';
const { F5Client } = require('f5-conx-core');

const [host, port] = process.argv.slice(2);
let passed = 0;

function holds(what, truth) {
  if (!truth) {
    console.error(`f5-conx-core: ${what}: does not hold`);
    process.exit(1);
  }
  passed += 1;
}

async function main() {
  const client = new F5Client(host, 'admin', 'admin', { port: Number(port) });
  await client.discover('BIG-IP');
  holds('it knows whom it speaks to', client.host.product === 'BIG-IP');
  const ask = async (method, path, data, headers) =>
    (await client.https(`/mgmt/tm/${path}`, { method, data, headers: headers || {} })).data;
  const refused = async (what, status, act) => {
    try {
      await act();
    } catch (error) {
      holds(`${what}: ${error.response && error.response.status}`, error.response && error.response.status === status);
      return error.response.data.message;
    }
    holds(`${what} is refused`, false);
  };

  await ask('POST', 'auth/partition', { name: 'conx', description: 'made by f5-conx-core' });
  await ask('PATCH', 'auth/partition/conx', { description: 'changed by f5-conx-core' });
  const partition = await ask('GET', 'auth/partition/conx');
  holds('the partition is another', partition.description === 'changed by f5-conx-core');
  const made = [
    ['ltm/monitor/tcp', 'tcp-22', { destination: '*:22' }, { interval: 7 }],
    ['ltm/monitor/http', 'http-80', { destination: '*:80', recv: '^HTTP' }, { timeout: 31 }],
    ['ltm/profile/fastl4', 'npath', { looseClose: 'enabled' }, { resetOnTimeout: 'disabled' }],
    ['ltm/persistence/source-addr', 'client-ip', { matchAcrossServices: 'enabled' }, { timeout: '300' }],
    ['ltm/data-group/internal', 'group', { type: 'string' }, { description: 'one' }],
    ['ltm/node', '2001:db8::20', { address: '2001:db8::20' }, { description: 'six' }],
    ['ltm/pool', 'nodes', { monitor: '/conx/tcp-22 and /conx/http-80', members: [{ name: '2001:db8::20.0' }] },
      { loadBalancingMode: 'ratio-member' }],
    ['ltm/virtual-address', '2001:db8::17', { address: '2001:db8::17', autoDelete: 'false' }, { arp: 'disabled' }],
    ['ltm/virtual', 'web', { destination: '/conx/2001:db8::17.443', ipProtocol: 'tcp', pool: '/conx/nodes',
      profiles: ['/conx/npath'], persist: [{ name: '/conx/client-ip' }], translatePort: 'disabled' },
    { description: 'web' }],
  ];
  for (const [collection, name, body, change] of made) {
    const uri = `${collection}/~conx~${name}`;
    const created = await ask('POST', collection, { name, partition: 'conx', ...body });
    holds(`${uri}: its path`, created.fullPath === `/conx/${name}` && created.kind.endsWith('state'));
    await ask('PATCH', uri, change);
    const read = await ask('GET', uri);
    for (const [key, value] of Object.entries(change)) holds(`${uri}.${key}`, read[key] === value);
    await refused(`${uri} twice`, 409, () => ask('POST', collection, { name, partition: 'conx', ...body }));
  }
  const pool = await ask('GET', 'ltm/pool/~conx~nodes?expandSubcollections=true');
  holds('its member', pool.membersReference.items[0].address === '2001:db8::20');

  const begin = async () => (await ask('POST', 'transaction', {})).transId;
  let id = await begin();
  const header = { 'X-F5-REST-Coordination-Id': String(id) };
  await ask('POST', 'ltm/pool', { name: 't1', partition: 'conx' }, { ...header });
  await ask('POST', 'ltm/virtual', { name: 'v1', partition: 'conx', destination: '/conx/203.0.113.1:80', pool: '/conx/gone' }, { ...header });
  const said = await refused('the transaction', 404, () => ask('PATCH', `transaction/${id}`, { state: 'VALIDATING' }));
  holds(said, said.startsWith('transaction failed:01020036:3: The requested Pool (/conx/gone)'));
  await refused('what it would have made', 404, () => ask('GET', 'ltm/pool/~conx~t1'));

  for (let n = 0; n < 25; n += 1) await ask('POST', 'ltm/node', { name: `10.8.0.${n}`, partition: 'conx', address: `10.8.0.${n}` });
  const names = new Set();
  for (let skip = 0; ; skip += 10) {
    const page = await ask('GET', `ltm/node?$top=10&$skip=${skip}&$filter=partition+eq+conx`);
    (page.items || []).forEach((item) => names.add(item.name));
    if (!page.nextLink) break;
  }
  holds(`26 nodes by the page, not ${names.size}`, names.size === 26);

  await refused('a pool in use', 400, () => ask('DELETE', 'ltm/pool/~conx~nodes'));
  for (const [collection, name] of made.reverse()) await ask('DELETE', `${collection}/~conx~${name}`);
  for (let n = 0; n < 25; n += 1) await ask('DELETE', `ltm/node/~conx~10.8.0.${n}`);
  await ask('DELETE', 'auth/partition/conx');
  await refused('the partition', 404, () => ask('GET', 'auth/partition/conx'));
  await client.clearLogin();
  console.log(`${passed} passed, 0 failed`);
}

main().catch((error) => {
  console.error('f5-conx-core:', error.message, error.response && JSON.stringify(error.response.data));
  process.exit(1);
});
