"""An ML2 mechanism driver without agents: stands in for the agents of the
hypervisors' switches, not for the switch.

It binds every port of an instance on its first segment and calls it ACTIVE.
An unbound port (a reserved VIP) stays DOWN, as it would.

What the agents would learn by RPC, the lab's switch is told by the hook
(lab_hook.py), event `network`: every port with its addresses, its allowed
address pairs and its security groups, and every group's rules. It is the
whole table each time: a switch that missed one is right again after the next.
Tables are told one at a time and in order. Whoever changed a port waits
until a table that holds the change has been told; whoever changed a group
does not, as neutron, too, answers before its agents have obeyed. A few
changes at once cost one table.
"""
import threading
import time

from neutron_lib import constants
from neutron_lib import context as neutron_context
from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import events
from neutron_lib.callbacks import registry
from neutron_lib.callbacks import resources
from neutron_lib.plugins import directory
from neutron_lib.plugins.ml2 import api
from oslo_log import log

import lab_hook

LOG = log.getLogger(__name__)


class Table:
    """The whole table, and how far the switch knows it."""

    def __init__(self):
        self._numbers = threading.Lock()
        self._telling = threading.Lock()
        self._changed = self._told = 0
        self._soon = threading.Event()
        self._teller = None

    def tell(self):
        self._tell(self._change())

    def tell_soon(self):
        self._change()
        with self._numbers:
            if self._teller is None:
                self._teller = threading.Thread(target=self._go_on_telling, daemon=True)
                self._teller.start()
        self._soon.set()

    def _go_on_telling(self):
        while True:
            self._soon.wait()
            self._soon.clear()
            try:
                self._tell(self._changed)
            except Exception:
                LOG.exception('the switch was not told of its groups')
                time.sleep(1)
                self._soon.set()

    def _change(self):
        with self._numbers:
            self._changed += 1
            return self._changed

    def _tell(self, mine):
        with self._telling:
            if self._told >= mine:
                return  # the one before us was read after our change
            with self._numbers:
                told = self._changed
            # by the clock, so that it grows over a restart, too
            lab_hook.run('network', generation=time.time_ns(), **self._read())
            self._told = told

    @staticmethod
    def _read():
        plugin = directory.get_plugin()
        context = neutron_context.get_admin_context()
        groups = {g['id']: [] for g in plugin.get_security_groups(context)}
        for rule in plugin.get_security_group_rules(context):
            groups.setdefault(rule['security_group_id'], []).append(rule)
        return {
            'ports': plugin.get_ports(context),
            'networks': {n['id']: n for n in plugin.get_networks(context)},
            'groups': groups,
            'address_groups': {
                g['id']: g['addresses']
                for g in plugin.get_address_groups(context)}}


TABLE = Table()


class Switch(api.MechanismDriver):

    def initialize(self):
        for resource in (resources.SECURITY_GROUP,
                         resources.SECURITY_GROUP_RULE,
                         resources.ADDRESS_GROUP):
            for event in (events.AFTER_CREATE, events.AFTER_UPDATE,
                          events.AFTER_DELETE):
                registry.subscribe(self._group_changed, resource, event)

    @property
    def connectivity(self):
        return portbindings.CONNECTIVITY_L2

    def bind_port(self, context):
        for segment in context.segments_to_bind:
            context.set_binding(
                segment[api.ID], portbindings.VIF_TYPE_OVS,
                {portbindings.CAP_PORT_FILTER: True},
                status=constants.PORT_STATUS_ACTIVE)
            return

    def filter_hosts_with_segment_access(self, context, segments,
                                         candidate_hosts, agent_getter):
        return set(candidate_hosts)

    def _group_changed(self, resource, event, trigger, payload=None):
        TABLE.tell_soon()

    def create_port_postcommit(self, context):
        TABLE.tell()

    def update_port_postcommit(self, context):
        TABLE.tell()

    def delete_port_postcommit(self, context):
        TABLE.tell()
