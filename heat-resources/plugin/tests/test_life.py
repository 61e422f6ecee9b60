"""How Heat's life cycle maps onto runs of the program, with a stand-in for the program that says what it is
asked and answers what a test wants. See engine.py for what it needs.
"""
import json
import os
import pathlib
import sys
import tempfile
import time
import unittest
from unittest import mock

import engine
from heat.common import context
from heat.engine import resources
from heat.engine import stack as stacks

# Appends each request to `asked`; answers by verb from `answers`, JSON or an error's text.
STAND_IN = '''#!{python}
import json, pathlib, sys, time
folder = pathlib.Path({folder!r})
request = json.load(sys.stdin)
with open(folder / 'asked', 'a') as asked:
    asked.write(json.dumps(request) + '\\n')
answers = json.loads((folder / 'answers').read_text())
answer = answers.get(request['verb'], {{'done': True}})
if isinstance(answer, str):
    sys.exit(answer)
time.sleep(answer.pop('sleep', 0))
print(json.dumps(answer))
'''

KEYS = {
    'heat_template_version': '2021-04-16',
    'parameters': {'id': {'type': 'string', 'hidden': True}, 'secret': {'type': 'string', 'hidden': True},
                   'csr': {'type': 'string', 'default':
                           '-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n'}},
    'resources': {'keys': {'type': 'AKE::Cluster::Credentials', 'properties': {
        'cluster': '11111111-2222-3333-4444-555555555555', 'name': 'demo', 'admin_csr': {'get_param': 'csr'},
        'application_credential_id': 'id', 'application_credential_secret': 'secret'}}}}

ADDRESS = {
    'heat_template_version': '2021-04-16',
    'resources': {'vip': {'type': 'AKE::LB::VIP', 'properties': {
        'cluster': '11111111-2222-3333-4444-555555555555', 'name': 'api'}}}}


def setUpModule():
    engine.start()


class Life(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        program = self.folder / 'ake-heat'
        program.write_text(STAND_IN.format(python=sys.executable, folder=folder.name))
        program.chmod(0o755)
        # Heat keeps no name of the module that it imported.
        self.plugin = resources.global_env().get_class('AKE::LB::VIP').handle_create.__globals__
        for patch in (
                mock.patch.dict(self.plugin, PROGRAM=str(program)),
                mock.patch.object(context.RequestContext, 'keystone_session', mock.Mock(**{
                    'get_token.return_value': 'the-tenants-token'})),
                mock.patch.object(context.RequestContext, 'keystone_v3_endpoint', 'http://keystone.test/v3')):
            patch.start()
            self.addCleanup(patch.stop)
        self.answer()

    def answer(self, **answers):
        text = json.dumps({verb.replace('_', '-'): answer for verb, answer in answers.items()})
        (self.folder / 'answers').write_text(text)

    def asked(self):
        path = self.folder / 'asked'
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def verbs(self):
        return [request['verb'] for request in self.asked()]

    def create(self, text, **given):
        made = engine.make(text, f'demo-{time.monotonic_ns()}', **given)
        made.store()
        made.create()
        made._persist_state()
        return made

    def update(self, made, text, **given):
        loaded = stacks.Stack.load(engine.dummy_context(), stack_id=made.id)
        loaded.update(engine.make(text, made.name, **given))
        loaded._persist_state()
        return stacks.Stack.load(engine.dummy_context(), stack_id=made.id)

    def test_a_resource_is_asked_for_until_it_is_done(self):
        self.answer(create={'done': False, 'again': 1},
                    check_create={'done': True, 'attributes': {'address': '203.0.113.17', 'name': 'api'}})
        made = self.create(ADDRESS)
        self.assertEqual(made.state, ('CREATE', 'COMPLETE'), made.status_reason)
        first, then = self.asked()
        self.assertEqual((first['verb'], then['verb']), ('create', 'check-create'))
        self.assertEqual((first['waited'] < 1, then['waited'] >= 1), (True, True))
        self.assertEqual(first['type'], 'AKE::LB::VIP')
        self.assertEqual(first['properties'], {'cluster': '11111111-2222-3333-4444-555555555555', 'name': 'api',
                                               'family': 'IPv4', 'retain': False})
        self.assertEqual(first['cloud'], {'auth_url': 'http://keystone.test/v3', 'token': 'the-tenants-token',
                                          'region': 'RegionOne', 'project_id': 'project'})
        self.assertEqual(first['resource_id'], made['vip'].resource_id)
        self.assertEqual(made['vip'].FnGetAtt('address'), '203.0.113.17')

    def test_its_complaint_is_the_fault_and_an_update_mends_it(self):
        self.answer(create='address: 1.2.3.4: expected an address of 203.0.113.16/28')
        made = self.create(ADDRESS)
        self.assertEqual(made.state, ('CREATE', 'FAILED'))
        self.assertIn('address: 1.2.3.4: expected an address of 203.0.113.16/28', made.status_reason)
        self.asked()
        self.answer(update={'done': True, 'attributes': {'address': '203.0.113.17'}})
        identity = made['vip'].resource_id
        made = self.update(made, ADDRESS)
        self.assertEqual(made.state, ('UPDATE', 'COMPLETE'), made.status_reason)
        self.assertEqual(self.verbs(), ['update'])
        self.assertEqual(made['vip'].resource_id, identity)

    def test_an_update_without_a_change_asks_nothing(self):
        made = self.create(ADDRESS)
        self.asked()
        made = self.update(made, ADDRESS)
        self.assertEqual(made.state, ('UPDATE', 'COMPLETE'))
        self.assertEqual(self.verbs(), [])

    def test_what_may_not_change_does_not(self):
        made = self.create(ADDRESS)
        self.asked()
        changed = json.loads(json.dumps(ADDRESS))
        changed['resources']['vip']['properties']['family'] = 'IPv6'
        made = self.update(made, changed)
        self.assertEqual(made.state, ('UPDATE', 'FAILED'))
        self.assertIn('family', made.status_reason)
        self.assertEqual(self.verbs(), [])

    def test_what_failed_half_way_can_be_deleted(self):
        self.answer(create='no', delete={'done': False, 'again': 1}, check_delete={
            'done': True, 'event': 'volumes that stay: data'})
        made = self.create(ADDRESS)
        self.asked()
        with mock.patch.object(type(made['vip']), '_add_event') as add_event:
            made.delete()
        self.assertEqual(made.state, ('DELETE', 'COMPLETE'), made.status_reason)
        self.assertEqual(self.verbs(), ['delete', 'check-delete'])
        add_event.assert_any_call('DELETE', 'IN_PROGRESS', 'volumes that stay: data')

    def test_one_that_takes_too_long_is_ended(self):
        self.answer(create={'done': True, 'sleep': 60})
        with mock.patch.dict(self.plugin, DEADLINE=1):
            begun = time.monotonic()
            made = self.create(ADDRESS)
        self.assertLess(time.monotonic() - begun, 20)
        self.assertEqual(made.state, ('CREATE', 'FAILED'))
        self.assertIn('within 1 s', made.status_reason)

    def test_a_cancelled_one_is_ended(self):
        self.answer(create={'done': True, 'sleep': 60})
        made = engine.make(ADDRESS, 'cancelled')
        made.store()
        rsrc = made['vip']
        rsrc.store()
        action = rsrc.handle_create()
        self.assertFalse(rsrc.check_create_complete(action))
        rsrc.handle_create_cancel(action)
        action.thread.join(10)
        self.assertFalse(action.thread.is_alive())
        self.assertLess(action.process.returncode, 0)

    def test_the_program_gets_nothing_of_the_engines_environment(self):
        self.assertLessEqual(set(self.plugin['ENVIRONMENT']), {'PATH', 'AKE_HEAT_CONFIG'})

    def test_secrets_are_kept_encrypted_and_shown_to_nobody(self):
        claims = {'master': {'id': 'm', 'key': 'marker-claim'}}
        self.answer(create={'done': True, 'attributes': {'ca': 'PEM'}, 'secrets': {
            'ca_key': 'marker-key', 'claims': json.dumps(claims)}})
        made = self.create(KEYS, id='marker-id', secret='marker-secret')
        self.assertEqual(made.state, ('CREATE', 'COMPLETE'), made.status_reason)
        request, = self.asked()
        self.assertEqual(request['hidden'], {'application_credential_id': 'marker-id',
                                             'application_credential_secret': 'marker-secret'})
        rsrc = made['keys']
        self.assertEqual(rsrc.FnGetAtt('claims'), claims)
        self.assertEqual(rsrc.FnGetAtt('show'), {'ca': 'PEM'})
        with engine.db_api.get_engine().connect() as connection:
            for table in engine.models.BASE.metadata.sorted_tables:
                for row in connection.execute(table.select()):
                    for marker in ('marker-key', 'marker-secret', 'marker-claim'):
                        self.assertNotIn(marker, repr(row), table.name)

    def test_a_new_value_of_a_hidden_parameter_is_an_update_with_the_keys_that_were_kept(self):
        self.answer(create={'done': True, 'secrets': {'ca_key': 'marker-key'}})
        made = self.create(KEYS, id='one', secret='old')
        self.asked()
        made = self.update(made, KEYS, id='one', secret='new')
        self.assertEqual(made.state, ('UPDATE', 'COMPLETE'), made.status_reason)
        request, = self.asked()
        self.assertEqual(request['verb'], 'update')
        self.assertEqual(request['hidden']['application_credential_secret'], 'new')
        self.assertEqual(request['secrets'], {'ca_key': 'marker-key'})
        made = self.update(made, KEYS, id='one', secret='new')
        self.assertEqual(self.verbs(), [])
        made.delete()
        request, = self.asked()
        self.assertEqual((request['verb'], request['hidden']), ('delete', {}))

    def test_a_check_says_what_is_missing(self):
        made = self.create(ADDRESS)
        self.answer(live_state='ake-api has no address api')
        made.check()
        self.assertEqual(made.state, ('CHECK', 'FAILED'))
        self.assertIn('ake-api has no address api', made['vip'].status_reason)
        self.assertEqual(os.environ.get('AKE_HEAT_CONFIG'), self.plugin['ENVIRONMENT'].get('AKE_HEAT_CONFIG'))


if __name__ == '__main__':
    unittest.main()
