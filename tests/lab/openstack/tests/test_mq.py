"""What services may expect of RabbitMQ through oslo.messaging, and get from lab_mq."""
import threading
import time
import unittest

import oslo_messaging
from oslo_config import cfg


class Endpoint:
    target = oslo_messaging.Target(version='1.0')

    def __init__(self, name):
        self.name, self.seen = name, []

    def echo(self, context, value):
        return {'name': self.name, 'value': value}

    def note(self, context, value):
        self.seen.append(value)

    def fail(self, context):
        raise ValueError('because')


class Test(unittest.TestCase):
    def setUp(self):
        cfg.CONF([])
        self.topic = self.id()  # the queues outlive a test
        self.transport = oslo_messaging.get_rpc_transport(
            cfg.CONF, url='lab:///', allowed_remote_exmods=['builtins'])
        self.servers = []

    def tearDown(self):
        for server in self.servers:
            server.stop()
            server.wait()

    def serve(self, host):
        endpoint = Endpoint(host)
        server = oslo_messaging.get_rpc_server(
            self.transport, oslo_messaging.Target(topic=self.topic, server=host),
            [endpoint], executor='threading')
        server.start()
        self.servers.append(server)
        return endpoint

    def client(self):
        return oslo_messaging.get_rpc_client(
            self.transport, oslo_messaging.Target(topic=self.topic), timeout=5)

    def test_a_call_comes_back_and_has_been_json(self):
        self.serve('a')
        got = self.client().call({}, 'echo', value=(1, {'k': (2,)}))
        self.assertEqual(got, {'name': 'a', 'value': [1, {'k': [2]}]})

    def test_what_is_no_json_is_refused_as_a_broker_would(self):
        self.serve('a')
        with self.assertRaises((TypeError, ValueError)):
            self.client().call({}, 'echo', value={1j})

    def test_a_server_is_reached_by_its_name(self):
        self.serve('a'), self.serve('b')
        for name in 'ba':
            got = self.client().prepare(server=name).call({}, 'echo', value=0)
            self.assertEqual(got['name'], name)

    def test_a_fanout_reaches_all_and_a_cast_one(self):
        a, b = self.serve('a'), self.serve('b')
        self.client().prepare(fanout=True).cast({}, 'note', value='all')
        self.wait(lambda: a.seen == b.seen == ['all'])
        for _ in range(10):
            self.client().cast({}, 'note', value='one')
        self.wait(lambda: len(a.seen) + len(b.seen) == 12)

    def test_a_failure_keeps_its_type(self):
        self.serve('a')
        with self.assertRaisesRegex(ValueError, 'because'):
            self.client().call({}, 'fail')

    def test_nobody_there_is_a_timeout_not_a_wait_for_ever(self):
        with self.assertRaises(oslo_messaging.MessagingTimeout):
            self.client().prepare(timeout=0.2).call({}, 'echo', value=0)

    def test_a_message_waits_for_a_server_that_starts_later(self):
        self.client().cast({}, 'note', value='early')
        endpoint = self.serve('a')
        self.wait(lambda: endpoint.seen == ['early'])

    def test_many_at_once(self):
        self.serve('a')
        got, lock = [], threading.Lock()

        def call(number):
            value = self.client().call({}, 'echo', value=number)['value']
            with lock:
                got.append(value)
        threads = [threading.Thread(target=call, args=(n,)) for n in range(50)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(sorted(got), list(range(50)))

    def wait(self, so):
        end = time.time() + 5
        while not so():
            self.assertLess(time.time(), end)
            time.sleep(0.01)


if __name__ == '__main__':
    unittest.main()
