"""The templates, read by Heat's own code. See engine.py for what it needs."""
import json
import subprocess
import unittest
from unittest import mock

import engine
from heat.common import template_format
from heat.engine import constraints
from heat.engine import node_data
from heat.engine import resource
from heat.engine import resources
from heat.engine import stk_defn
from heat.engine.clients.os import glance
from heat.engine.clients.os import neutron
from heat.engine.clients.os import nova
from heat.engine.resources.openstack.nova import server

CSR = '-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n'
GIVEN = {'network': 'provider', 'admin_csr': CSR, 'application_credential_id': 'marker-id',
         'application_credential_secret': 'marker-secret'}


def setUpModule():
    engine.start()


def make(name='demo', change=None, **given):
    """The cluster's stack, not created."""
    files = {path.name: path.read_text() for path in engine.TEMPLATES.glob('*.yaml')}
    text = template_format.parse(files['cluster.yaml'])
    if change:
        change(text)
    return engine.make(text, name, files, **{**GIVEN, **given})


class WithoutCloud(unittest.TestCase):
    """What would ask the cloud at validation says yes."""

    def setUp(self):
        ours = constraints.CustomConstraint.validate

        def validate(constraint, value, schema=None, context=None):
            if constraint.name.split('.')[0] not in ('neutron', 'nova', 'glance'):
                ours(constraint, value, schema, context)
        for owner, name, stand_in in (
                (constraints.CustomConstraint, 'validate', validate),
                (neutron.NeutronClientPlugin, 'find_resourceid_by_name_or_id', lambda *a, **kw: 'network-id'),
                (neutron.NeutronClientPlugin, 'has_extension', lambda *a: True),
                (glance.GlanceClientPlugin, 'find_image_by_name_or_id', lambda *a: 'image-id'),
                (nova.NovaClientPlugin, 'find_flavor_by_name_or_id', lambda *a: 'flavor-id'),
                (nova.NovaClientPlugin, 'absolute_limits', lambda *a: {'maxServerMeta': 128}),
                (resource.Resource, '_validate_service_availability', lambda *a: None),
                (server.Server, '_validate_image_flavor', lambda *a: None)):
            patch = mock.patch.object(owner, name, stand_in)
            patch.start()
            self.addCleanup(patch.stop)

    def refused(self, *words, **given):
        with self.assertRaises(Exception) as raised:
            make(**given).validate()
        for word in words:
            self.assertIn(word, str(raised.exception))
        self.assertNotIn('marker-secret', str(raised.exception))


class Types(unittest.TestCase):
    def test_heat_shows_what_the_program_declares(self):
        kinds = json.loads(subprocess.run([engine.PROGRAM, 'schema'], check=True, capture_output=True).stdout)
        self.assertEqual(len(kinds), 6)
        for kind in kinds:
            found = resources.global_env().get_class(kind['name'])
            self.assertEqual(set(found.properties_schema), {prop['name'] for prop in kind['properties']})
            self.assertEqual(set(found.attributes_schema) - {'show'}, {a['name'] for a in kind['attributes']})
            for prop in kind['properties']:
                shown = found.properties_schema[prop['name']]
                self.assertEqual(shown.required, prop['required'])
                self.assertEqual(shown.description, prop['description'])
                self.assertEqual(shown.update_allowed, prop['change'] == 'updates')
                self.assertEqual(len(shown.constraints), len(prop['constraints']))


class Cluster(WithoutCloud):
    def test_the_template_is_valid(self):
        made = make()
        made.validate()
        self.assertEqual(set(made.outputs), {'cluster_id', 'api_address', 'api_url', 'ca', 'admin_certificate',
                                             'pod_range', 'vip_blocks'})

    def test_cleanup_is_the_first_to_go_and_registration_the_last(self):
        made = make()
        order = [rsrc.name for rsrc in made.dependencies]
        self.assertEqual((order[0], order[-1]), ('registration', 'cleanup'))
        before = {('load_balancer', 'master_nodes'), ('vip', 'load_balancer'), ('master_ports', 'master_nodes'),
                  ('security_group', 'master_ports'), ('credentials', 'worker_nodes')}
        for first, then in before:
            self.assertLess(order.index(first), order.index(then))

    def test_hidden_parameters_are_hidden(self):
        shown = dict(make().parameters.map(str, lambda p: p.hidden()))
        self.assertEqual(set(shown), {'application_credential_id', 'application_credential_secret'})

    def test_wrong_values_are_named(self):
        self.refused('name', 'Demo_1', 'does not match', name='Demo_1')
        self.refused('workers', '-1', workers=-1)
        self.refused('masters', '2', masters=2)
        self.refused('admin_csr', admin_csr='hello')
        self.refused('service_range', 'x', kubernetes={'service_range': 'x'})
        self.refused('servicerange', kubernetes={'servicerange': '10.96.0.0/16'})

    def test_a_credential_must_be_in_a_hidden_parameter(self):
        for parameter in ('network', 'no_such'):
            def change(text):
                text['resources']['credentials']['properties']['application_credential_secret'] = parameter
            self.refused('application_credential_secret', parameter, 'hidden parameter', change=change)

    def test_masters_are_known_by_their_ipv4_address(self):
        made = make()

        def fixed(*addresses):
            return [{'subnet_id': 's', 'ip_address': address} for address in addresses]
        node = node_data.NodeData(1, 'master_ports', 'uuid', 'ref', {
            'name': ['demo-master-0', 'demo-master-1'],
            'fixed_ips': [fixed('fd00:77::5', '192.168.77.20'), fixed('192.168.77.21')]}, 'CREATE', 'COMPLETE')
        stk_defn.update_resource_data(made.defn, 'master_ports', node)
        known = made['masters_known']
        value = known.t.properties(known.properties_schema)['value']
        self.assertEqual(value, [{'name': 'demo-master-0', 'address': '192.168.77.20'},
                                 {'name': 'demo-master-1', 'address': '192.168.77.21'}])


if __name__ == '__main__':
    unittest.main()
